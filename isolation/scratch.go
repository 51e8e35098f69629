package isolation

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"manifold"
	"manifold/slugfs/loop"
)

// The writable layer of a dyno is an ext4 image of its own, mounted by loop
// device: whatever filesystem the host has, a dyno that fills its layer with
// bytes or inodes gets ENOSPC and nobody else notices. Images are sparse
// copies of a template made once for each size; they have no journal, since
// the layer dies with the dyno. So the quota is ext4's own size, and nothing is
// asked of the host's filesystem but holes in files; what it must have are loop
// devices and ext4.

// template returns the path of an empty image for size, made if missing.
func (h *Host) template(size manifold.Size) (string, error) {
	path := filepath.Join(h.cfg.Dir, fmt.Sprintf("template-%d-%d.img", size.Disk, size.Inodes))
	h.templates.Lock()
	defer h.templates.Unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	temp := path + ".new"
	defer os.Remove(temp)
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	err = errors.Join(f.Truncate(size.Disk), f.Close())
	if err != nil {
		return "", fmt.Errorf("make scratch template: %w", err)
	}
	mkfs := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-b", "4096", "-I", "256",
		"-N", strconv.FormatInt(size.Inodes, 10), "-O", "^has_journal,^resize_inode", "-E", "lazy_itable_init=1,nodiscard,root_owner=0:0", temp)
	out, err := mkfs.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("make scratch template: %w: install e2fsprogs", err)
	}
	if err != nil {
		return "", fmt.Errorf("make scratch template: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return path, os.Rename(temp, path)
}

// newScratch makes the run's image and returns it mounted, detached, with
// upper and work directories that belong to the slot's root user.
func (h *Host) newScratch(dir string, size manifold.Size, owner int) (*os.File, error) {
	template, err := h.template(size)
	if err != nil {
		return nil, err
	}
	image := filepath.Join(dir, scratchName)
	if err := copySparse(template, image); err != nil {
		return nil, fmt.Errorf("make writable layer: %w", err)
	}
	h.reach("image")
	mount, err := mountScratch(image, false)
	if err != nil {
		return nil, err
	}
	h.reach("mount")
	for _, name := range []string{"upper", "work"} {
		if err := unix.Mkdirat(int(mount.Fd()), name, 0o755); err != nil {
			mount.Close()
			return nil, fmt.Errorf("prepare writable layer: %w", err)
		}
		// The mode is that of the dyno's /, whatever umask the agent has.
		if err := unix.Fchmodat(int(mount.Fd()), name, 0o755, 0); err != nil {
			mount.Close()
			return nil, fmt.Errorf("prepare writable layer: %w", err)
		}
		if err := unix.Fchownat(int(mount.Fd()), name, owner, owner, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			mount.Close()
			return nil, fmt.Errorf("prepare writable layer: %w", err)
		}
	}
	return mount, nil
}

// mountScratch mounts an ext4 image, attached nowhere: it lasts as long as
// the descriptor or a dyno that got it. The loop device goes with it.
func mountScratch(image string, readOnly bool) (*os.File, error) {
	device, err := loop.Attach(image, readOnly)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", filepath.Base(image), err)
	}
	defer device.Close()
	super, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open ext4: %w", err)
	}
	defer unix.Close(super)
	settings := []struct{ key, value string }{{"source", device.Name()}, {"errors", "continue"}}
	for _, s := range settings {
		if err := unix.FsconfigSetString(super, s.key, s.value); err != nil {
			return nil, fmt.Errorf("set %s of writable layer: %w", s.key, err)
		}
	}
	flags := []string{"noinit_itable"} // else ext4 would write 100 MB of zeros in the background
	if readOnly {
		flags = append(flags, "ro")
	}
	for _, f := range flags {
		if err := unix.FsconfigSetFlag(super, f); err != nil {
			return nil, fmt.Errorf("set %s of writable layer: %w", f, err)
		}
	}
	if err := unix.FsconfigCreate(super); err != nil {
		return nil, fmt.Errorf("mount writable layer: %w", err)
	}
	fd, err := unix.Fsmount(super, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOATIME)
	if err != nil {
		return nil, fmt.Errorf("mount writable layer: %w", err)
	}
	return os.NewFile(uintptr(fd), image), nil
}

// Scratch calls look with what the dyno wrote to its root filesystem, after
// Done: /tmp/x in the dyno is tmp/x below dir. It is read-only, everything in
// it is hostile, and it is there until look returns. It is mounted where only
// look's own thread sees it: what makes a mount of it (slugfs's Pack) must be
// called on look's goroutine.
func (b *Box) Scratch(look func(dir *os.File) error) error {
	return LookInto(b.Dir(), look)
}

// LookInto is Scratch for a directory that holds a run's writable layer: its
// own, or one that Keep filled.
func LookInto(runDir string, look func(dir *os.File) error) error {
	mount, err := mountScratch(filepath.Join(runDir, scratchName), true)
	if err != nil {
		return err
	}
	defer mount.Close()
	place := filepath.Join(runDir, "scratch")
	if err := os.Mkdir(place, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return inOwnMounts(func() error {
		if err := unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("attach writable layer: %w", err)
		}
		defer func() { _ = unix.Unmount(place, unix.MNT_DETACH) }() // else at the end of the thread, a little later
		fd, err := unix.Open(filepath.Join(place, "upper"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open writable layer: %w", err)
		}
		dir := os.NewFile(uintptr(fd), "upper")
		defer dir.Close()
		return look(dir)
	})
}

// inOwnMounts calls f on a thread with a mount namespace of its own. Kernels
// before 6.15 clone only mounts that are attached in the caller's namespace.
func inOwnMounts(f func() error) error {
	err := errors.New("the call did not come back")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		if err = unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			err = fmt.Errorf("unshare mount namespace: %w", err)
			return
		}
		// Slaves: what the host unmounts meanwhile is not held here.
		if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			err = fmt.Errorf("make mounts slaves: %w", err)
			return
		}
		err = f()
	}()
	<-done
	return err
}

// checkLoops says what a host without loop devices lacks, before any dyno is
// promised.
func checkLoops() error {
	info, err := os.Stat("/dev/loop-control")
	if err == nil && info.Mode()&os.ModeCharDevice == 0 {
		err = errors.New("/dev/loop-control is no device")
	}
	if err != nil {
		return fmt.Errorf("loop devices are needed for the dynos' writable layers: %w (modprobe loop)", err)
	}
	return nil
}

// copySparse copies the data of a sparse file and leaves its holes holes; on
// a filesystem with reflinks nothing is copied at all.
func copySparse(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		return nil
	}
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := dst.Truncate(info.Size()); err != nil {
		return err
	}
	for off := int64(0); ; {
		start, err := unix.Seek(int(src.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil // only a hole is left
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(src.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		for in, out := start, start; in < end; {
			n, err := unix.CopyFileRange(int(src.Fd()), &in, int(dst.Fd()), &out, int(end-in), 0)
			if err != nil {
				return err
			}
			if n == 0 {
				return io.ErrUnexpectedEOF
			}
		}
		off = end
	}
}
