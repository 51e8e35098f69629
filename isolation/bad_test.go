package isolation_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"manifold/isolation"
)

// badHost tells a child of a host that lacks something, and what Open says there.
type badHost struct {
	Config   isolation.Config
	Unmount  string // a mount point that it lacks
	Hide     string // a device that it lacks
	NoTables bool   // its kernel has no nf_tables
}

// openBadHost is that child; it has a mount namespace of its own.
func openBadHost(text string) error {
	var bad badHost
	if err := json.Unmarshal([]byte(text), &bad); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if bad.Hide != "" {
		if err := unix.Mount("/etc/hostname", bad.Hide, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("hide %s: %w", bad.Hide, err)
		}
	}
	if bad.Unmount != "" {
		if err := unix.Unmount(bad.Unmount, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", bad.Unmount, err)
		}
	}
	if bad.NoTables {
		if err := forbidNetfilter(); err != nil {
			return fmt.Errorf("forbid netfilter: %w", err)
		}
	}
	bad.Config.Log = slog.New(slog.DiscardHandler)
	host, err := isolation.Open(bad.Config)
	if err == nil {
		err = errors.Join(host.Teardown(), host.Close())
		return fmt.Errorf("it opened, %w", err)
	}
	fmt.Println(err)
	return nil
}

// forbidNetfilter answers socket(AF_NETLINK, …, NETLINK_NETFILTER) as a kernel
// without nf_tables does. The offsets are of struct seccomp_data (seccomp(2)).
func forbidNetfilter() error {
	const nr, arg0, arg2 = 0, 16, 32
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	unless := func(value uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: skip}
	}
	answer := func(value uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value} }
	program := []unix.SockFilter{
		load(nr), unless(unix.SYS_SOCKET, 5),
		load(arg0), unless(unix.AF_NETLINK, 3),
		load(arg2), unless(unix.NETLINK_NETFILTER, 1),
		answer(unix.SECCOMP_RET_ERRNO | uint32(unix.EPROTONOSUPPORT)),
		answer(unix.SECCOMP_RET_ALLOW),
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		return errno
	}
	return nil
}

// TestHostsThatWillNotDo: what a host lacks is said, with what to do, before
// anything of ours is on it.
func TestHostsThatWillNotDo(t *testing.T) {
	r := newRig(t)
	if err := errors.Join(r.host.Teardown(), r.host.Close()); err != nil {
		t.Fatal(err)
	}
	defer r.open() // for the rig to take down
	before := r.marks()
	none := func(*badHost) {}
	for name, c := range map[string]struct {
		change func(*badHost)
		says   []string
	}{
		"pool beside a route":        {none, []string{"overlaps this host's route to 172.27.9.0/30", "MANIFOLD_POOL"}},
		"no nf_tables":               {func(b *badHost) { b.NoTables = true }, []string{"nf_tables"}},
		"a cap of less than nothing": {func(b *badHost) { b.Config.CPUCap = -1 }, []string{"CPU cap -1"}},
		"no loop devices":            {func(b *badHost) { b.Hide = "/dev/loop-control" }, []string{"loop devices are needed", "modprobe loop"}},
		"no cgroup of the name":      {func(b *badHost) { b.Config.CgroupParent = "no-such.slice" }, []string{"there is no cgroup", "MANIFOLD_CGROUP_PARENT"}},
		"no pids controller":         {r.withoutPids, []string{"pids", "needed"}},
	} {
		bad := badHost{Config: r.cfg}
		bad.Config.Log = nil
		c.change(&bad)
		if name == "pool beside a route" {
			bad.Config.Pool = netip.MustParsePrefix("172.27.8.0/22")
			addLink(t, "172.27.9.1/30")
		}
		text, err := json.Marshal(bad)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "ISOLATION_TEST_BAD_HOST="+string(text))
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		for _, want := range c.says {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: it says %s, want %q", name, out, want)
			}
		}
		r.leftBehind(name, before)
	}
}

// withoutPids takes the controller away: on cgroup v1 its mount; on v2 the
// parent is a cgroup whose own parent hands nothing on.
func (r *rig) withoutPids(b *badHost) {
	const v2 = "/sys/fs/cgroup"
	if _, err := os.Stat(v2 + "/cgroup.controllers"); err != nil {
		b.Unmount = v2 + "/pids"
		return
	}
	above := r.cfg.Instance + "-empty"
	b.Config.CgroupParent = above + "/none"
	if err := os.MkdirAll(filepath.Join(v2, b.Config.CgroupParent), 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := errors.Join(os.Remove(filepath.Join(v2, above, "none")), os.Remove(filepath.Join(v2, above))); err != nil {
			r.t.Error(err)
		}
	})
}

// addLink gives the host a link with an address and so a route.
func addLink(t *testing.T, addr string) {
	t.Helper()
	name := fmt.Sprintf("bad%d", os.Getpid()%100_000)
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-peer"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(link); err != nil {
			t.Error(err)
		}
	})
	a, err := netlink.ParseAddr(addr)
	if err == nil {
		err = errors.Join(netlink.AddrAdd(link, a), netlink.LinkSetUp(link))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestStartOnADiskThatIsFullOrReadOnly: a clear error, nothing left, and dynos
// that run go on; how one ends is known.
func TestStartOnADiskThatIsFullOrReadOnly(t *testing.T) {
	r := newRig(t)
	dir := filepath.Dir(r.cfg.Dir) + "/disk"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=6m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the rig's own
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	defer func(was string) {
		r.host.Close()
		r.cfg.Dir = was
		r.open()
	}(r.cfg.Dir)
	other := r.start("exec sleep 1000") // elsewhere: who has files open for writing forbids read-only
	r.with(func(cfg *isolation.Config) { cfg.Dir = filepath.Join(dir, "runs") })

	r.run("true") // the template is there
	// What the kernel still holds of that one would be free again later.
	r.same("before the disk fills", map[string]int{"loop devices": 0})
	ending := r.start("trap 'exit 7' TERM; echo ready; sleep 1000 & wait")
	r.said(ending, "ready")
	filler := filepath.Join(dir, "filler")
	full := exec.Command("dd", "if=/dev/zero", "of="+filler, "bs=4k")
	if err := full.Run(); err == nil {
		t.Fatal("the disk does not fill")
	}
	r.refused("a full disk", "no space left")
	if err := ending.Stop(); err != nil {
		t.Fatal(err)
	}
	if exit := r.wait(ending); exit.Status != 7 {
		t.Errorf("on a full disk a dyno's exit is %+v, want status 7", exit)
	}
	if err := errors.Join(os.Remove(filler), ending.Remove()); err != nil {
		t.Fatal(err)
	}
	err := error(unix.EBUSY) // the kernel may hold the writable layers of the dynos before for a moment
	for deadline := time.Now().Add(patience); err == unix.EBUSY && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		err = unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	r.refused("a read-only disk", "read-only file system")
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if out := r.run("echo again"); out != "again\n" {
		t.Errorf("afterwards a dyno says %q", out)
	}
	select {
	case <-other.Done():
		t.Error("the dyno that ran before has ended")
	default:
	}
}

// refused starts a dyno that cannot be, and looks for what it left.
func (r *rig) refused(what, says string) {
	r.t.Helper()
	before := r.marks()
	spec := r.spec("true")
	_, err := r.host.Start(r.t.Context(), spec)
	if err == nil || !strings.Contains(strings.ToLower(err.Error()), says) {
		r.t.Errorf("on %s a start says: %v", what, err)
	}
	r.leftBehind(what, before)
}
