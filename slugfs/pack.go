package slugfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"manifold"
)

// PackOptions say how a directory becomes an image.
type PackOptions struct {
	// Owner is the user and group id every file gets; -1 keeps what is there.
	Owner int
	// Limit is the most bytes the image may have; 0 is no limit. It bounds
	// what is read, too: file sizes may add up to sparseFactor times as much.
	Limit int64
	// Trusted is for a tree that we made ourselves: device nodes (overlayfs
	// whiteouts) stay in it.
	Trusted bool
}

const (
	// uuid is the same in every image: equal trees give equal digests.
	uuid = "00000000-0000-0000-0000-000000000000"
	// latest is the time (2100-01-01) later modification times are cut to.
	// Earlier ones are kept as they are: Python's compiled files and HTTP's
	// Last-Modified depend on them.
	latest = "4102444800"
	// packMemory bounds the address space of mkfs.erofs, which keeps every
	// inode in memory.
	packMemory = 3 << 30
)

// Pack makes an image of the directory dir, which stays as it is, and keeps
// it. Symlinks are kept as they are written and never followed; sockets,
// FIFOs and device nodes are left out; extended attributes, and with them
// file capabilities, are dropped. Set-user-ID bits stay: every mount is
// nosuid, and a dyno cannot gain privileges by execve(2) at all.
//
// The tree may be hostile, but nothing may write to it meanwhile. It is read
// by mkfs.erofs(1) in a mount namespace where it is bound read-only; mounts
// below dir are not followed. An image larger than o.Limit is ErrTooLarge.
func (s *Store) Pack(ctx context.Context, dir *os.File, o PackOptions) (manifold.Image, error) {
	img, err := s.pack(ctx, dir, o)
	if err != nil {
		return manifold.Image{}, fmt.Errorf("pack image: %w", err)
	}
	return img, nil
}

func (s *Store) pack(ctx context.Context, dir *os.File, o PackOptions) (manifold.Image, error) {
	found, err := survey(ctx, dir, o)
	if err != nil {
		return manifold.Image{}, err
	}
	work, err := os.MkdirTemp(s.dir, "new-pack-")
	if err != nil {
		return manifold.Image{}, err
	}
	defer os.RemoveAll(work)
	source, out := filepath.Join(work, "tree"), filepath.Join(work, "image")
	if err := os.Mkdir(source, 0o700); err != nil {
		return manifold.Image{}, err
	}
	// lz4 over clusters of 64 KB makes images as small as lz4hc over 4 KB
	// does, in a seventh of the time: a push waits for this.
	args := []string{"-d1", "-zlz4", "-C65536", "-x-1", "-U" + uuid}
	if o.Owner >= 0 {
		id := strconv.Itoa(o.Owner)
		args = append(args, "--force-uid="+id, "--force-gid="+id)
	}
	for _, path := range found.special {
		args = append(args, "--exclude-path="+path)
	}
	tree, err := cloneReadOnly(dir)
	if err != nil {
		return manifold.Image{}, err
	}
	defer tree.Close()
	err = inPrivateMounts(func() error {
		if err := unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, source, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("show the tree to mkfs.erofs: %w", err)
		}
		return mkfs(ctx, append(args, out, source), o.Limit)
	})
	if errors.Is(err, ErrTooLarge) {
		return manifold.Image{}, fmt.Errorf("%w: the %s in it make an image of more than %s", err, size(found.bytes), size(o.Limit))
	}
	if err != nil {
		return manifold.Image{}, err
	}
	file, err := os.OpenFile(out, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return manifold.Image{}, err
	}
	defer file.Close()
	return s.keep(ctx, file)
}

// mkfs runs mkfs.erofs with its output file bounded by limit.
func mkfs(ctx context.Context, args []string, limit int64) error {
	said := &tail{}
	cmd := exec.CommandContext(ctx, "mkfs.erofs", args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "SOURCE_DATE_EPOCH=" + latest}
	cmd.Stderr = said // standard output is a show of progress
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start mkfs.erofs (Debian package erofs-utils): %w", err)
	}
	if err := bound(cmd.Process.Pid, limit); err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	err := cmd.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == unix.SIGXFSZ {
		return ErrTooLarge
	}
	if err != nil {
		return fmt.Errorf("mkfs.erofs: %w: %q", err, said.buf.String())
	}
	return nil
}

// bound sets the resource limits of a process that has just started, long
// before it has read a tree or written a block.
func bound(pid int, limit int64) error {
	set := func(resource int, n int64) error {
		return unix.Prlimit(pid, resource, &unix.Rlimit{Cur: uint64(n), Max: uint64(n)}, nil)
	}
	err := errors.Join(set(unix.RLIMIT_AS, packMemory), set(unix.RLIMIT_CORE, 0))
	if limit > 0 {
		err = errors.Join(err, set(unix.RLIMIT_FSIZE, limit))
	}
	if err != nil {
		return fmt.Errorf("bound mkfs.erofs: %w", err)
	}
	return nil
}

// inPrivateMounts calls f on a thread with a mount namespace of its own, which
// ends with f and the processes f started.
func inPrivateMounts(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			done <- fmt.Errorf("unshare mount namespace: %w", err)
			return
		}
		// Slaves: what the host unmounts meanwhile is not held here.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			done <- fmt.Errorf("make mounts slaves: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// cloneReadOnly makes a detached, read-only mount of the directory dir alone.
// The kernel takes dir from its descriptor; no path to it is looked up.
func cloneReadOnly(dir *os.File) (*os.File, error) {
	tree, err := cloneTree(dir)
	if err != nil {
		return nil, err
	}
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}
	if err := unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH, attr); err != nil {
		tree.Close()
		return nil, fmt.Errorf("make the tree read-only: %w", err)
	}
	return tree, nil
}

// tail keeps the last bytes of what a program said; the rest is not worth
// memory, since file names of the tree may be in it.
type tail struct{ buf bytes.Buffer }

const tailBytes = 1 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p[max(0, len(p)-tailBytes):])
	t.buf.Next(max(0, t.buf.Len()-tailBytes))
	return len(p), nil
}

// size shows a number of bytes to people.
func size(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KB", (n+1023)>>10)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
}
