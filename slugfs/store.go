// Package slugfs keeps slug and stack images: EROFS files named by the
// SHA-256 of their bytes. It packs a directory into an image, takes images in
// (verified), mounts them read-only and collects those nobody wants.
//
// What goes into an image was made by strangers: nothing in here follows a
// symlink of theirs, runs a program of theirs, or trusts a length of theirs.
// It must never start a dyno, know an app, or decide which images are wanted:
// the caller does.
package slugfs

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"manifold"
)

// What callers can ask of an error with errors.Is.
var (
	ErrMissing  = errors.New("the image is not here")
	ErrDigest   = errors.New("the image does not match its digest")
	ErrTooLarge = errors.New("the image is too large")
	ErrImage    = errors.New("not a usable EROFS image")
	ErrInUse    = errors.New("another process or Store uses it")
)

// Store is a directory of images and their mounts. Its methods may be called
// by several goroutines. One process at a time owns a directory.
//
//	<dir>/<64 hex>.erofs   an image: complete, verified, never changed
//	<dir>/<64 hex>.part    a fetch that broke off; the next one goes on there
//	<dir>/new-*            being written; swept away by Open
//	<dir>/lock             held while a Store is open
type Store struct {
	dir    string
	shared []string
	lock   *dirLock

	mu     sync.Mutex
	mounts map[string]*mounted      // by hex digest
	busy   map[string]chan struct{} // hex digests in a fetch; closed when it ends
}

const suffix = ".erofs"

// Open makes dir if need be and takes it over. Images in the shared
// directories are found too, but never changed or collected; they may appear
// while the Store is open.
func Open(dir string, shared ...string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open image store %s: %w", dir, err)
	}
	leftovers, err := filepath.Glob(filepath.Join(dir, "new-*"))
	for _, path := range leftovers {
		err = errors.Join(err, os.RemoveAll(path))
	}
	if err != nil {
		_ = lock.close()
		return nil, fmt.Errorf("open image store: %w", err)
	}
	return &Store{dir: dir, shared: shared, lock: lock,
		mounts: map[string]*mounted{}, busy: map[string]chan struct{}{}}, nil
}

// Close gives the directory back. Mounts that were handed out stay.
func (s *Store) Close() error { return errors.Join(s.Unmount(), s.lock.close()) }

// Unmount lets go of every image. Mounts that were handed out stay.
func (s *Store) Unmount() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, m := range s.mounts {
		err = errors.Join(err, m.close())
	}
	clear(s.mounts)
	return err
}

// Has says whether the image is here, complete.
func (s *Store) Has(img manifold.Image) bool {
	_, err := s.Path(img)
	return err == nil
}

// Path returns the image's file, or ErrMissing. The file is read-only to the
// caller; while it is open Collect leaves it alone.
func (s *Store) Path(img manifold.Image) (string, error) {
	return Find(img, append([]string{s.dir}, s.shared...)...)
}

// Find returns an image's file in one of the directories of Stores, or
// ErrMissing. It needs no Store.
func Find(img manifold.Image, dirs ...string) (string, error) {
	name, err := hexOf(img.Digest)
	if err != nil {
		return "", err
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name+suffix)
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("image %s: %w", img.Digest, ErrMissing)
}

// hexOf reads "sha256:" and 64 lower-case hex digits. The result is safe as a
// file name.
func hexOf(digest string) (string, error) {
	name, ok := strings.CutPrefix(digest, "sha256:")
	sum, err := hex.DecodeString(name)
	if !ok || err != nil || len(sum) != 32 || hex.EncodeToString(sum) != name {
		return "", fmt.Errorf("image digest %.80q: must be sha256: and 64 lower-case hex digits", digest)
	}
	return name, nil
}
