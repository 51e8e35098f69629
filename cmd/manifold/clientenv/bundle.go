package clientenv

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"manifold"
)

// systemBundle is Debian's.
const systemBundle = "/etc/ssl/certs/ca-certificates.crt"

// writeBundle writes one file that holds our CA and every certificate that
// node and git would have trusted without us: NODE_EXTRA_CA_CERTS replaces a
// file the user may already need there, and GIT_SSL_CAINFO replaces the
// system's bundle.
func writeBundle(s manifold.Settings) (string, error) {
	ours := filepath.Join(s.Home, "coordinator", "ca.pem")
	text, err := readBounded(ours)
	if err != nil {
		return "", fmt.Errorf("read the coordinator's certificate authority: %w", err)
	}
	var out bytes.Buffer
	seen := map[[sha256.Size]byte]bool{}
	if appendCertificates(&out, seen, text) == 0 {
		return "", fmt.Errorf("no certificate in %s", ours)
	}
	for _, path := range []string{os.Getenv("NODE_EXTRA_CA_CERTS"), os.Getenv("GIT_SSL_CAINFO"), os.Getenv("SSL_CERT_FILE"), systemBundle} {
		if path == "" {
			continue
		}
		text, err := readBounded(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("read the certificates you trust: %w", err)
		}
		appendCertificates(&out, seen, text)
	}
	dir := filepath.Join(s.Home, "client")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "ca-bundle.pem")
	if err := replace(path, out.Bytes()); err != nil {
		return "", fmt.Errorf("write the certificates for git and node: %w", err)
	}
	return path, nil
}

// appendCertificates copies the certificates in text that were not seen yet
// and says how many there were.
func appendCertificates(out *bytes.Buffer, seen map[[sha256.Size]byte]bool, text []byte) (n int) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return n
		}
		if block.Type != "CERTIFICATE" {
			continue // a key in a user's file stays where it is
		}
		n++
		if sum := sha256.Sum256(block.Bytes); !seen[sum] {
			seen[sum] = true
			_ = pem.Encode(out, &pem.Block{Type: block.Type, Bytes: block.Bytes}) // a buffer does not fail
		}
	}
}

// replace writes a file so that readers see the old or the new content.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".bundle-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
