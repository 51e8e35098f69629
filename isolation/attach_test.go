package isolation_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manifold/isolation"
)

// console reads all that a process writes, and waits for parts of it.
type console struct {
	t      *testing.T
	stream interface {
		io.ReadWriter
		Resize(rows, cols uint16) error
	}
	chunks chan string
	seen   strings.Builder
}

func watchConsole(t *testing.T, s *isolation.Stream) *console {
	t.Helper()
	if s == nil {
		t.Fatal("nothing is attached")
	}
	c := &console{t: t, stream: s, chunks: make(chan string, 1024)}
	go func() {
		defer close(c.chunks)
		for buf := make([]byte, 4096); ; {
			n, err := s.Read(buf)
			if n > 0 {
				c.chunks <- string(buf[:n])
			}
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
					c.chunks <- "read: " + err.Error()
				}
				return
			}
		}
	}()
	return c
}

func (c *console) enter(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.stream, text); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads on until want has come since the last expect.
func (c *console) expect(want string) {
	c.t.Helper()
	deadline := time.After(patience)
	for {
		if _, after, ok := strings.Cut(c.seen.String(), want); ok {
			c.seen.Reset()
			c.seen.WriteString(after)
			return
		}
		select {
		case chunk, open := <-c.chunks:
			if !open {
				c.t.Fatalf("the stream ended before %q; it said %q", want, c.seen.String())
			}
			c.seen.WriteString(chunk)
		case <-deadline:
			c.t.Fatalf("%q did not come; it said %q", want, c.seen.String())
		}
	}
}

// end reads to the end and returns what came since the last expect.
func (c *console) end() string {
	c.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case chunk, open := <-c.chunks:
			if !open {
				return c.seen.String()
			}
			c.seen.WriteString(chunk)
		case <-deadline:
			c.t.Fatalf("the stream does not end; it said %q", c.seen.String())
		}
	}
}

func (r *rig) attach(script string, a isolation.Attach) (*isolation.Box, *console) {
	r.t.Helper()
	spec := r.spec(script)
	spec.Attach = &a
	b := r.startSpec(spec)
	r.t.Cleanup(func() { b.Attached().Close() })
	return b, watchConsole(r.t.(*testing.T), b.Attached())
}

var window = isolation.Attach{Terminal: true, Rows: 33, Cols: 101}

func TestTerminal(t *testing.T) {
	r := newRig(t)
	b, c := r.attach("exec sh -i", window)
	c.expect("$ ")
	c.enter("tty; stty size; id; readlink /proc/self/fd/0; ls -l /dev/pts/0\n")
	c.expect("/dev/pts/0\r\n33 101\r\nuid=1000 gid=1000\r\n/dev/pts/0\r\n")
	c.expect("1000     1000")
	if err := b.Attached().Resize(50, 150); err != nil {
		t.Fatal(err)
	}
	c.enter("stty size; echo from-tty >/dev/tty\n")
	c.expect("50 150\r\nfrom-tty\r\n")
	c.enter("cat /proc/sys/kernel/ostype -\n")
	c.expect("Linux\r\n") // cat has the terminal: Ctrl-C is for it. (dash, told to exec something, can lose a SIGINT on the way.)
	c.enter("\x03")       // Ctrl-C ends what runs, not the shell
	c.expect("$ ")
	c.enter("echo status $?\n")
	c.expect("status 130\r\n")
	c.enter("grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; ls /proc/self/fd | head -c 20 | cat -v\n")
	c.expect("CapEff:\t0000000000000000\r\nCapBnd:\t0000000000000000\r\nNoNewPrivs:\t1\r\nSeccomp:\t2\r\n")
	c.enter("exit 7\n")
	c.end()
	if exit := r.wait(b); exit.Status != 7 || exit.Lines != 0 {
		t.Errorf("exit is %+v, want status 7 and nothing in the log", exit)
	}
}

// A user's Ctrl-D ends input by way of the line discipline.
func TestTerminalEndOfInput(t *testing.T) {
	r := newRig(t)
	b, c := r.attach("cat; echo over", isolation.Attach{Terminal: true})
	c.enter("line\n")
	c.expect("line\r\nline\r\n")
	c.enter("\x04")
	if got := c.end(); got != "over\r\n" {
		t.Errorf("after Ctrl-D: %q", got)
	}
	if exit := r.wait(b); exit.Status != 0 {
		t.Errorf("exit is %+v", exit)
	}
}

// Letting go of the terminal is a hangup, and so is the agent's death, which
// lets go of it in the same way.
func TestClosedTerminalHangsUp(t *testing.T) {
	r := newRig(t)
	b, c := r.attach("sh -c 'sleep 1000'; echo unreached", window)
	c.expect("") // it runs
	if err := b.Attached().Close(); err != nil {
		t.Fatal(err)
	}
	if exit := r.wait(b); exit.Status != 129 {
		t.Errorf("exit is %+v, want 129 (SIGHUP)", exit)
	}
	stubborn, c := r.attach("trap '' HUP; echo ready; sleep 0.5; touch /tmp/lived; exit 5", window)
	c.expect("ready")
	if err := stubborn.Attached().Close(); err != nil {
		t.Fatal(err)
	}
	if exit := r.wait(stubborn); exit.Status != 5 {
		t.Errorf("exit is %+v, want that of a program that ignores SIGHUP", exit)
	}
}

// An interactive shell ignores SIGTERM, and yet ends when it is asked to.
func TestStopEndsAnInteractiveShell(t *testing.T) {
	r := newRig(t)
	b, c := r.attach("exec sh -i", window)
	c.expect("$ ")
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	if exit := r.wait(b); exit.Forced {
		t.Errorf("exit is %+v: SIGKILL was needed", exit)
	}
}

func TestPipes(t *testing.T) {
	r := newRig(t)
	b, c := r.attach("tty; cat; echo err >&2; cat /dev/stdin; echo again >/dev/stdout; exit 3", isolation.Attach{})
	c.expect("not a tty\n")
	binary := make([]byte, 300_000)
	for i := range binary {
		binary[i] = byte(i * 7)
	}
	go func() {
		c.enter(string(binary))
		if err := b.Attached().CloseWrite(); err != nil {
			t.Error(err)
		}
	}()
	if got, want := c.end(), string(binary)+"err\nagain\n"; got != want {
		t.Errorf("%d bytes came back, want %d, or they differ; the end is %q", len(got), len(want), got[max(0, len(got)-40):])
	}
	if exit := r.wait(b); exit.Status != 3 || exit.Lines != 0 {
		t.Errorf("exit is %+v", exit)
	}
}

func TestHangup(t *testing.T) {
	r := newRig(t)
	b, c := r.attach("trap 'echo hung up' HUP; echo ready; while :; do sleep 0.1; done", isolation.Attach{})
	c.expect("ready\n")
	for range 2 {
		if err := b.Hangup(); err != nil {
			t.Fatal(err)
		}
		c.expect("hung up\n")
	}
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
}

// A reader that does not read holds its dyno back, and loses nothing.
func TestAttachedOutputWaitsForItsReader(t *testing.T) {
	r := newRig(t)
	spec := r.spec("seq 200000; touch /tmp/done")
	spec.Attach = &isolation.Attach{}
	b := r.startSpec(spec)
	defer b.Attached().Close()
	select {
	case <-b.Done():
		t.Error("a dyno wrote more than a pipe holds to nobody")
	case <-time.After(300 * time.Millisecond):
	}
	out, err := io.ReadAll(b.Attached())
	if err != nil || strings.Count(string(out), "\n") != 200_000 {
		t.Errorf("%d lines, %v", strings.Count(string(out), "\n"), err)
	}
	r.wait(b)
}

// What a process wrote before it ended is there also for a reader who was kept
// from looking until its time was over.
func TestLastWordsAreReadWhateverTheTime(t *testing.T) {
	r := newRig(t)
	for name, a := range map[string]isolation.Attach{"pipes": {}, "terminal": window} {
		spec := r.spec("seq 3")
		spec.Attach = &a
		b := r.startSpec(spec)
		defer b.Attached().Close()
		r.wait(b)
		if err := b.Attached().SetReadDeadline(time.Now()); err != nil {
			t.Fatal(err)
		}
		out, err := io.ReadAll(b.Attached())
		if got := strings.ReplaceAll(string(out), "\r\n", "\n"); got != "1\n2\n3\n" || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func (r *rig) exec(b *isolation.Box, script string, a isolation.Attach) (*isolation.Guest, *console) {
	r.t.Helper()
	g, err := b.Exec(r.t.Context(), isolation.Exec{
		Argv: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin", "GUEST=yes"}, Dir: "/tmp", Attach: a,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { g.Close() })
	return g, watchConsole(r.t.(*testing.T), g.Stream)
}

func (r *rig) ended(g *isolation.Guest) int {
	r.t.Helper()
	select {
	case <-g.Done():
		return g.Status()
	case <-time.After(patience):
		r.t.Fatal("the guest does not end")
		return 0
	}
}

// What runs beside the app is in its place and has no more rights than it.
func TestExec(t *testing.T) {
	const look = `grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups)' /proc/self/status; ulimit -u; ulimit -n; hostname; ls /proc/self/fd; cat /proc/net/dev | grep -c eth0`
	r := newRig(t)
	b := r.start(look + `; echo secret > /tmp/f; echo -- ; sleep 1000`)
	r.said(b, "--\n")
	app, _, _ := strings.Cut(r.output(b), "--\n")

	g, c := r.exec(b, look, isolation.Attach{})
	if got := c.end(); got != app {
		t.Errorf("a guest sees\n%s\nwhere the app sees\n%s", got, app)
	}
	if status := r.ended(g); status != 0 {
		t.Errorf("status %d", status)
	}
	// The app says "--" before it becomes sleep.
	g, c = r.exec(b, `cat f; echo $GUEST; pwd; until n=$(ps | grep -v grep | grep -c 'sleep 1000'); do sleep 0.1; done; echo $n; cat /proc/self/cgroup; exit 9`, isolation.Attach{})
	got := c.end()
	if !strings.HasPrefix(got, "secret\nyes\n/tmp\n1\n") {
		t.Errorf("got %q", got)
	}
	if status := r.ended(g); status != 9 {
		t.Errorf("status %d", status)
	}
	trees := 4 // memory, cpu, pids, devices
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		trees = 1 // cgroup v2
	}
	if strings.Count(got, "/app\n")+strings.Count(got, "/"+b.Group()+"\n") < trees {
		t.Errorf("the guest is not in the app's cgroups:\n%s", got)
	}
	for _, attempt := range []string{
		"mount -t tmpfs none /tmp", "unshare -r true", "kill -9 1; kill -0 1", "hostname evil", "ls /proc/1/root/", "cat /proc/1/environ | grep .",
		"ls /proc/1/fd/", "touch /bin/x",
	} {
		_, c := r.exec(b, "if "+attempt+" 2>/dev/null; then echo DONE; fi", isolation.Attach{})
		if strings.Contains(c.end(), "DONE") {
			t.Errorf("a guest could: %s", attempt)
		}
	}
	if got := r.output(b); strings.Contains(got, "secret") {
		t.Errorf("what a guest said is in the app's log:\n%s", got)
	}
}

func TestExecTerminal(t *testing.T) {
	r := newRig(t)
	b := r.start("sleep 1000")
	g, c := r.exec(b, "exec sh -i", window)
	c.expect("$ ")
	c.enter("tty; stty size\n")
	c.expect("/dev/pts/0\r\n33 101\r\n")
	other, d := r.exec(b, "tty", window)
	d.expect("/dev/pts/1")
	r.ended(other)
	c.enter("sleep 1000 &\n")
	c.expect("$ ")
	c.enter("exit 4\n")
	if status := r.ended(g); status != 4 { // although sleep still has the terminal
		t.Errorf("status %d", status)
	}

	lost, c := r.exec(b, "exec sh -i", window)
	c.expect("$ ")
	if err := lost.Close(); err != nil {
		t.Fatal(err)
	}
	piped, c := r.exec(b, "echo ready; sleep 1001", isolation.Attach{})
	c.expect("ready\n")
	if err := piped.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		_, c := r.exec(b, "ps", isolation.Attach{})
		if out := c.end(); !strings.Contains(out, "sh -i") && !strings.Contains(out, "1001") {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("guests that were let go of live on:\n%s", out)
		}
	}
	select {
	case <-b.Done():
		t.Error("the dyno ended with its guests")
	default:
	}
}

// A guest never keeps a dyno from ending, and is never more than the dyno may be.
func TestGuestEndsWithItsDyno(t *testing.T) {
	r := newRig(t)
	b := r.start("until [ -e /tmp/guest ]; do sleep 0.1; done; exit 3")
	g, _ := r.exec(b, "trap '' TERM HUP; touch guest; while :; do sleep 1; done", isolation.Attach{})
	if exit := r.wait(b); exit.Status != 3 {
		t.Errorf("exit is %+v", exit)
	}
	if status := r.ended(g); status != 137 {
		t.Errorf("the guest's status is %d, want 137", status)
	}
	if _, err := b.Exec(t.Context(), isolation.Exec{Argv: []string{"/bin/true"}}); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("exec in a dyno that ended: %v", err)
	}

	b = r.start("sleep 1000")
	_, c := r.exec(b, "tail /dev/zero; echo unreached", isolation.Attach{})
	if exit := r.wait(b); !exit.OOM {
		t.Errorf("exit is %+v, want OOM by a guest", exit)
	}
	c.end()
	b = r.start("sleep 1000")
	_, c = r.exec(b, "for i in $(seq 100); do sleep 1000 & done; wait", isolation.Attach{})
	c.expect("can't fork")
}

// An agent after the one that started the dyno can exec in it, too.
func TestExecAfterAdoption(t *testing.T) {
	r := newRig(t)
	r.start("sleep 1000")
	if err := r.host.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	boxes, err := r.host.Boxes()
	if err != nil || len(boxes) != 1 {
		t.Fatalf("%d boxes, %v", len(boxes), err)
	}
	_, c := r.exec(boxes[0], "echo hello", isolation.Attach{})
	if got := c.end(); got != "hello\n" {
		t.Errorf("got %q", got)
	}
	if boxes[0].Attached() != nil {
		t.Error("an adopted dyno has its streams")
	}
}

func TestExecThatCannotBe(t *testing.T) {
	r := newRig(t)
	b := r.start("sleep 1000")
	for name, tc := range map[string]struct {
		exec isolation.Exec
		want string
	}{
		"relative": {isolation.Exec{Argv: []string{"sh"}}, "absolute path"},
		"none":     {isolation.Exec{}, "absolute path"},
		"too long": {isolation.Exec{Argv: []string{"/bin/true"}, Env: []string{"A=" + strings.Repeat("x", 5<<20)}}, "fit"},
	} {
		if _, err := b.Exec(t.Context(), tc.exec); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Exec(ctx, isolation.Exec{Argv: []string{"/bin/true"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	g, err := b.Exec(t.Context(), isolation.Exec{Argv: []string{"/bin/missing"}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	text, _ := io.ReadAll(g)
	if !strings.Contains(string(text), "no such file") || r.ended(g) != 127 {
		t.Errorf("missing program: %q, status %d", text, g.Status())
	}
	// What is not PID 1's socket is not spoken to.
	door := filepath.Join(b.Dir(), "pid1", "exec.sock")
	if err := os.Remove(door); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Exec(t.Context(), isolation.Exec{Argv: []string{"/bin/true"}}); !errors.Is(err, isolation.ErrTooOld) {
		t.Errorf("no socket: %v", err)
	}
	other := r.start("sleep 1000")
	if err := os.Symlink(filepath.Join(other.Dir(), "pid1", "exec.sock"), door); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Exec(t.Context(), isolation.Exec{Argv: []string{"/bin/true"}}); err == nil {
		t.Error("a link to another dyno's socket was followed")
	}
	if err := os.Remove(door); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(other.Dir(), "pid1", "exec.sock"), door); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Exec(t.Context(), isolation.Exec{Argv: []string{"/bin/true"}}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("another dyno's socket: %v", err)
	}
}

// Guests come and go in numbers, and PID 1 keeps nothing of them.
func TestManyGuests(t *testing.T) {
	r := newRig(t)
	b := r.start("sleep 1000")
	for i := range 60 {
		g, c := r.exec(b, fmt.Sprintf("echo %d", i), isolation.Attach{Terminal: i%2 == 0})
		c.expect(fmt.Sprint(i))
		r.ended(g)
		g.Close()
	}
	procs, _ := filepath.Glob("/sys/fs/cgroup/*/" + r.cfg.Instance + "/" + b.Group() + "/init/cgroup.procs")
	if len(procs) == 0 { // cgroup v2
		procs = []string{"/sys/fs/cgroup/" + r.cfg.Instance + "/" + b.Group() + "/init/cgroup.procs"}
	}
	pid, err := os.ReadFile(procs[0])
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // it says that a guest ended before it lets go of it
		fds, err := os.ReadDir("/proc/" + strings.TrimSpace(string(pid)) + "/fd")
		if err == nil && len(fds) <= 25 {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("PID 1 has %d descriptors open, %v", len(fds), err)
		}
	}
}
