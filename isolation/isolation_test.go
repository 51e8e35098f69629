package isolation_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"manifold"
	"manifold/isolation"
	"manifold/slugfs"
)

func TestExitStatusAndOutput(t *testing.T) {
	r := newRig(t)
	b := r.start("echo out; echo err >&2; echo again >/dev/stdout; exit 42")
	exit := r.wait(b)
	if exit.Status != 42 || exit.Lines != 3 || exit.Forced || exit.OOM || time.Since(exit.At) > time.Minute {
		t.Errorf("exit is %+v", exit)
	}
	if got := r.output(b); got != "out\nerr\nagain\n" {
		t.Errorf("output is %q", got)
	}
	for script, want := range map[string]int{"kill -SEGV $$": 139, "exec /bin/missing": 127, "exit 0": 0} {
		b := r.start(script)
		if exit := r.wait(b); exit.Status != want {
			t.Errorf("%s: status %d, want %d", script, exit.Status, want)
		}
	}
}

func TestWhatADynoSees(t *testing.T) {
	r := newRig(t)
	spec := r.spec(`id; hostname; echo pid $$; cat /proc/1/status | grep -E "^(Name|Cap|NoNewPrivs)"; echo --; grep -E "^(Cap|NoNewPrivs)" /proc/self/status
		ls /dev; ls -ld /app /bin; ulimit -u; ulimit -n; cat /sys/fs/cgroup/memory.max /proc/self/cgroup /etc/resolv.conf; env; ls /proc/self/fd; cat /proc/net/dev; echo first to die: $(cat /proc/self/oom_score_adj /proc/1/oom_score_adj)
		echo ids $(cat /proc/self/uid_map) and $(cat /proc/self/gid_map); echo descriptors $(ls /proc/self/fd); cat /proc/mounts
		for ns in user mnt pid net ipc uts cgroup; do echo namespace $ns $(readlink /proc/self/ns/$ns); done; echo ready; exec sleep 1000`)
	b := r.startSpec(spec)
	r.said(b, "ready")
	out := r.output(b)
	for _, want := range []string{
		"uid=1000 gid=1000", spec.Run, "Name:\tmanifold-pid1\n", "NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000",
		"\n64\n256\n67108864\n", ":/\n", "SECRET=hunter2", "eth0:", "0        0",
		"first to die: 500 500\n", "options timeout:2 attempts:5\n", "descriptors 0 1 2 3\n",
		fmt.Sprintf("ids 0 %[1]d 65536 and 0 %[1]d 65536\n", b.Inspect().FirstUID),
		"overlay / overlay rw,nosuid,nodev", " /proc/sys proc ro,", " /sys sysfs ro,nosuid,nodev,noexec", "size=65536k",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if strings.Contains(out, "/"+r.cfg.Instance) {
		t.Errorf("the host's cgroup names show:\n%s", out)
	}
	for _, ns := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		if host, err := os.Readlink("/proc/self/ns/" + ns); err != nil || strings.Contains(out, "namespace "+ns+" "+host) || !strings.Contains(out, "namespace "+ns+" "+ns+":[") {
			t.Errorf("namespace %s is not the dyno's own (the host's is %s, %v)\n%s", ns, host, err, out)
		}
	}
	r.devicesAreListed(b)
}

// TestSignalsTheAgentIgnores: a daemon that a script started in the background,
// or by nohup(1), ignores signals; its dynos and what is run in them do not.
func TestSignalsTheAgentIgnores(t *testing.T) {
	ignored := []os.Signal{unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGTSTP}
	signal.Ignore(ignored...)
	defer signal.Reset(ignored...)
	const look, want = "grep -E '^Sig(Blk|Ign)' /proc/self/status", "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
	r := newRig(t)
	b := r.start(look + "; exec sleep 1000")
	r.said(b, "SigIgn")
	if got := r.output(b); got != want {
		t.Errorf("a dyno has %q", got)
	}
	_, c := r.exec(b, "exec "+look, isolation.Attach{}) // without exec the shell adds SIGQUIT
	if got := c.end(); got != want {
		t.Errorf("a guest has %q", got)
	}
}

// devicesAreListed: what no dyno gets as far as, since it can make no node and
// sees no other, its cgroup forbids as well. A root of the host's tries it there.
func (r *rig) devicesAreListed(b *isolation.Box) {
	r.t.Helper()
	join := ""
	for _, dir := range b.Cgroups() {
		if app := filepath.Join(dir, "app"); exists(app) {
			dir = app
		}
		join += "echo $$ > " + dir + "/cgroup.procs; "
	}
	out, err := exec.Command("sh", "-e", "-c", join+"for d in kmsg null loop-control zero; do head -c 0 /dev/$d 2>/dev/null && echo $d; done; true").CombinedOutput()
	if err != nil || string(out) != "null\nzero\n" {
		r.t.Errorf("in a dyno's cgroups root opens %q, %v; want null and zero alone", out, err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestWhatADynoCannotDo(t *testing.T) {
	r := newRig(t)
	for _, attempt := range []string{
		"touch /bin/x", "mount -t tmpfs none /tmp", "unshare -r true", "mknod /tmp/sda b 8 0", "echo 1 >/proc/sys/kernel/panic",
		"hostname evil", "kill -9 1; kill -0 1", "echo b >/proc/sysrq-trigger", "ip link set eth0 down", "cat /proc/kcore | head -c 1 | grep .",
		"cat /dev/loop0", "ls /proc/1/root/", "cat /proc/1/environ | grep .", "echo x > /etc/passwd",
	} {
		if out := r.run("if " + attempt + " 2>/dev/null; then echo DONE; fi"); strings.Contains(out, "DONE") {
			t.Errorf("a dyno could: %s", attempt)
		}
	}
}

func TestSystemCalls(t *testing.T) {
	r := newRig(t)
	spec := r.spec("exec /bin/calls")
	b := r.startSpec(spec)
	r.wait(b)
	got := map[string]string{}
	for line := range strings.Lines(r.output(b)) {
		name, answer, _ := strings.Cut(strings.TrimSpace(line), " ")
		got[name] = answer
	}
	want := map[string]string{
		"clone3": "ENOSYS", "unknown": "ENOSYS", "socket-packet": "EAFNOSUPPORT", "socket-alg": "EAFNOSUPPORT",
		"socket-unix": "", "socket-inet6": "", "getpid": "", "x32": "signal: bad system call",
	}
	for _, refused := range strings.Fields(`unshare setns mount pivot_root chroot open_by_handle_at ptrace bpf perf_event_open userfaultfd
		io_uring_setup keyctl add_key kexec_load init_module clock_settime reboot clone-newuser socket-raw ioctl-tiocsti personality-32`) {
		want[refused] = "EPERM"
	}
	for name, answer := range want {
		if got[name] != answer {
			t.Errorf("%s: %q, want %q", name, got[name], answer)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d calls were tried, %d are known: %v", len(got), len(want), got)
	}
}

func TestStopIsGentleThenNot(t *testing.T) {
	r := newRig(t)
	gentle := r.start(`trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.1; done`)
	r.said(gentle, "ready")
	if err := gentle.Stop(); err != nil {
		t.Fatal(err)
	}
	if exit := r.wait(gentle); exit.Status != 7 || exit.Forced {
		t.Errorf("exit is %+v, want status 7", exit)
	}
	spec := r.spec(`trap '' TERM; setsid sh -c 'trap "" TERM; while :; do sleep 1; done' & echo ready; while :; do sleep 1; done`)
	spec.Grace = 2 * time.Second
	stubborn := r.startSpec(spec)
	r.said(stubborn, "ready")
	began := time.Now()
	if err := errors.Join(stubborn.Stop(), stubborn.Stop()); err != nil {
		t.Fatal(err)
	}
	if exit := r.wait(stubborn); exit.Status != 137 || !exit.Forced || time.Since(began) < 2*time.Second {
		t.Errorf("exit is %+v after %v, want 137 by force after the grace of 2s", exit, time.Since(began))
	}
}

// A dyno that ended within its grace needed no force, however late its PID 1
// gets to see that.
func TestLatePID1ForcedNobody(t *testing.T) {
	r := newRig(t)
	late := map[int]*isolation.Box{} // by pidfd of PID 1
	for range 3 {
		spec := r.spec(`trap 'echo asked; sleep 0.2; exit 7' TERM; echo ready; while :; do sleep 0.1; done`)
		spec.Grace = time.Second
		b := r.startSpec(spec)
		fd, err := unix.PidfdOpen(b.PID(), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		late[fd] = b
		r.said(b, "ready")
		if err := b.Stop(); err != nil {
			t.Fatal(err)
		}
		r.said(b, "asked")
		_ = unix.PidfdSendSignal(fd, unix.SIGSTOP, nil, 0) // unless it has ended already
	}
	time.Sleep(1200 * time.Millisecond) // the last one's grace is over
	for fd, b := range late {
		_ = unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0)
		if exit := r.wait(b); exit.Forced != (exit.Status == 137) {
			t.Errorf("exit is %+v", exit)
		}
	}
}

func TestTTLEndsADyno(t *testing.T) {
	r := newRig(t)
	spec := r.spec("sleep 1000")
	spec.TTL = 300 * time.Millisecond
	if exit := r.wait(r.startSpec(spec)); !exit.Expired || exit.Status != 143 {
		t.Errorf("exit is %+v", exit)
	}
}

func TestDynoOutlivesItsHostObjectAndIsAdopted(t *testing.T) {
	r := newRig(t)
	b := r.start("echo one; sleep 0.5; echo two; exit 3")
	lost := r.start("sleep 1000")
	ended := r.start("exit 9")
	r.wait(ended)
	if err := r.host.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	boxes, err := r.host.Boxes()
	if err != nil || len(boxes) != 3 {
		t.Fatalf("adopted %d boxes, %v", len(boxes), err)
	}
	for _, a := range boxes {
		switch a.Run() {
		case b.Run():
			if exit := r.wait(a); exit.Status != 3 || exit.Lines != 2 || a.Addr() != b.Addr() {
				t.Errorf("adopted dyno: %+v", exit)
			}
		case ended.Run():
			if exit := r.wait(a); exit.Status != 9 {
				t.Errorf("dyno that ended meanwhile: %+v", exit)
			}
		case lost.Run():
			if err := a.Kill(); err != nil {
				t.Fatal(err)
			}
			<-a.Done()
			if _, err := a.Exit(); !errors.Is(err, isolation.ErrNoRecord) {
				t.Errorf("killed dyno: %v, want ErrNoRecord", err)
			}
		}
	}
	if fresh := r.start("true"); fresh.Addr() == b.Addr() || fresh.Addr() == lost.Addr() {
		t.Error("a slot was given out twice")
	}
}

func TestDiskAndInodesAreBounded(t *testing.T) {
	r := newRig(t)
	out := r.run(`dd if=/dev/zero of=/tmp/big bs=1M count=100 2>&1 | grep -i space; rm /tmp/big; for i in $(seq 3000); do echo > /tmp/f$i || break; done 2>&1 | grep -i -m1 space; echo still here`)
	if strings.Count(out, "No space left") != 2 || !strings.Contains(out, "still here") {
		t.Errorf("got:\n%s", out)
	}
}

func TestScratchComesHome(t *testing.T) {
	r := newRig(t)
	b := r.start("mkdir /tmp/slug; echo hello > /tmp/slug/file")
	r.wait(b)
	err := b.Scratch(func(dir *os.File) error {
		root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
		if err != nil {
			return err
		}
		defer root.Close()
		if data, err := root.ReadFile("tmp/slug/file"); string(data) != "hello\n" {
			t.Errorf("got %q, %v", data, err)
		}
		slug, err := root.Open("tmp/slug")
		if err != nil {
			return err
		}
		defer slug.Close()
		_, err = r.images.Pack(t.Context(), slug, slugfs.PackOptions{Owner: manifold.DynoUID, Limit: 1 << 20})
		return err
	})
	if err != nil {
		t.Errorf("pack what the dyno made: %v", err)
	}
}

func TestStdin(t *testing.T) {
	r := newRig(t)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(out, "from the agent\n")
	out.Close()
	defer in.Close()
	spec := r.spec("cat")
	spec.Stdin = in
	b := r.startSpec(spec)
	r.wait(b)
	if got := r.output(b); got != "from the agent\n" {
		t.Errorf("got %q", got)
	}
}

func TestMemoryLimitEndsTheWholeDyno(t *testing.T) {
	r := newRig(t)
	for name, script := range map[string]string{
		"first process": "exec tail /dev/zero",
		"a child":       "tail /dev/zero & sleep 1000", // the kernel's kill leaves sleep alive
	} {
		b := r.start(script)
		exit := r.wait(b)
		if !exit.OOM || exit.Status != 137 {
			t.Errorf("%s: exit is %+v, want OOM and 137", name, exit)
			continue
		}
		if exit.Memory == nil || len(exit.Memory.Biggest) == 0 || exit.Memory.Biggest[0].Name != "tail" || exit.Memory.Stats["memory.stat"] == "" {
			t.Errorf("%s: where the memory went is not told: %+v", name, exit.Memory)
		}
	}
	if exit := r.wait(r.start("kill -9 $$")); exit.OOM {
		t.Error("a SIGKILL of the dyno's own counts as OOM")
	}
}

func TestListeningAndReach(t *testing.T) {
	r := newRig(t)
	b := r.start("nc -l -p 31337 -e echo hi")
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		up, err := b.Listening(31337)
		if err != nil {
			t.Fatal(err)
		}
		if up {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody listens")
		}
	}
	if up, _ := b.Listening(31338); up {
		t.Error("the wrong port listens")
	}
	conn, err := (&netDialer{}).dial(t.Context(), netip.AddrPortFrom(b.Addr(), 31337))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if data, err := io.ReadAll(conn); string(data) != "hi\n" {
		t.Errorf("got %q, %v", data, err)
	}
	for _, addr := range []string{"127.0.0.1", "::ffff:127.0.0.1"} {
		loopback := r.start("nc -l -p 31337 " + addr)
		for deadline := time.Now().Add(patience); !slices.Contains(loopback.Listeners(), "127.0.0.1:31337"); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("nobody listens on the dyno's loopback; it said:\n%s", r.output(loopback))
			}
		}
		if up, _ := loopback.Listening(31337); up {
			t.Errorf("a listener on %s, the dyno's loopback, counts as reachable", addr)
		}
	}
}

func TestDynosCannotReachEachOtherNorTheHost(t *testing.T) {
	r := newRig(t)
	server := r.start("echo ready; while :; do nc -l -p 80 -e echo reached; done")
	r.said(server, "ready")
	out := r.run(fmt.Sprintf("nc -w 1 %s 80; nc -w 1 %s 22; ip route", server.Addr(), strings.TrimSpace("172.29.0.1")))
	if strings.Contains(out, "reached") {
		t.Errorf("a dyno reached its neighbour:\n%s", out)
	}
	if !strings.Contains(out, "default via") {
		t.Errorf("no default route:\n%s", out)
	}
}

func TestStartThatFailsLeavesNothing(t *testing.T) {
	r := newRig(t)
	r.run("true") // the template and the instance's cgroups stay
	before := r.marks()
	for name, change := range map[string]func(*isolation.Spec){
		"no layers":        func(s *isolation.Spec) { s.Layers = nil },
		"layer of nothing": func(s *isolation.Spec) { f, _ := os.Open("/dev/null"); s.Layers = []*os.File{f} },
		"disk too small":   func(s *isolation.Spec) { s.Size.Disk = 1 },
		"no memory":        func(s *isolation.Spec) { s.Size.Memory = 0 },
		"memory below 0":   func(s *isolation.Spec) { s.Size.Memory = -1 },
		"swap below RAM":   func(s *isolation.Spec) { s.Size.MemorySwap = s.Size.Memory - 1 },
		"memory overflows": func(s *isolation.Spec) { s.Size.MemorySwap = 1 << 62 },
		"no shares":        func(s *isolation.Spec) { s.Size.Shares = 0 },
		"no processes":     func(s *isolation.Spec) { s.Size.Processes = 0 },
		"too many files":   func(s *isolation.Spec) { s.Size.Files = 1 << 30 },
		"inodes overflow":  func(s *isolation.Spec) { s.Size.Inodes = 1 << 32 },
		"run is a path":    func(s *isolation.Spec) { s.Run = "../x" },
		"run is a spare":   func(s *isolation.Spec) { s.Run = "spare-1" },
		"env too long":     func(s *isolation.Spec) { s.Env = []string{"A=" + strings.Repeat("x", 5<<20)} },
	} {
		spec := r.spec("true")
		change(&spec)
		if _, err := r.host.Start(t.Context(), spec); err == nil {
			t.Errorf("%s: started", name)
		} else if len(err.Error()) < 20 {
			t.Errorf("%s: %v says too little", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.host.Start(ctx, r.spec("true")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled start: %v", err)
	}
	r.leftBehind("starts that failed", before)
}

func TestManyStartsAndStopsLeaveNothing(t *testing.T) {
	r := newRig(t)
	had := map[netip.Addr]bool{}
	for i := range 30 {
		b := r.start("sleep 1000 & sleep 1000 & wait")
		if had[b.Addr()] {
			t.Errorf("dyno %d has %v, which another had a moment ago: a router may still know it by that", i, b.Addr())
		}
		had[b.Addr()] = true
		if i%3 == 0 {
			if err := b.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	boxes, err := r.host.Boxes()
	if err != nil || len(boxes) != 0 {
		t.Errorf("%d boxes left, %v", len(boxes), err)
	}
}

func BenchmarkStart(b *testing.B) {
	r := newRig(b)
	for b.Loop() {
		box := r.start("exec true")
		<-box.Done()
		b.StopTimer()
		if err := box.Remove(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
