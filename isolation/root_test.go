package isolation_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"manifold"
	"manifold/slugfs"
)

// busybox is the image on which the dynos of these tests stand: a shell and
// what a dyno needs around it. It is packed once; TestMain removes dir.
var busybox struct {
	sync.Once
	dir   string
	image manifold.Image
	err   error
}

func busyboxImage() (dir string, image manifold.Image, err error) {
	b := &busybox
	b.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "isolation-test-"); b.err == nil {
			b.image, b.err = packBusybox(b.dir)
		}
	})
	return b.dir, b.image, b.err
}

func packBusybox(dir string) (none manifold.Image, err error) {
	root := filepath.Join(dir, "root")
	for path, mode := range map[string]os.FileMode{
		"bin": 0o755, "etc": 0o755, "proc": 0o755, "sys": 0o755, "dev": 0o755,
		"tmp": 0o777 | os.ModeSticky, "app": 0o777 | os.ModeSticky,
	} {
		if err := os.MkdirAll(filepath.Join(root, path), 0o755); err != nil {
			return none, err
		}
		if err := os.Chmod(filepath.Join(root, path), mode); err != nil {
			return none, err
		}
	}
	path, err := exec.LookPath("busybox")
	if err != nil {
		return none, fmt.Errorf("busybox is needed: install busybox-static: %w", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return none, err
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), data, 0o755); err != nil {
		return none, err
	}
	for _, applet := range []string{"sh", "cat", "echo", "id", "ls", "sleep", "hostname", "dd", "nc", "ip", "kill", "touch", "mknod", "mount", "seq", "ps", "grep", "true", "unshare", "nslookup", "wget", "tail", "mkdir", "rm", "ping", "setsid", "ulimit", "env", "head", "tty", "stty", "readlink"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			return none, err
		}
	}
	if err := putProbe("calls", filepath.Join(root, "bin/calls")); err != nil {
		return none, err
	}
	tree, err := os.Open(root)
	if err != nil {
		return none, err
	}
	defer tree.Close()
	store, err := slugfs.Open(dir)
	if err != nil {
		return none, err
	}
	defer store.Close()
	return store.Pack(context.Background(), tree, slugfs.PackOptions{Owner: -1, Limit: 64 << 20})
}

// putProbe puts a program of testdata in place: the one that lies prebuilt in
// $MANIFOLD_TEST_PROBES, for machines without Go, or one built now.
func putProbe(name, path string) error {
	if dir := os.Getenv("MANIFOLD_TEST_PROBES"); dir != "" {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		return os.WriteFile(path, data, 0o755)
	}
	build := exec.Command("go", "build", "-o", path, "./testdata/"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build testdata/%s: %w: %s", name, err, out)
	}
	return nil
}
