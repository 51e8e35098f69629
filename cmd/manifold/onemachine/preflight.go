package onemachine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"manifold"
)

// preflight says in one go all that this machine lacks, so that a person does
// not find out piece by piece.
func preflight(cfg Config) error {
	if os.Geteuid() != 0 {
		return errors.New("manifold run must be root, because it makes namespaces, mounts, cgroups and network links: run it again with sudo")
	}
	var missing []string
	for _, check := range []func() error{
		func() error { return settingsValid(cfg.Settings) },
		func() error { return programsThere(cfg.Programs) },
		kernelVersion, userNamespaces, filesystems, cgroupControllers, firewall, scratchSpace(cfg.Settings),
	} {
		if err := check(); err != nil {
			missing = append(missing, err.Error())
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("this machine cannot run dynos yet:\n  - %s", strings.Join(missing, "\n  - "))
	}
	return nil
}

var instanceName = regexp.MustCompile(`^[a-z0-9]{1,8}$`)

func settingsValid(s manifold.Settings) error {
	if !instanceName.MatchString(s.Instance) {
		return fmt.Errorf("MANIFOLD_INSTANCE is %q; it must be 1 to 8 of a-z and 0-9", s.Instance)
	}
	for _, path := range []string{s.Home, s.Run} {
		if !filepath.IsAbs(path) || filepath.Clean(path) == "/" {
			return fmt.Errorf("MANIFOLD_HOME and MANIFOLD_RUN must be absolute paths of directories of their own (one is %q)", path)
		}
	}
	for _, a := range addresses(s) {
		if _, port, err := net.SplitHostPort(a.addr); err != nil || port == "" {
			return fmt.Errorf("%s is %q; it must look like localhost:5000", a.variable, a.addr)
		}
	}
	return nil
}

func programsThere(dir string) error {
	var missing []string
	for _, name := range []string{"manifold-agent", "manifold-coordinator"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode()&0o111 == 0 {
			missing = append(missing, filepath.Join(dir, name))
		}
	}
	for program, pkg := range map[string]string{"git": "git", "mmdebstrap": "mmdebstrap", "mkfs.erofs": "erofs-utils", "mkfs.ext4": "e2fsprogs"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, fmt.Sprintf("%s (apt-get install %s)", program, pkg))
		}
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("programs are missing: %s; `make run` builds and installs them all", strings.Join(missing, ", "))
}

func kernelVersion() error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	release := unix.ByteSliceToString(uts.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("the kernel calls itself %q, which is no version we can read", release)
	}
	if major < 6 || major == 6 && minor < 1 {
		return fmt.Errorf("the kernel is %s; Linux 6.1 (Debian 12's) or newer is needed", release)
	}
	return nil
}

func userNamespaces() error {
	text, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	if err != nil {
		return errors.New("the kernel has no user namespaces (CONFIG_USER_NS)")
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || n == 0 {
		return errors.New("user namespaces are switched off: sysctl -w user.max_user_namespaces=10000")
	}
	return nil
}

// filesystems loads a filesystem's module where it is not built in.
func filesystems() error {
	var missing []string
	for _, name := range []string{"erofs", "overlay", "ext4"} {
		if !filesystemKnown(name) {
			_ = exec.Command("modprobe", name).Run() // whether it helped is looked up below
			if !filesystemKnown(name) {
				missing = append(missing, name)
			}
		}
	}
	if missing != nil {
		return fmt.Errorf("the kernel lacks the filesystems %s: modprobe did not find them; a Debian kernel (linux-image-%s) has them", strings.Join(missing, ", "), runtime.GOARCH)
	}
	return nil
}

func filesystemKnown(name string) bool {
	text, err := os.ReadFile("/proc/filesystems")
	return err == nil && regexp.MustCompile(`(?m)^\S*\t`+name+`$`).Match(text)
}

// cgroupControllers looks for the controllers on version 2 (cgroup.controllers
// of the root) and on version 1 (mount options).
func cgroupControllers() error {
	have := map[string]bool{}
	if text, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		for _, c := range strings.Fields(string(text)) {
			have[c] = true
		}
	}
	err := eachMount(func(point, fstype, options string) {
		if fstype == "cgroup" {
			for _, c := range strings.Split(options, ",") {
				have[c] = true
			}
		}
	})
	if err != nil {
		return err
	}
	var missing []string
	for _, c := range []string{"memory", "pids", "cpu"} {
		if !have[c] {
			missing = append(missing, c)
		}
	}
	if missing != nil {
		return fmt.Errorf("the cgroup controllers %s are not there: mount cgroup v2 at /sys/fs/cgroup (systemd does), and look for cgroup_disable= on the kernel's command line", strings.Join(missing, ", "))
	}
	return nil
}

// eachMount walks our mount namespace (proc_pid_mountinfo(5)).
func eachMount(visit func(point, fstype, superOptions string)) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if ok && len(left) >= 5 && len(right) >= 3 {
			visit(left[4], right[0], right[2])
		}
	}
	return lines.Err()
}

func firewall() error {
	conn, err := nftables.New()
	if err == nil {
		_, err = conn.ListTables()
	}
	if err != nil {
		return fmt.Errorf("the kernel's nf_tables does not answer (%w): modprobe nf_tables, or a kernel with CONFIG_NF_TABLES", err)
	}
	return nil
}

// scratchSpace asks for enough room to build a stack image.
func scratchSpace(s manifold.Settings) func() error {
	const need = 4 << 30
	return func() error {
		dir := s.Home
		for ; ; dir = filepath.Dir(dir) {
			if _, err := os.Stat(dir); err == nil {
				break
			}
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			return err
		}
		if free := fs.Bavail * uint64(fs.Bsize); free < need {
			return fmt.Errorf("%s has %d MiB free; stack, builds and dynos need at least %d MiB: free some, or set MANIFOLD_HOME to a larger disk", dir, free>>20, need>>20)
		}
		return nil
	}
}

type address struct{ variable, addr string }

func addresses(s manifold.Settings) []address {
	return []address{
		{"MANIFOLD_API_ADDR", s.APIAddr}, {"MANIFOLD_TLS_ADDR", s.TLSAddr},
		{"MANIFOLD_ATTACH_ADDR", s.AttachAddr}, {"MANIFOLD_ROUTER_ADDR", s.RouterAddr}, {"MANIFOLD_FLEET_ADDR", s.FleetAddr},
	}
}

// portsFree finds out before anything starts that somebody else has our ports.
func portsFree(s manifold.Settings) error {
	var errs []error
	for _, a := range addresses(s) {
		l, err := net.Listen("tcp", a.addr)
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			errs = append(errs, fmt.Errorf("%w: another program has it (see: ss -ltnp); end that, or set %s to a free address", err, a.variable))
			continue
		case err != nil:
			errs = append(errs, fmt.Errorf("%s cannot be listened on: %w", a.variable, err))
			continue
		}
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// indent shifts what another tool prints under our own lines.
func indent(w io.Writer) io.Writer { return &indenter{w: w, fresh: true} }

type indenter struct {
	w     io.Writer
	fresh bool // at the start of a line
}

func (i *indenter) Write(p []byte) (int, error) {
	var out []byte
	for _, c := range p {
		if i.fresh && c != '\n' {
			out = append(out, "       "...)
		}
		out = append(out, c)
		i.fresh = c == '\n' || c == '\r'
	}
	if _, err := i.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}
