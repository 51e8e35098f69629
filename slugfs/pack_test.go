package slugfs

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"manifold"
)

// tryPack is pack where an error is what the test is about.
func tryPack(ctx context.Context, t *testing.T, s *Store, tree string, o PackOptions) (manifold.Image, error) {
	t.Helper()
	dir, err := os.Open(tree)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	return s.Pack(ctx, dir, o)
}

func TestEqualTreesGiveEqualImages(t *testing.T) {
	s := openStore(t)
	first, second := t.TempDir(), t.TempDir()
	at := time.Date(2024, 2, 29, 12, 0, 0, 123456789, time.UTC)
	var names []string
	for i := range 300 {
		names = append(names, "d"+strconv.Itoa(i%7)+"/f"+strconv.Itoa(i))
	}
	make := func(tree string, names []string) {
		for _, name := range names {
			writeFile(t, filepath.Join(tree, name), strings.Repeat(name, 500))
		}
		err := filepath.WalkDir(tree, func(path string, _ os.DirEntry, err error) error {
			return errors.Join(err, os.Chtimes(path, at, at))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	make(first, names)
	slices.Reverse(names) // another order on disk
	make(second, names)
	a, b := pack(t, s, first, PackOptions{Owner: 1000}), pack(t, s, second, PackOptions{Owner: 1000})
	if a != b {
		t.Errorf("%+v and %+v", a, b)
	}
	info, err := os.Stat(in(mount(t, s, a), "d1/f1"))
	if err != nil || !info.ModTime().Equal(at) {
		t.Errorf("modification time %v (%v), want %v", info.ModTime(), err, at)
	}
	writeFile(t, filepath.Join(second, "d1/f1"), "another")
	if c := pack(t, s, second, PackOptions{Owner: 1000}); c.Digest == a.Digest {
		t.Error("another tree has the same image")
	}
}

// What a dyno's owner can leave in a tree that we pack as root.
func TestHostileTree(t *testing.T) {
	s := openStore(t)
	tree, outside := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	writeFile(t, outside, "the host's secret")
	links := map[string]string{
		"absolute": outside, "relative": "../../../../../../etc/shadow", "loop-a": "loop-b", "loop-b": "loop-a",
		"self": "self", "to-dir": "/", "dangling": "nowhere", "newline": "a\nb", "long": strings.Repeat("x", 4000),
	}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join(tree, name)); err != nil {
			t.Fatal(err)
		}
	}
	names := []string{"new\nline", "bytes\xff\xfe\x80", "--all-root", "-T0", "sp ace", "quote'\"`$(id)", "\x1b[31m", strings.Repeat("n", maxName), "\\", "*"}
	for _, name := range names {
		writeFile(t, filepath.Join(tree, name), "content of "+name)
		writeFile(t, filepath.Join(tree, "dirs", name, name), name)
	}
	special := []string{"fifo", "new\nline-fifo", "dirs/--all-root/fifo"}
	for _, name := range special {
		if err := unix.Mkfifo(filepath.Join(tree, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]uint32{"socket": unix.S_IFSOCK, "char": unix.S_IFCHR, "block": unix.S_IFBLK} {
		if err := unix.Mknod(filepath.Join(tree, name), mode|0o666, int(unix.Mkdev(1, 3))); err != nil {
			t.Fatal(err)
		}
		special = append(special, name)
	}
	writeFile(t, filepath.Join(tree, "setuid"), "#!/bin/sh")
	if err := os.Chmod(filepath.Join(tree, "setuid"), 0o755|os.ModeSetuid|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	capability := []byte("\x01\x00\x00\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") // VFS_CAP_REVISION_2, all
	if err := unix.Setxattr(filepath.Join(tree, "setuid"), "security.capability", capability, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(filepath.Join(tree, "dirs"), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Fatal(err)
	}

	image := mount(t, s, pack(t, s, tree, PackOptions{Owner: manifold.DynoUID, Limit: 10 << 20}))
	for name, to := range links {
		if got, err := os.Readlink(in(image, name)); got != to || err != nil {
			t.Errorf("link %s: %.50q, %v", name, got, err)
		}
	}
	for _, name := range names {
		if got, err := os.ReadFile(in(image, name)); string(got) != "content of "+name || err != nil {
			t.Errorf("file %q: %q, %v", name, got, err)
		}
		if got, err := os.ReadFile(in(image, "dirs/"+name+"/"+name)); string(got) != name || err != nil {
			t.Errorf("file %q in a directory of the name: %q, %v", name, got, err)
		}
	}
	for _, name := range special {
		if _, err := os.Lstat(in(image, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("special file %q is in the image (%v)", name, err)
		}
		if _, err := os.Lstat(filepath.Join(tree, name)); err != nil {
			t.Errorf("packing changed the tree: %v", err)
		}
	}
	for _, name := range []string{".", "dirs", "absolute", "setuid"} {
		if st := stat(t, in(image, name)); st.Uid != manifold.DynoUID || st.Gid != manifold.DynoUID {
			t.Errorf("%s is owned by %d:%d", name, st.Uid, st.Gid)
		}
		if n, err := unix.Llistxattr(in(image, name), nil); n > 0 {
			t.Errorf("%s has extended attributes (%d, %v)", name, n, err)
		}
	}
}

// A set-user-ID file in an image gives nobody anything.
func TestSetuidIsHarmless(t *testing.T) {
	s := openStore(t)
	tree := t.TempDir()
	id, err := os.ReadFile("/usr/bin/id")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(tree, "id")
	writeFile(t, path, string(id))
	if err := os.Chmod(path, 0o755|os.ModeSetuid|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	image := mount(t, s, pack(t, s, tree, PackOptions{Owner: manifold.DynoUID}))
	out, err := exec.Command(in(image, "id"), "-un").Output()
	if err != nil || strings.TrimSpace(string(out)) != "root" {
		t.Errorf("run by root it is %q (%v): the bit counted", out, err)
	}
}

func TestPackKeepsOwnersWhenAsked(t *testing.T) {
	s := openStore(t)
	tree := t.TempDir()
	writeFile(t, filepath.Join(tree, "file"), "")
	if err := os.Chown(filepath.Join(tree, "file"), 12345, 54321); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(tree, "whiteout"), unix.S_IFCHR, 0); err != nil {
		t.Fatal(err)
	}
	image := mount(t, s, pack(t, s, tree, PackOptions{Owner: -1, Trusted: true}))
	if st := stat(t, in(image, "file")); st.Uid != 12345 || st.Gid != 54321 {
		t.Errorf("owned by %d:%d", st.Uid, st.Gid)
	}
	if st := stat(t, in(image, "whiteout")); st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("the whiteout has mode %o, device %d", st.Mode, st.Rdev)
	}
}

func TestPackLimit(t *testing.T) {
	const limit = 1 << 20
	noise := make([]byte, 3*limit) // does not compress
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for name, c := range map[string]struct {
		fill func(tree string) error
		want error
	}{
		"fits":      {func(tree string) error { return os.WriteFile(tree+"/f", noise[:limit/2], 0o644) }, nil},
		"too large": {func(tree string) error { return os.WriteFile(tree+"/f", noise, 0o644) }, ErrTooLarge},
		"a hole of 8 TB": {func(tree string) error {
			return errors.Join(os.WriteFile(tree+"/f", nil, 0o644), os.Truncate(tree+"/f", 8<<40))
		}, ErrTooLarge},
		"many small files": {func(tree string) error {
			var err error
			for i := range 500 {
				err = errors.Join(err, os.WriteFile(tree+"/"+strconv.Itoa(i), noise[i*5000:][:5000], 0o644))
			}
			return err
		}, ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			s, tree := openStore(t), t.TempDir()
			if err := c.fill(tree); err != nil {
				t.Fatal(err)
			}
			img, err := tryPack(t.Context(), t, s, tree, PackOptions{Owner: 1000, Limit: limit})
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err == nil && img.Bytes > limit {
				t.Errorf("%d bytes", img.Bytes)
			}
			if err != nil {
				t.Log(err)
				if left := files(t, s); len(left) != 0 {
					t.Errorf("left %q", left)
				}
			}
		})
	}
}

func TestPackRefusesWhatWouldHoldItUp(t *testing.T) {
	s := openStore(t)
	deep := t.TempDir()
	dir, err := unix.Open(deep, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 { // by descriptors: the path is longer than PATH_MAX
		if err := unix.Mkdirat(dir, "deep-directory", 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(dir, "deep-directory", unix.O_PATH|unix.O_DIRECTORY, 0)
		unix.Close(dir)
		if dir = next; err != nil {
			t.Fatal(err)
		}
	}
	unix.Close(dir)
	fifos := t.TempDir()
	for i := range maxSpecial + 1 {
		if err := unix.Mkfifo(filepath.Join(fifos, strconv.Itoa(i)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	long := t.TempDir()
	writeFile(t, filepath.Join(long, strings.Repeat("n", 255)), "")
	for name, tree := range map[string]string{"nested": deep, "full of fifos": fifos, "a long name": long} {
		if _, err := tryPack(t.Context(), t, s, tree, PackOptions{Owner: 1000}); err == nil || len(err.Error()) > 600 {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Log(err)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tryPack(cancelled, t, s, t.TempDir(), PackOptions{Owner: 1000}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left := files(t, s); len(left) != 0 {
		t.Errorf("left %q", left)
	}
}

// A mount below the tree (a dyno's /proc, a neighbour's disk) is not packed.
func TestPackStaysInItsFileSystem(t *testing.T) {
	s := openStore(t)
	image := packed(t, s, "elsewhere")
	tree := t.TempDir()
	writeFile(t, filepath.Join(tree, "file"), "here")
	below := filepath.Join(tree, "mnt")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	mounted := mount(t, s, image)
	if err := unix.MoveMount(int(mounted.Fd()), "", unix.AT_FDCWD, below, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(below, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	got := mount(t, s, pack(t, s, tree, PackOptions{Owner: 1000}))
	entries, err := os.ReadDir(in(got, "mnt"))
	if err != nil || len(entries) != 0 {
		t.Errorf("mnt holds %v (%v)", entries, err)
	}
	if _, err := os.Lstat(in(got, "file")); err != nil {
		t.Error(err)
	}
}
