package slugfs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"manifold"
)

func openStore(t *testing.T, shared ...string) *Store {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "images"), shared...)
}

func openAt(t *testing.T, dir string, shared ...string) *Store {
	t.Helper()
	s, err := Open(dir, shared...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	return s
}

// restart is what a new process finds.
func restart(t *testing.T, s *Store) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return openAt(t, s.dir, s.shared...)
}

func imageOf(data []byte) manifold.Image {
	sum := sha256.Sum256(data)
	return manifold.Image{Digest: "sha256:" + hex.EncodeToString(sum[:]), Bytes: int64(len(data))}
}

// files lists what a store's directory holds besides its lock.
func files(t *testing.T, s *Store) []string {
	t.Helper()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != "lock" {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestAdd(t *testing.T) {
	data := []byte("any bytes")
	other := imageOf([]byte("other bytes")).Digest
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx    context.Context
		digest string
		limit  int64
		want   error
	}{
		"any digest":     {t.Context(), "", 0, nil},
		"its own digest": {t.Context(), imageOf(data).Digest, 0, nil},
		"at the limit":   {t.Context(), "", int64(len(data)), nil},
		"over the limit": {t.Context(), "", int64(len(data)) - 1, ErrTooLarge},
		"wrong digest":   {t.Context(), other, 0, ErrDigest},
		"cancelled":      {cancelled, "", 0, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			img, err := s.Add(c.ctx, bytes.NewReader(data), c.digest, c.limit)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if c.want != nil {
				if left := files(t, s); len(left) != 0 {
					t.Errorf("a refused image left %q", left)
				}
				return
			}
			if img != imageOf(data) {
				t.Errorf("got %+v, want %+v", img, imageOf(data))
			}
			path, err := s.Path(img)
			if err != nil {
				t.Fatal(err)
			}
			if kept, err := os.ReadFile(path); err != nil || !bytes.Equal(kept, data) {
				t.Errorf("kept %q, %v", kept, err)
			}
		})
	}
}

func TestDigestIsNeverAPath(t *testing.T) {
	s := openStore(t)
	hexes := strings.Repeat("a", 64)
	for _, digest := range []string{"", "sha256:", hexes, "sha256:../../../../etc/passwd", "sha256:" + strings.ToUpper(hexes),
		"sha256:" + hexes + "/..", "sha256:" + hexes + "\n", "sha512:" + hexes, "sha256:" + hexes[1:]} {
		if _, err := s.Path(manifold.Image{Digest: digest}); err == nil || errors.Is(err, ErrMissing) {
			t.Errorf("Path(%q): %v; want it refused as malformed", digest, err)
		}
	}
	if _, err := s.Path(manifold.Image{Digest: "sha256:" + hexes}); !errors.Is(err, ErrMissing) {
		t.Errorf("got %v, want ErrMissing", err)
	}
}

func TestOneOwnerAndNoLeftovers(t *testing.T) {
	s := openStore(t)
	if second, err := Open(s.dir); err == nil {
		second.Close()
		t.Fatal("two Stores own one directory")
	}
	leftover := filepath.Join(s.dir, "new-pack-1", "tree")
	if err := os.MkdirAll(leftover, 0o700); err != nil {
		t.Fatal(err)
	}
	if left := files(t, restart(t, s)); len(left) != 0 {
		t.Errorf("a crash's leftovers stay: %q", left)
	}
}

func TestSharedImagesAreFound(t *testing.T) {
	stacks := t.TempDir()
	s := openStore(t, stacks)
	data := []byte("a stack")
	img := imageOf(data)
	if s.Has(img) {
		t.Fatal("Has an image nobody put there")
	}
	path := filepath.Join(stacks, strings.TrimPrefix(img.Digest, "sha256:")+suffix)
	if err := os.WriteFile(path, data, 0o444); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Path(img); got != path || err != nil {
		t.Errorf("Path: %q, %v", got, err)
	}
	if _, err := s.Collect(func(string) bool { return false }); err != nil || !s.Has(img) {
		t.Errorf("Collect took a shared image (%v)", err)
	}
}

func TestFetchResumes(t *testing.T) {
	s := openStore(t)
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	img := imageOf(data)
	var offsets []int64
	// The line breaks after 400,000 bytes, each time.
	get := func(_ context.Context, offset int64) (io.ReadCloser, error) {
		offsets = append(offsets, offset)
		r := io.MultiReader(bytes.NewReader(data[offset:min(offset+400_000, img.Bytes)]), errReader{})
		if offset >= 800_000 {
			r = bytes.NewReader(data[offset:])
		}
		return io.NopCloser(r), nil
	}
	for range 2 {
		if err := s.Fetch(t.Context(), img, get); !errors.Is(err, errBroken) || s.Has(img) {
			t.Fatalf("got %v, want the break, and no image", err)
		}
	}
	s = restart(t, s)
	if err := s.Fetch(t.Context(), img, get); err != nil {
		t.Fatal(err)
	}
	if want := []int64{0, 400_000, 800_000}; !slices.Equal(offsets, want) {
		t.Errorf("asked for offsets %v, want %v", offsets, want)
	}
	if err := s.Fetch(t.Context(), img, nil); err != nil {
		t.Errorf("an image that is here was fetched again: %v", err)
	}
	if left := files(t, s); len(left) != 1 {
		t.Errorf("left %q", left)
	}
}

var errBroken = errors.New("connection reset")

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errBroken }

func TestFetchRefusesOtherBytes(t *testing.T) {
	img := imageOf([]byte("what was wanted"))
	for name, sent := range map[string]string{
		"other bytes":   "what was WANTED",
		"more bytes":    "what was wanted and more",
		"endless bytes": strings.Repeat("what was wanted", 1000),
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			err := s.Fetch(t.Context(), img, func(context.Context, int64) (io.ReadCloser, error) {
				return io.NopCloser(strings.NewReader(sent)), nil
			})
			if !errors.Is(err, ErrDigest) || s.Has(img) {
				t.Fatalf("got %v, want ErrDigest and no image", err)
			}
			if left := files(t, s); len(left) != 0 {
				t.Errorf("left %q: the next fetch must begin anew", left)
			}
		})
	}
}

func TestFetchOnceAtATime(t *testing.T) {
	s := openStore(t)
	data := []byte("wanted by many")
	img := imageOf(data)
	started, finish := make(chan struct{}), make(chan struct{})
	var gets atomic.Int32
	get := func(context.Context, int64) (io.ReadCloser, error) {
		gets.Add(1)
		close(started)
		<-finish
		return io.NopCloser(bytes.NewReader(data)), nil
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := s.Fetch(t.Context(), img, get); err != nil {
				t.Error(err)
			}
		})
	}
	<-started
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Fetch(impatient, img, get); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled wait: %v", err)
	}
	if freed, err := s.Collect(func(string) bool { return false }); freed != 0 || err != nil {
		t.Errorf("Collect took %d bytes of a fetch that runs (%v)", freed, err)
	}
	close(finish)
	all.Wait()
	if n := gets.Load(); n != 1 {
		t.Errorf("%d fetches of one image", n)
	}
}

// TestLockIsTheOwnersAlone: a child that has all of its owner's descriptors,
// as one between fork and exec, does not hold the directory when the owner is
// gone; and while the owner is there, nobody else gets it.
func TestLockIsTheOwnersAlone(t *testing.T) {
	if dir := os.Getenv("SLUGFS_TEST_OPEN"); dir != "" { // another process
		used, err := InUse(dir)
		s, openErr := Open(dir)
		fmt.Println(used, err, errors.Is(openErr, ErrInUse))
		if openErr == nil {
			s.Close()
		}
		return
	}
	s := openStore(t)
	another := func(want string) {
		t.Helper()
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestLockIsTheOwnersAlone$")
		cmd.Env = append(os.Environ(), "SLUGFS_TEST_OPEN="+s.dir)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("another process: %v, %s; want %s", err, out, want)
		}
	}
	another("true <nil> true")
	child := exec.Command("sleep", "1000")
	child.ExtraFiles = []*os.File{s.lock.file}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait() // it was killed
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	another("false <nil> false")
}
