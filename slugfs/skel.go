package slugfs

import (
	"context"
	"io"
	"os"

	"manifold"
)

type mounted struct{}

func (m *mounted) close() error { return nil }

func (s *Store) Add(ctx context.Context, r io.Reader, digest string, limit int64) (manifold.Image, error) {
	return manifold.Image{}, ErrMissing
}
func (s *Store) Fetch(ctx context.Context, img manifold.Image, get func(ctx context.Context, offset int64) (io.ReadCloser, error)) error {
	return ErrMissing
}
func (s *Store) Mount(img manifold.Image) (*os.File, error) { return nil, ErrMissing }

type PackOptions struct {
	Owner   int
	Limit   int64
	Trusted bool
}

func (s *Store) Pack(ctx context.Context, dir *os.File, o PackOptions) (manifold.Image, error) {
	return manifold.Image{}, ErrMissing
}
func (s *Store) Collect(keep func(digest string) bool) (freed int64, err error) { return 0, ErrMissing }
