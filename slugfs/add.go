package slugfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"manifold"
)

// Add takes an image in from r and keeps it, safe on disk, under the digest
// its bytes have. With a digest given, other bytes are ErrDigest; "" takes
// any. More than limit bytes are ErrTooLarge; 0 is no limit. On an error
// nothing is kept.
func (s *Store) Add(ctx context.Context, r io.Reader, digest string, limit int64) (manifold.Image, error) {
	img, err := s.add(ctx, r, digest, limit)
	if err != nil {
		return manifold.Image{}, fmt.Errorf("add image: %w", err)
	}
	return img, nil
}

func (s *Store) add(ctx context.Context, r io.Reader, digest string, limit int64) (manifold.Image, error) {
	if digest != "" {
		if _, err := hexOf(digest); err != nil {
			return manifold.Image{}, err
		}
	}
	file, err := os.CreateTemp(s.dir, "new-add-")
	if err != nil {
		return manifold.Image{}, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	r = &patient{ctx, r}
	if limit > 0 {
		r = io.LimitReader(r, limit+1)
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(file, sum), r)
	if err != nil {
		return manifold.Image{}, err
	}
	if limit > 0 && n > limit {
		return manifold.Image{}, fmt.Errorf("%w: more than %s", ErrTooLarge, size(limit))
	}
	got := digestOf(sum)
	if digest != "" && got != digest {
		return manifold.Image{}, fmt.Errorf("%w: want %s, got %s (%d bytes)", ErrDigest, digest, got, n)
	}
	return manifold.Image{Digest: got, Bytes: n}, s.publish(file, got)
}

// keep takes a finished file of our own in, under the digest of its bytes.
func (s *Store) keep(ctx context.Context, file *os.File) (manifold.Image, error) {
	sum := sha256.New()
	n, err := io.Copy(sum, &patient{ctx, file})
	if err != nil {
		return manifold.Image{}, err
	}
	digest := digestOf(sum)
	return manifold.Image{Digest: digest, Bytes: n}, s.publish(file, digest)
}

// publish gives a verified file its name, once its bytes are on disk.
func (s *Store) publish(file *os.File, digest string) error {
	name, err := hexOf(digest)
	if err != nil {
		return err
	}
	// An image never changes; who may read it is up to its directory's mode.
	if err := errors.Join(file.Chmod(0o444), file.Sync()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), filepath.Join(s.dir, name+suffix)); err != nil {
		return err
	}
	return s.syncDir()
}

func (s *Store) syncDir() error {
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Fetch brings an image here if it is not: get opens the bytes from offset
// on. One fetch of an image runs at a time; others wait for it. A fetch that
// breaks off is resumed by the next call, also after a restart. Bytes that
// are not those of the digest are ErrDigest and not kept.
func (s *Store) Fetch(ctx context.Context, img manifold.Image, get func(ctx context.Context, offset int64) (io.ReadCloser, error)) error {
	name, err := hexOf(img.Digest)
	if err != nil {
		return err
	}
	if img.Bytes <= 0 {
		return fmt.Errorf("fetch image %s: its size is not known", img.Digest)
	}
	release, err := s.claim(ctx, name)
	if err != nil {
		return fmt.Errorf("fetch image %s: %w", img.Digest, err)
	}
	defer release()
	if s.Has(img) {
		return nil
	}
	if err := s.fetch(ctx, img, filepath.Join(s.dir, name+partial), get); err != nil {
		return fmt.Errorf("fetch image %s: %w", img.Digest, err)
	}
	return nil
}

const partial = ".part"

func (s *Store) fetch(ctx context.Context, img manifold.Image, path string, get func(context.Context, int64) (io.ReadCloser, error)) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	sum := sha256.New()
	have, err := io.Copy(sum, &patient{ctx, file})
	if err != nil {
		return err
	}
	if have < img.Bytes {
		body, err := get(ctx, have)
		if err != nil {
			return err
		}
		// One byte more than wanted shows a source that has more.
		n, err := io.Copy(io.MultiWriter(file, sum), io.LimitReader(&patient{ctx, body}, img.Bytes-have+1))
		err = errors.Join(err, body.Close())
		if have += n; err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", have, img.Bytes, err)
		}
	}
	if have < img.Bytes {
		return fmt.Errorf("after %d of %d bytes: %w", have, img.Bytes, io.ErrUnexpectedEOF)
	}
	if got := digestOf(sum); got != img.Digest {
		return errors.Join(fmt.Errorf("%w: got %s (%d bytes)", ErrDigest, got, have), os.Remove(path))
	}
	return s.publish(file, img.Digest)
}

// claim waits until no other fetch of the image runs and marks one.
func (s *Store) claim(ctx context.Context, name string) (release func(), err error) {
	for {
		s.mu.Lock()
		other, taken := s.busy[name]
		if !taken {
			mine := make(chan struct{})
			s.busy[name] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.busy, name)
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func digestOf(sum hash.Hash) string { return "sha256:" + hex.EncodeToString(sum.Sum(nil)) }

// patient is a reader that ends with its context.
type patient struct {
	ctx context.Context
	r   io.Reader
}

func (p *patient) Read(b []byte) (int, error) {
	if p.ctx.Err() != nil {
		return 0, context.Cause(p.ctx)
	}
	return p.r.Read(b)
}
