package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

// kernelArgs leaves out what would make an emulated guest slower still: clocks
// that are read by way of an emulated device, grace periods of RCU that nobody
// hurries (umount and the end of a namespace wait for them), and at each boot,
// a third of it, drivers of hardware that nothing here uses and a login
// manager where nobody logs in.
const kernelArgs = "console=ttyS0 root=/dev/vda rw mitigations=off tsc=reliable clocksource=tsc fsck.mode=skip loglevel=5" +
	" rcupdate.rcu_expedited=1" +
	" module_blacklist=kvm_amd,ata_piix,ata_generic,aesni_intel,ghash_clmulni_intel,sha512_ssse3,sha256_ssse3,sha1_ssse3,crct10dif_pclmul,crc32_pclmul,serio_raw,evdev,button" +
	" systemd.show_status=no systemd.mask=systemd-logind.service"

// boot runs the guest until it powers off, or ctx ends. What it says on its
// results port goes to results as it comes; the console to a file.
//
// The processor is emulated (TCG): it needs no /dev/kvm, runs anywhere and is
// some ten times slower. Its two CPUs take turns on one thread. With a thread
// each, bookworm's QEMU 7.2 can translate a page on one while the other writes
// to it, and keeps the stale translation: a kernel that patches itself, as
// static keys do, then traps at a breakpoint that has long been taken out, on
// both CPUs, for ever. (Toggle kernel.sched_schedstats beside a busy pipe to
// see it: within seconds with thread=multi, never with thread=single.)
//
// What is written to the image goes to a copy that vanishes with the guest, not
// at a reboot. A kernel that panics stands still until ctx ends: the console
// says why.
func boot(ctx context.Context, img image, work, console string, results io.Writer) error {
	swap := filepath.Join(filepath.Dir(work), "swap")
	if err := os.WriteFile(swap, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(swap, 3<<29); err != nil {
		return err
	}
	args := []string{
		"-accel", "tcg,thread=single", "-smp", "2", "-m", "2048",
		"-cpu", "max,la57=off", // page tables of four levels, not five
		"-nodefaults", "-nographic", "-nic", "none",
		"-kernel", img.kernel, "-initrd", img.initrd,
		"-append", kernelArgs,
		"-serial", "file:" + console,
		"-device", "virtio-serial", "-chardev", "file,id=results,path=/dev/stdout", "-device", "virtserialport,chardev=results,name=results",
	}
	for _, disk := range []struct{ serial, file, snapshot string }{{"root", img.disk, "on"}, {"work", work, "off"}, {"swap", swap, "off"}} { // vda, vdb, vdc
		args = append(args, "-drive", "id="+disk.serial+",file="+disk.file+",format=raw,if=none,cache=unsafe,snapshot="+disk.snapshot,
			"-device", "virtio-blk-pci,drive="+disk.serial+",serial="+disk.serial)
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	said, err := os.Create(filepath.Join(filepath.Dir(work), "qemu.log"))
	if err != nil {
		return err
	}
	defer said.Close()
	cmd.Stdout, cmd.Stderr = results, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig fires at the end of the thread that forked (prctl(2))
		err := cmd.Run()
		runtime.UnlockOSThread()
		ended <- err
	}()
	err = <-ended
	if text, _ := os.ReadFile(said.Name()); err != nil {
		return fmt.Errorf("the guest: %w: %s", errors.Join(context.Cause(ctx), err), text)
	}
	return nil
}
