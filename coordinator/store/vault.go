package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const keyBytes = 32 // AES-256

// vault encrypts what is secret before etcd sees it: config vars, the
// environment in placements, keys. AES-256-GCM with a random nonce; the
// record's key is bound in as additional data, so that a value moved to
// another record does not open.
type vault struct{ aead cipher.AEAD }

// openVault reads the key at path, or makes one if fresh says that nothing was
// encrypted yet.
func openVault(path string, fresh bool) (*vault, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if !fresh {
			return nil, fmt.Errorf("the store's key %s is missing, and config vars cannot be read without it: put it back from your backup", path)
		}
		key, err = makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the store's key: %w", err)
	}
	if len(key) != keyBytes {
		return nil, fmt.Errorf("the store's key %s is damaged (%d bytes, not %d): put it back from your backup", path, len(key), keyBytes)
	}
	if err := os.Chmod(path, 0o600); err != nil { // a backup may have widened it
		return nil, fmt.Errorf("keep the store's key private: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &vault{aead}, nil
}

// makeKey writes a new key so that it is there whole or not at all, and
// durable before anything is encrypted with it.
func makeKey(path string) ([]byte, error) {
	key := make([]byte, keyBytes)
	rand.Read(key)
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".key-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = f.Write(key)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return key, errors.Join(d.Sync(), d.Close())
}

func (v *vault) seal(plain []byte, record string) []byte {
	return v.aead.Seal(nil, nil, plain, []byte(record))
}

func (v *vault) open(sealed []byte, record string) ([]byte, error) {
	plain, err := v.aead.Open(nil, nil, sealed, []byte(record))
	if err != nil {
		return nil, fmt.Errorf("decrypt %s: it was not written with this key, or was changed since", record)
	}
	return plain, nil
}

// sealVars and openVars do so for config vars. No vars are no bytes.
func (v *vault) sealVars(vars map[string]string, record string) ([]byte, error) {
	if len(vars) == 0 {
		return nil, nil
	}
	plain, err := json.Marshal(vars)
	if err != nil {
		return nil, err
	}
	return v.seal(plain, record), nil
}

func (v *vault) openVars(sealed []byte, record string) (map[string]string, error) {
	if len(sealed) == 0 {
		return nil, nil
	}
	plain, err := v.open(sealed, record)
	if err != nil {
		return nil, err
	}
	var vars map[string]string
	if err := json.Unmarshal(plain, &vars); err != nil {
		return nil, fmt.Errorf("decrypt %s: malformed", record) // not err: it may quote a value
	}
	return vars, nil
}
