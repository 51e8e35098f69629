package slugfs

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"manifold"
)

func TestCollect(t *testing.T) {
	s := openStore(t)
	wanted, unwanted := packed(t, s, "wanted"), packed(t, s, "unwanted")
	rest := filepath.Join(s.dir, imageOf([]byte("given up")).Digest[7:]+partial)
	writeFile(t, rest, "half an image")
	writeFile(t, filepath.Join(s.dir, "not ours"), "")
	freed, err := s.Collect(func(digest string) bool { return digest == wanted.Digest })
	if err != nil {
		t.Fatal(err)
	}
	if want := unwanted.Bytes + int64(len("half an image")); freed != want {
		t.Errorf("freed %d bytes, want %d", freed, want)
	}
	if !s.Has(wanted) || s.Has(unwanted) {
		t.Error("the wrong image went")
	}
	if _, err := os.Lstat(rest); err == nil {
		t.Error("what was left of a fetch stays")
	}
	if _, err := os.Lstat(filepath.Join(s.dir, "not ours")); err != nil {
		t.Error("took a file that is no image")
	}
}

func TestCollectLeavesWhatIsInUse(t *testing.T) {
	none := func(string) bool { return false }
	uses := map[string]func(t *testing.T, s *Store, img manifold.Image) *os.File{
		"a reader": func(t *testing.T, s *Store, img manifold.Image) *os.File {
			path, err := s.Path(img)
			if err != nil {
				t.Fatal(err)
			}
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			return file
		},
		"a mount": func(t *testing.T, s *Store, img manifold.Image) *os.File { return mount(t, s, img) },
	}
	for name, use := range uses {
		t.Run(name, func(t *testing.T) {
			ways(t, func(t *testing.T, s *Store, img manifold.Image) {
				held := use(t, s, img)
				if freed, err := s.Collect(none); freed != 0 || err != nil || !s.Has(img) {
					t.Fatalf("freed %d bytes (%v)", freed, err)
				}
				// Dynos outlive the agent that mounted for them.
				s = restart(t, s)
				if freed, err := s.Collect(none); freed != 0 || err != nil || !s.Has(img) {
					t.Fatalf("after a restart: freed %d bytes (%v)", freed, err)
				}
				if err := held.Close(); err != nil {
					t.Fatal(err)
				}
				collected(t, s, img)
			})
		})
	}
}

// collected collects until img is gone. Where udevd runs, it looks at a loop
// device that was let go, and holds the image for that moment.
func collected(t *testing.T, s *Store, img manifold.Image) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		freed, err := s.Collect(func(string) bool { return false })
		if freed == img.Bytes && err == nil && !s.Has(img) {
			return
		}
		if freed != 0 || err != nil || time.Now().After(deadline) {
			t.Fatalf("no longer in use: freed %d bytes (%v)", freed, err)
		}
	}
}

// An image that only our own cache holds mounted goes, and can come again.
func TestCollectDropsItsOwnMount(t *testing.T) {
	ways(t, func(t *testing.T, s *Store, img manifold.Image) {
		if err := mount(t, s, img).Close(); err != nil {
			t.Fatal(err)
		}
		collected(t, s, img)
		if _, err := s.Mount(img); err == nil {
			t.Error("mounted an image that is gone")
		}
	})
}
