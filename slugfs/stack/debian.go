package stack

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// dpkgOptions keep what nobody reads in a dyno out of every layer. The
// directories of manual pages stay: alternatives write links into them.
var dpkgOptions = []string{
	"path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright",
	"path-exclude=/usr/share/man/*/*", "path-exclude=/usr/share/info/*", "path-exclude=/usr/share/lintian/*",
	"path-exclude=/usr/share/locale/*/LC_MESSAGES/*",
	"force-unsafe-io",
}

// prepare writes what apt needs. Proxies, certificates and the like of apt on
// this machine hold for the build, too; clean.sh takes them out again.
func (b *builder) prepare() error {
	var list strings.Builder
	for _, a := range b.archives {
		fmt.Fprintln(&list, a)
	}
	dump, err := exec.CommandContext(b.ctx, "apt-config", "dump", "Acquire").Output()
	if err != nil {
		return fmt.Errorf("read apt's configuration: %w", err)
	}
	conf := "APT::Install-Recommends \"false\";\nAcquire::Languages \"none\";\nAcquire::Retries \"3\";\n"
	for line := range strings.Lines(string(dump)) {
		for _, prefix := range []string{"Acquire::http", "Acquire::Check-"} {
			if strings.HasPrefix(line, prefix) {
				conf += line
			}
		}
	}
	for _, dir := range []string{"build", "overlay", "root", "lists/partial"} {
		if err := os.MkdirAll(filepath.Join(b.work, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(b.work, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.work, "sources.list"), []byte(list.String()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.work, "apt.conf"), []byte(conf), 0o644)
}

// bootstrap makes run/.
func (b *builder) bootstrap() error {
	args := []string{"mmdebstrap", "--mode=root", "--format=directory", "--variant=" + b.recipe.Variant,
		"--include=" + strings.Join(b.recipe.Run, ","), "--aptopt=apt.conf",
		`--setup-hook=mkdir -p "$1/usr/share/man/man1" "$1/usr/share/man/man7" "$1/usr/share/man/man8"`,
	}
	for _, option := range dpkgOptions {
		args = append(args, "--dpkgopt="+option)
	}
	args = append(args, b.recipe.Suite, "run", "sources.list")
	if err := b.contained(`exec "$@"`, args...); err != nil {
		return err
	}
	return b.contained(`chroot run /bin/sh -eu -c "$1"; rm -rf run/dev/*`, runScript+cleanScript)
}

// layer makes build/: apt of this machine installs into run/ seen through an
// overlay, maintainer scripts run inside. Options that would leave extended
// attributes in the upper directory are off, since images have none.
func (b *builder) layer() error {
	const script = `
mount -t overlay overlay -o lowerdir=run,upperdir=build,workdir=overlay,redirect_dir=off,metacopy=off,index=off root
mount -t proc proc root/proc
mount -t tmpfs -o mode=755 tmpfs root/dev
for node in null zero full random urandom tty; do
	: >root/dev/$node
	mount --bind /dev/$node root/dev/$node
done
printf '#!/bin/sh\nexit 101\n' >root/usr/sbin/policy-rc.d # no service starts
chmod 755 root/usr/sbin/policy-rc.d
cat >>apt.conf <<END
Dir "$PWD/root/";
Dir::Etc::SourceList "$PWD/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$PWD/lists/";
DPkg::Chroot-Directory "$PWD/root";
DPkg::Options:: "--force-confold";
APT::Sandbox::User "root";
END
export APT_CONFIG="$PWD/apt.conf"
apt-get update
apt-get install --yes "$@"
`
	finish := "chroot root /bin/sh -eu <<'END'\n" + buildScript + cleanScript + "END\n"
	if err := b.contained(script+finish, b.recipe.Build...); err != nil {
		return err
	}
	return b.checkUpper()
}

// contained runs a shell script in the work directory with mount and process
// namespaces of its own: whatever it mounts or starts ends with it, also when
// this process is killed.
func (b *builder) contained(script string, args ...string) error {
	runtime.LockOSThread() // Pdeathsig is about the thread, see prctl(2)
	defer runtime.UnlockOSThread()
	said := &tail{}
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	argv := append([]string{"-eu", "-c", "umask 022\nmount --make-rslave /\nmount -t proc proc /proc\n" + script, "sh"}, args...)
	cmd := exec.CommandContext(ctx, "/bin/sh", argv...)
	cmd.Dir = b.work
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LC_ALL=C.UTF-8", "HOME=/root", "TMPDIR=/tmp", "DEBIAN_FRONTEND=noninteractive"}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		Pdeathsig:  unix.SIGKILL,
	}
	err := cmd.Run()
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	if err != nil {
		return fmt.Errorf("%w; the last it said:\n%s", err, said)
	}
	return nil
}

// checkUpper refuses a layer that needs extended attributes to be merged: one
// with a directory that hides the run layer's of the same name. The kernel
// marks new directories as well, where the mark means nothing.
func (b *builder) checkUpper() error {
	upper := filepath.Join(b.work, "build")
	return filepath.WalkDir(upper, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		var value [8]byte
		n, err := unix.Lgetxattr(path, "trusted.overlay.opaque", value[:])
		if err != nil || string(value[:n]) != "y" {
			return nil
		}
		name := strings.TrimPrefix(path, upper)
		below, err := os.Lstat(filepath.Join(b.work, "run", name))
		if err == nil && below.IsDir() {
			return fmt.Errorf("a package replaced the directory %s of the run layer: install it in the run layer", name)
		}
		return nil
	})
}

// tail keeps the last of what a long step said.
type tail struct{ bytes.Buffer }

const tailBytes = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.Buffer.Write(p[max(0, len(p)-tailBytes):])
	t.Next(max(0, t.Len()-tailBytes))
	return len(p), nil
}
