package slugfs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"manifold"
	"manifold/slugfs/loop"
)

// packed makes an image of a small tree in s.
func packed(t *testing.T, s *Store, content string) manifold.Image {
	t.Helper()
	tree := t.TempDir()
	writeFile(t, filepath.Join(tree, "app", "hello"), content)
	return pack(t, s, tree, PackOptions{Owner: manifold.DynoUID})
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func pack(t *testing.T, s *Store, tree string, o PackOptions) manifold.Image {
	t.Helper()
	dir, err := os.Open(tree)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	img, err := s.Pack(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func mount(t *testing.T, s *Store, img manifold.Image) *os.File {
	t.Helper()
	tree, err := s.Mount(img)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

// in is a path for calls that take one; it goes through the descriptor.
func in(tree *os.File, path string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(tree.Fd())) + "/" + path
}

func stat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// ways runs a test with the mounts this kernel gives (from the file where it
// can) and with those of older ones.
func ways(t *testing.T, test func(t *testing.T, s *Store, img manifold.Image)) {
	t.Run("as this kernel does", func(t *testing.T) {
		s := openStore(t)
		test(t, s, packed(t, s, "hello from an image"))
	})
	t.Run("by a loop device", func(t *testing.T) {
		s := openStore(t)
		img := packed(t, s, "hello from an image on loop")
		path, err := s.Path(img)
		if err != nil {
			t.Fatal(err)
		}
		device, err := loop.Attach(path, true)
		if err != nil {
			t.Fatal(err)
		}
		s.mounts[img.Digest[7:]] = &mounted{loop: device}
		test(t, s, img)
	})
}

func TestMountIsReadOnlyAndUnseen(t *testing.T) {
	ways(t, func(t *testing.T, s *Store, img manifold.Image) {
		tree := mount(t, s, img)
		text, err := os.ReadFile(in(tree, "app/hello"))
		if err != nil || !strings.HasPrefix(string(text), "hello from") {
			t.Fatalf("read %q, %v", text, err)
		}
		if st := stat(t, in(tree, "app/hello")); st.Uid != manifold.DynoUID || st.Gid != manifold.DynoUID {
			t.Errorf("owned by %d:%d", st.Uid, st.Gid)
		}
		if err := os.WriteFile(in(tree, "app/hello"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("write: %v, want EROFS", err)
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(in(tree, "."), &fs); err != nil {
			t.Fatal(err)
		}
		const want = unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV
		if fs.Flags&want != want || fs.Type != unix.EROFS_SUPER_MAGIC_V1 {
			t.Errorf("flags %#x, type %#x", fs.Flags, fs.Type)
		}
		table, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(table), s.dir) {
			t.Errorf("the mount is in the mount table (%v)", err)
		}
	})
}

func TestMountsShareASuperblock(t *testing.T) {
	ways(t, func(t *testing.T, s *Store, img manifold.Image) {
		var all sync.WaitGroup
		trees := make([]*os.File, 16)
		for i := range trees {
			all.Go(func() {
				var err error
				if trees[i], err = s.Mount(img); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if t.Failed() {
			return
		}
		device := stat(t, in(trees[0], "app")).Dev
		for _, tree := range trees {
			if got := stat(t, in(tree, "app")).Dev; got != device {
				t.Errorf("device %d, not %d: the page cache is not shared", got, device)
			}
			if err := tree.Close(); err != nil {
				t.Error(err)
			}
		}
		// One caller's close is not another's.
		if _, err := os.ReadFile(in(mount(t, s, img), "app/hello")); err != nil {
			t.Error(err)
		}
	})
}

// Isolation shifts the owners of each dyno's layers by an idmapped mount.
func TestMountTakesItsOwnIdmap(t *testing.T) {
	ways(t, func(t *testing.T, s *Store, img manifold.Image) {
		plain, first, second := mount(t, s, img), mount(t, s, img), mount(t, s, img)
		idmap(t, first, 1_000_000)
		idmap(t, second, 2_000_000)
		for tree, want := range map[*os.File]uint32{plain: 1000, first: 1_001_000, second: 2_001_000} {
			if st := stat(t, in(tree, "app/hello")); st.Uid != want || st.Gid != want {
				t.Errorf("owned by %d:%d, want %d", st.Uid, st.Gid, want)
			}
		}
	})
}

func idmap(t *testing.T, tree *os.File, base int) {
	t.Helper()
	cmd := exec.Command("cat") // holds the namespace until its input ends
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: base, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer input.Close()
	namespace, err := os.Open("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(namespace.Fd())}
	if err := unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH, attr); err != nil {
		t.Fatalf("idmap: %v", err)
	}
}

func TestMountRefusesWhatIsNoImage(t *testing.T) {
	s := openStore(t)
	good := packed(t, s, strings.Repeat("some text that takes room\n", 10_000))
	path, err := s.Path(good)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	broken := append([]byte(nil), whole...)
	copy(broken[1024+80:], "\xff\xff\xff\xff") // features no kernel has, and the checksum is wrong
	for name, data := range map[string][]byte{
		"nothing":   nil,
		"text":      []byte(strings.Repeat("this is not an image\n", 500)),
		"a header":  whole[:1024],
		"cut short": whole[:len(whole)-4096],
		"damaged":   broken,
	} {
		t.Run(name, func(t *testing.T) {
			img, err := s.Add(t.Context(), strings.NewReader(string(data)), "", 0)
			if err != nil {
				t.Fatal(err)
			}
			tree, err := s.Mount(img)
			if err == nil {
				tree.Close()
				t.Fatal("mounted")
			}
			t.Log(err)
			if !errors.Is(err, ErrImage) {
				t.Errorf("got %v, want ErrImage", err)
			}
			if len(s.mounts) != 0 {
				t.Error("a failed mount is kept")
			}
		})
	}
	if _, err := s.Mount(imageOf([]byte("not here"))); !errors.Is(err, ErrMissing) {
		t.Errorf("got %v, want ErrMissing", err)
	}
}

func BenchmarkMount(b *testing.B) {
	s, err := Open(filepath.Join(b.TempDir(), "images"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	dir, err := os.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer dir.Close()
	img, err := s.Pack(b.Context(), dir, PackOptions{Owner: -1})
	if err != nil {
		b.Fatal(err)
	}
	path, err := s.Path(img)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			m, err := open(path)
			if err != nil {
				b.Fatal(err)
			}
			m.close()
		}
	})
	b.Run("another", func(b *testing.B) {
		for b.Loop() {
			tree, err := s.Mount(img)
			if err != nil {
				b.Fatal(err)
			}
			tree.Close()
		}
	})
}
