package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manifold/test/platform"
)

// hands is an SRE on a host that runs the sample app.
type hands struct {
	*testing.T
	p   *platform.Instance
	env []string // of a host that is not p's own
}

// host is "manifold host …".
func (h hands) host(args ...string) *exec.Cmd {
	h.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	h.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, filepath.Join(platform.Programs, "manifold"), append([]string{"host"}, args...)...)
	if cmd.Env = h.env; cmd.Env == nil {
		cmd.Env = h.p.Environ()
	}
	return cmd
}

// does runs a command that must end with 0, and returns what it printed.
func (h hands) does(args ...string) string {
	h.Helper()
	var out, problems bytes.Buffer
	cmd := h.host(args...)
	cmd.Stdout, cmd.Stderr = &out, &problems
	if status := exitStatus(h.T, cmd.Run()); status != 0 {
		h.Fatalf("manifold host %s ended with %d: %s%s", strings.Join(args, " "), status, out.String(), problems.String())
	}
	return out.String()
}

type hostDyno struct {
	AppName string `json:"app_name"`
	Name    string `json:"name"`
	Run     string `json:"run"`
	State   string `json:"state"`
	Addr    string `json:"addr"`
}

// dynos are those of a name: two for as long as one takes the other's place.
func (h hands) dynos(name string) (found []hostDyno) {
	h.Helper()
	var list []hostDyno
	if err := json.Unmarshal([]byte(h.does("ps", "--json")), &list); err != nil {
		h.Fatal(err)
	}
	for _, d := range list {
		if d.AppName+":"+d.Name == name {
			found = append(found, d)
		}
	}
	return found
}

// dyno is the one of that name, once it is alone.
func (h hands) dyno(name string) hostDyno {
	h.Helper()
	var list []hostDyno
	platform.Eventually(h.T, time.Minute, func() error {
		if list = h.dynos(name); len(list) != 1 {
			return fmt.Errorf("dynos of the name %s: %+v", name, list)
		}
		return nil
	})
	return list[0]
}

// TestExecByHand: a shell in a running dyno through a real terminal, and any
// bytes through pipes.
func TestExecByHand(t *testing.T) {
	h := hands{T: t, p: running(t)}
	h.p.Answers(t, "hello", "/", "Hello")
	t.Run("terminal", func(t *testing.T) {
		h := hands{T: t, p: h.p}
		before := h.does("exec", "hello:web.1", "cat /proc/1/sched | head -1; echo $DYNO $PORT; id -u")
		if !strings.Contains(before, "web.1 ") || !strings.HasSuffix(before, "\n1000\n") {
			t.Errorf("the command said %q", before)
		}
		c := inTerminal(t, h.host("exec", "hello:web.1"))
		c.expect(`\$ `)
		c.enter("stty size; echo $TERM\r")
		c.expect(`33 101\r\n`)
		c.expect(`xterm-256color\r\n`)
		c.resize(20, 70)
		c.enter("until [ \"$(stty size)\" = '20 70' ]; do sleep 0.05; done; echo re''sized\r")
		c.expect(`resized\r\n`)
		c.enter("sleep 1000; echo st''ill here $?\r")
		c.expect(`sleep 1000; echo[^\n]*\n`)
		h.awaitProcess("sleep")
		c.enter("\x03")
		c.expect(`\$ `)
		c.enter("echo in''terrupted; exit 7\r")
		c.expect(`interrupted\r\n`)
		if status := c.exit(); status != 7 {
			t.Errorf("exit status %d, want 7", status)
		}
	})
	t.Run("pipes", func(t *testing.T) {
		h := hands{T: t, p: h.p}
		random := rand.NewChaCha8([32]byte{4})
		sent := make([]byte, 3<<20)
		_, _ = random.Read(sent)
		cmd := h.host("exec", "hello:web.1", "cat")
		var got bytes.Buffer
		cmd.Stdin, cmd.Stdout = bytes.NewReader(sent), &got
		if status := exitStatus(t, cmd.Run()); status != 0 || !bytes.Equal(got.Bytes(), sent) {
			t.Errorf("status %d, %d bytes came back of %d", status, got.Len(), len(sent))
		}
		for command, want := range map[string]int{"exit 42": 42, "kill -9 $$": 137, "no-such-command": 127} {
			if status := exitStatus(t, h.host("exec", "hello:web.1", command).Run()); status != want {
				t.Errorf("%s ended with %d, want %d", command, status, want)
			}
		}
		if out := h.does("exec", "hello:web.1", "printf", "%s|", "a b", "it's", "$HOME"); out != "a b|it's|$HOME|" {
			t.Errorf("arguments came as %q", out)
		}
	})
	t.Run("lost", func(t *testing.T) {
		h := hands{T: t, p: h.p}
		cmd := h.host("exec", "hello:web.1", "echo begun; sleep 1000")
		out, err := cmd.StdoutPipe()
		if err := errors.Join(err, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		h.p.Answers(t, "hello", "/", "Hello") // the dyno goes on
	})
	if status := exitStatus(t, h.host("exec", "hello:nobody.1", "true").Run()); status != 1 {
		t.Errorf("no such dyno: status %d", status)
	}
}

// awaitProcess waits until a program runs in the sample app's web.1, where
// others may end between the shell's look and cat's.
func (h hands) awaitProcess(name string) {
	h.Helper()
	platform.Eventually(h.T, time.Minute, func() error {
		if out := h.does("exec", "hello:web.1", "cat /proc/[0-9]*/comm || true"); !strings.Contains("\n"+out, "\n"+name+"\n") {
			return fmt.Errorf("%s does not run: %q", name, out)
		}
		return nil
	})
}

// TestHandsOnARunningDyno: freeze, restart, keep and autopsy, drain of a single
// host; then the host is healthy, and a bundle of it holds no secret.
func TestHandsOnARunningDyno(t *testing.T) {
	h := hands{T: t, p: running(t)}
	p := h.p
	p.Answers(t, "hello", "/", "Hello")

	before := h.dyno("hello:web.1")
	if said := h.does("freeze", "hello:web.1", "--limit", "10m"); !strings.Contains(said, "routers") {
		t.Errorf("freeze said %q", said)
	}
	platform.Eventually(t, time.Minute, func() error {
		status, _, err := p.Visit("hello", "/")
		if err != nil || status != 503 {
			return fmt.Errorf("with its only web dyno frozen the app answers %d, %v", status, err)
		}
		return nil
	})
	h.does("thaw", "hello:web.1")
	p.Answers(t, "hello", "/", "Hello")
	if after := h.dyno("hello:web.1"); after.Run != before.Run || after.Addr != before.Addr {
		t.Errorf("before the freeze %+v, after the thaw %+v", before, after)
	}

	h.does("exec", "hello:web.1", "echo evidence > /tmp/clue")
	h.does("keep", "hello:web.1")
	h.does("restart", "hello:web.1")
	failed, asked := 0, 0
	platform.Eventually(t, 60*time.Second, func() error {
		status, _, err := p.Visit("hello", "/")
		if asked++; err != nil || status != 200 {
			failed++
		}
		if d := h.dynos("hello:web.1"); len(d) != 1 || d[0].Run == before.Run || d[0].State != "up" {
			return fmt.Errorf("there are %+v", d)
		}
		return nil
	})
	if failed > 0 {
		t.Errorf("%d of %d requests failed during a restart", failed, asked)
	}
	platform.Eventually(t, 60*time.Second, func() error {
		if list := h.does("autopsy"); !strings.Contains(list, before.Run) {
			return fmt.Errorf("kept are %s", list)
		}
		return nil
	})
	if clue := h.does("autopsy", "open", before.Run, "cat", "tmp/clue"); clue != "evidence\n" {
		t.Errorf("the dead dyno's filesystem says %q", clue)
	}
	h.does("autopsy", "remove", before.Run)
	if list := h.does("autopsy"); strings.Contains(list, before.Run) {
		t.Errorf("after its removal: %s", list)
	}

	now := h.dyno("hello:web.1")
	h.does("drain")
	if status := exitStatus(t, h.host("drain", "--wait", "2s").Run()); status != 1 {
		t.Errorf("a single host that cannot be drained ended with %d", status)
	}
	platform.Eventually(t, time.Minute, func() error { return p.LogContains(t, "hello", "Staying on a host that is being drained") })
	h.does("undrain")
	p.Answers(t, "hello", "/", "Hello")
	if after := h.dyno("hello:web.1"); after.Run != now.Run {
		t.Errorf("on a single host the drain took %s away: %+v", now.Run, after)
	}

	var diagnosis struct {
		Findings []struct{ Check, Level, What string }
	}
	platform.Eventually(t, time.Minute, func() error { // what other tests' dynos leave is on its way for longer than a doctor waits, on a loaded host
		out, _ := h.host("doctor", "--json").Output()
		diagnosis.Findings = nil
		if err := json.Unmarshal(out, &diagnosis); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		for _, f := range diagnosis.Findings {
			if f.Level == "fault" {
				return fmt.Errorf("on a healthy host the doctor finds %+v", f)
			}
		}
		return nil
	})

	to := filepath.Join(t.TempDir(), "bundle.tar.gz")
	h.does("bundle", "-o", to)
	text, err := exec.Command("tar", "xzOf", to).Output()
	if err != nil {
		t.Fatal(err)
	}
	if len(text) < 10_000 || !bytes.Contains(text, []byte("hello")) {
		t.Errorf("the bundle has %d bytes", len(text))
	}
	for _, secret := range []string{p.Token, "BEGIN PRIVATE KEY"} {
		if bytes.Contains(text, []byte(secret)) {
			t.Error("the bundle holds a secret")
		}
	}
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestDrainMovesDynos: on two hosts a drained one is empty in a while, no
// request fails meanwhile, and what it had runs on the other.
func TestDrainMovesDynos(t *testing.T) {
	t.Parallel() // a platform of its own
	p := own(t)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	first := hands{T: t, p: p}
	second := first.secondHost()
	p.Answers(t, "hello", "/", "Hello")
	ctx, stop := context.WithCancel(t.Context())
	load := make(chan [2]int, 1)
	go func() {
		asked, failed := 0, 0
		for ctx.Err() == nil {
			status, _, err := p.Visit("hello", "/")
			if asked++; err != nil || status != 200 {
				failed++
			}
			time.Sleep(5 * time.Millisecond)
		}
		load <- [2]int{asked, failed}
	}()
	first.does("drain", "--wait", "90s")
	if d := second.dyno("hello:web.1"); d.State != "up" {
		t.Errorf("on the second host web.1 is %+v", d)
	}
	first.does("undrain")
	second.does("drain", "--wait", "90s") // and back: the second host's end
	stop()
	if n := <-load; n[1] > 0 || n[0] < 10 {
		t.Errorf("%d of %d requests failed", n[1], n[0])
	} else {
		t.Logf("%d requests, none failed", n[0])
	}
	p.Answers(t, "hello", "/", "Hello")
}

// secondHost starts an agent with a home, links and user ids of its own, which
// joins the platform as another machine would.
func (h hands) secondHost() hands {
	h.Helper()
	dir := h.TempDir()
	home, run := filepath.Join(dir, "home"), filepath.Join(dir, "run")
	err := os.Mkdir(home, 0o755)
	if err == nil {
		err = os.Symlink(filepath.Join(h.p.Home, "stacks"), filepath.Join(home, "stacks"))
	}
	if err != nil {
		h.Fatal(err)
	}
	other := hands{T: h.T, p: h.p}
	other.env = append(h.p.Environ(),
		"MANIFOLD_HOME="+home, "MANIFOLD_RUN="+run, "MANIFOLD_INSTANCE="+h.p.Name+"b",
		fmt.Sprintf("MANIFOLD_POOL=10.%d.16.0/24", 128+h.p.Number()), fmt.Sprintf("MANIFOLD_UID_BASE=%d", 4_280_000_000),
		"MANIFOLD_JOIN_TOKEN_FILE="+filepath.Join(h.p.Home, "coordinator", "join-token"),
	)
	agent := exec.Command(filepath.Join(platform.Programs, "manifold-agent"))
	agent.Env = other.env
	var log bytes.Buffer
	agent.Stdout, agent.Stderr = &log, &log
	if err := agent.Start(); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		out, err := exec.Command("curl", "-sf", "--unix-socket", filepath.Join(run, "agent.sock"), "-X", "POST", "http://agent/v1/teardown").CombinedOutput()
		if err != nil {
			_ = agent.Process.Kill()
			h.Errorf("tear the second host down: %v: %s", err, out)
		}
		if err := agent.Wait(); err != nil {
			h.Errorf("the second agent ended with %v:\n%s", err, log.String())
		}
	})
	platform.Eventually(h.T, time.Minute, func() error {
		if out, err := other.host("ps").CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	return other
}
