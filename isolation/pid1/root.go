package main

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"manifold/isolation/boot"
)

// base is where the box is put together: a tmpfs of our own, over a directory
// that every host has.
const base = "/tmp"

// prepareRoot makes all of the dyno's root filesystem that is the same whatever
// it will run, and leaves the host's tree, of which a copy came with the mount
// namespace:
//
//	/          tmpfs, until completeRoot
//	  scratch  the writable layer
//	  proc     own, with parts masked or read-only
//	  sys      read-only, own network; /sys/fs/cgroup shows the limit
//	  dev      minimal; own /dev/pts, /dev/shm, /dev/mqueue
func prepareRoot(box boot.Box, scratch int) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", base, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700,size=1m"); err != nil {
		return fmt.Errorf("mount tmpfs to build in: %w", err)
	}
	if err := attach(scratch, base+"/scratch"); err != nil {
		return fmt.Errorf("writable layer: %w", err)
	}
	for _, step := range []func(boot.Box) error{mountProc, mountSys, mountDev} {
		if err := step(box); err != nil {
			return err
		}
	}
	return enter(base)
}

// completeRoot lays the layers and the writable layer over each other, puts
// what was prepared on top, and makes that the root.
func completeRoot(msg boot.Message, layers []int) error {
	if err := overlay(layers); err != nil {
		return err
	}
	if err := writeFiles(root, msg.Files); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if err := unix.Mount(dir, mkdir(root+dir), "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	return enter(root)
}

// root is where the layers are laid over each other.
const root = "/root"

// overlay attaches the layers and lays them and the writable layer over each
// other (Documentation/filesystems/overlayfs.rst). userxattr, since a user
// namespace may not write trusted.* attributes.
func overlay(layers []int) error {
	var lower []string
	for i, fd := range layers {
		dir := "/" + strconv.Itoa(i)
		if err := attach(fd, dir); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		lower = append(lower, dir)
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	options := "userxattr,lowerdir=" + strings.Join(lower, ":") + ",upperdir=/scratch/upper,workdir=/scratch/work"
	if err := unix.Mount("overlay", root, "overlay", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	return nil
}

// attach gives a detached mount a place.
func attach(fd int, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach mount: %w", err)
	}
	return unix.Close(fd)
}

// writeFiles puts the platform's small files in place. Nothing runs in the
// dyno yet, but the layers may hold a link where a file should be: the root
// is opened as a root that no link leaves.
func writeFiles(dir string, files []boot.File) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range files {
		name := strings.TrimPrefix(path.Clean(f.Path), "/")
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
		_ = root.Remove(name) // a link in the image must not be written through
		if err := root.WriteFile(name, []byte(f.Content), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
	}
	return nil
}

// Paths of /proc that say something of the host or of other dynos are
// covered; those that steer the kernel are read-only.
var (
	maskedFiles = []string{"kcore", "keys", "key-users", "kpagecount", "kpageflags", "kpagecgroup", "latency_stats", "sched_debug", "slabinfo", "timer_list", "timer_stats", "vmallocinfo", "swaps"}
	maskedDirs  = []string{"acpi", "asound", "scsi"}
	readOnly    = []string{"bus", "driver", "fs", "irq", "sys", "sysrq-trigger", "tty"}
)

func mountProc(boot.Box) error {
	const proc = base + "/proc"
	if err := mountOn("proc", proc, "proc", 0, ""); err != nil {
		return err
	}
	// No user namespace inside a dyno: it would give an app capabilities over
	// namespaces of its own, and with them most of the kernel's attack surface.
	if err := os.WriteFile(proc+"/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		return fmt.Errorf("forbid user namespaces: %w", err)
	}
	// No IPv6 beyond the dyno: its neighbour table is the whole host's, and an
	// app could fill it with addresses of the link that nobody has.
	if err := os.WriteFile(proc+"/sys/net/ipv6/conf/eth0/disable_ipv6", []byte("1"), 0); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("switch off IPv6: %w", err)
	}
	for _, name := range maskedFiles {
		if err := bind("/dev/null", proc+"/"+name, unix.MS_RDONLY); err != nil {
			return err
		}
	}
	for _, name := range maskedDirs {
		if _, err := os.Lstat(proc + "/" + name); err != nil {
			continue // this kernel does not have it
		}
		if err := mountOn("tmpfs", proc+"/"+name, "tmpfs", unix.MS_RDONLY, "size=0,nr_inodes=1"); err != nil {
			return err
		}
	}
	for _, name := range readOnly {
		if err := bind(proc+"/"+name, proc+"/"+name, unix.MS_RDONLY); err != nil {
			return err
		}
	}
	return nil
}

// maskedSys are parts of /sys that tell of the host or of other dynos: a loop
// device's directory names the file behind it, and with that the run.
var maskedSys = []string{"firmware", "devices/virtual/block", "fs/ext4", "fs/erofs", "kernel/debug", "kernel/slab", "kernel/tracing"}

// mountSys shows sysfs read-only. In the place of the cgroup tree, which says
// much of the host, stand the two files in which programs look for their
// memory limit.
func mountSys(box boot.Box) error {
	const sys = base + "/sys"
	if err := mountOn("sysfs", sys, "sysfs", unix.MS_RDONLY, ""); err != nil {
		return err
	}
	for _, name := range maskedSys {
		if _, err := os.Lstat(sys + "/" + name); err != nil {
			continue // this kernel does not have it
		}
		if err := mountOn("tmpfs", sys+"/"+name, "tmpfs", unix.MS_RDONLY, "size=0,nr_inodes=1"); err != nil {
			return err
		}
	}
	cg := sys + "/fs/cgroup"
	if err := mountOn("tmpfs", cg, "tmpfs", 0, "mode=755,size=64k"); err != nil {
		return err
	}
	limit := []byte(strconv.FormatInt(box.Memory, 10) + "\n")
	if err := os.Mkdir(cg+"/memory", 0o755); err != nil {
		return err
	}
	for _, name := range []string{"/memory.max", "/memory/memory.limit_in_bytes"} {
		if err := os.WriteFile(cg+name, limit, 0o444); err != nil {
			return fmt.Errorf("show memory limit: %w", err)
		}
	}
	return remount(cg, unix.MS_RDONLY)
}

func mountDev(boot.Box) error {
	const dev = base + "/dev"
	if err := unix.Mount("tmpfs", mkdir(dev), "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=755,size=64k"); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	// A user namespace cannot make device nodes: the host's are shown, and
	// the cgroup's device list allows no others.
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := os.WriteFile(dev+"/"+name, nil, 0o666); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+name, dev+"/"+name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("show /dev/%s: %w", name, err)
		}
	}
	if err := unix.Mount("devpts", mkdir(dev+"/pts"), "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,max=256"); err != nil {
		return fmt.Errorf("mount /dev/pts: %w", err)
	}
	if err := mountOn("tmpfs", dev+"/shm", "tmpfs", 0, "mode=1777,size=64m"); err != nil {
		return err
	}
	if err := mountOn("mqueue", dev+"/mqueue", "mqueue", 0, ""); err != nil {
		return err
	}
	for name, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd",
		"stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, dev+"/"+name); err != nil {
			return err
		}
	}
	return nil
}

// enter makes root the root of this mount namespace and drops what was there
// (pivot_root(2), "pivot_root(".", ".")").
func enter(root string) error {
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the host's tree: %w", err)
	}
	return unix.Chdir("/")
}

// mountOn mounts a filesystem of the kernel's on dir, which is made if the
// image lacks it.
func mountOn(source, dir, fstype string, flags uintptr, data string) error {
	flags |= unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount(source, mkdir(dir), fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s: %w", strings.TrimPrefix(dir, base), err)
	}
	return nil
}

// mkdir makes dir if it can; the mount that follows says what is wrong.
func mkdir(dir string) string {
	_ = os.MkdirAll(dir, 0o755)
	return dir
}

// bind shows source at target with more flags. A target that this kernel does
// not have is no fault.
func bind(source, target string, flags uintptr) error {
	if _, err := os.Lstat(target); err != nil {
		return nil
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("cover %s: %w", strings.TrimPrefix(target, base), err)
	}
	return remount(target, flags)
}

// remount adds flags to a mount of ours, keeping those it must keep.
func remount(target string, flags uintptr) error {
	var st unix.Statfs_t
	if err := unix.Statfs(target, &st); err != nil {
		return fmt.Errorf("remount %s: %w", target, err)
	}
	keep := uintptr(st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RDONLY)
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|keep|flags, ""); err != nil {
		return fmt.Errorf("remount %s: %w", strings.TrimPrefix(target, base), err)
	}
	return nil
}
