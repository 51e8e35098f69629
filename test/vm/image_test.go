package vm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"manifold/slugfs/stack"
)

// suite is the Debian the guest is: kernel 6.1, systemd 252.
const suite = "bookworm"

// packages of the guest, beside the essential ones: its kernel and init, and
// what our programs and tests need.
var packages = []string{
	"systemd", "systemd-sysv", "dbus", "udev", "kmod", "linux-image-cloud-amd64", "initramfs-tools",
	"iproute2", "nftables", "procps", "util-linux", "mount", "erofs-utils", "e2fsprogs", "git", "busybox-static",
}

// makeRoot runs in the guest's root directory, before packages are configured:
// a small initrd, no documentation, and no unit that only costs time.
const makeRoot = `
mkdir -p etc/initramfs-tools/conf.d etc/initramfs-tools/hooks etc/systemd/system
echo MODULES=list >etc/initramfs-tools/conf.d/vm
cat >etc/initramfs-tools/hooks/vm <<'END'
#!/bin/sh
[ "$1" = prereqs ] && exit
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_pci virtio_blk
END
chmod 755 etc/initramfs-tools/hooks/vm
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
	getty@tty1.service serial-getty@ttyS0.service systemd-timesyncd.service systemd-update-utmp.service; do
	ln -s /dev/null "etc/systemd/system/$unit"
done
`

// finishRoot runs in the guest's root directory at the end. The guest's one
// task is the second disk's, at each boot: mount it, run what lies there.
const finishRoot = `
rm -rf var/cache/apt/* var/lib/apt/lists/* usr/share/doc usr/share/man usr/share/locale
echo guest >etc/hostname
echo "127.0.0.1 localhost guest" >etc/hosts
: >etc/resolv.conf
: >etc/machine-id
mkdir -p work etc/systemd/system/multi-user.target.wants
cat >etc/systemd/system/work.service <<'END'
[Unit]
Description=What the host wants run
After=multi-user.target
[Service]
Type=exec
ExecStartPre=/bin/mount /dev/disk/by-label/work /work
ExecStart=/bin/sh /work/run
TasksMax=infinity
END
ln -s ../work.service etc/systemd/system/multi-user.target.wants/work.service
`

// image is a guest that boots: a disk, which no run changes, and what qemu
// needs beside it.
type image struct{ disk, kernel, initrd string }

// imageLimit bounds the making of the image, with slow mirrors in mind.
const imageLimit = 15 * time.Minute

// guestImage returns the guest's image, made once for what it is made from. A
// newer Debian comes with the removal of the cached one. What takes long is
// said to progress.
func guestImage(ctx context.Context, cache string, progress io.Writer) (image, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, imageLimit, fmt.Errorf("making the guest's image took longer than %v", imageLimit))
	defer cancel()
	inputs := sha256.Sum256([]byte(suite + strings.Join(packages, " ") + makeRoot + finishRoot))
	dir := filepath.Join(cache, "vm-"+hex.EncodeToString(inputs[:8]))
	img := image{filepath.Join(dir, "disk"), filepath.Join(dir, "kernel"), filepath.Join(dir, "initrd")}
	if _, err := os.Stat(dir); err == nil {
		return img, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return img, err
	}
	lock, err := os.OpenFile(filepath.Join(cache, "vm.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return img, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return img, err
	}
	if _, err := os.Stat(dir); err == nil {
		return img, nil // another test made it meanwhile
	}
	left, _ := filepath.Glob(filepath.Join(cache, "new-vm-*")) // by one that was killed
	for _, dir := range left {
		os.RemoveAll(dir)
	}
	work, err := os.MkdirTemp(cache, "new-vm-")
	if err != nil {
		return img, err
	}
	defer os.RemoveAll(work)
	if err := makeImage(ctx, work, progress); err != nil {
		return img, fmt.Errorf("make the guest's image: %w", errors.Join(context.Cause(ctx), err))
	}
	return img, os.Rename(work, dir)
}

func makeImage(ctx context.Context, work string, progress io.Writer) error {
	sources, err := stack.Sources(suite)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(work, "sources.list"), []byte(sources), 0o644); err != nil {
		return err
	}
	script := fmt.Sprintf(`
echo "making the guest's image, once: Debian packages (a minute or two)" >&3
mmdebstrap --quiet --mode=root --format=directory --variant=minbase --include=%s \
	--dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--essential-hook='cd "$1" && sh -eu -c "$MAKE_ROOT"' --customize-hook='cd "$1" && sh -eu -c "$FINISH_ROOT"' \
	%s root sources.list
echo "the disk" >&3
mv root/boot/vmlinuz-* kernel
mv root/boot/initrd.img-* initrd
truncate -s 3G disk
mke2fs -q -t ext4 -E lazy_itable_init=1,nodiscard -d root disk
rm -rf root sources.list
`, strings.Join(packages, ","), suite)
	// Its own mounts and processes: what a kill leaves of them ends with it.
	said, say, err := os.Pipe()
	if err != nil {
		return err
	}
	var copying sync.WaitGroup
	copying.Go(func() { _, _ = io.Copy(progress, said) })
	defer func() { say.Close(); copying.Wait(); said.Close() }()
	return runWith(ctx, work, []*os.File{say}, []string{"MAKE_ROOT=" + makeRoot, "FINISH_ROOT=" + finishRoot},
		"unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-euc", script)
}

// run runs a program and says what it said if it failed.
func run(ctx context.Context, dir string, env []string, argv ...string) error {
	return runWith(ctx, dir, nil, env, argv...)
}

// runWith gives it files, too, from descriptor 3 on.
func runWith(ctx context.Context, dir string, files []*os.File, env []string, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = dir, append(os.Environ(), env...), files
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w:\n%s", argv[0], err, out[max(0, len(out)-4<<10):])
	}
	return nil
}
