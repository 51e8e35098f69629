package onemachine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"manifold"
)

// output is read while daemons write to it.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func testMachine(t *testing.T) (*machine, *output) {
	t.Helper()
	out := &output{}
	s := manifold.Settings{Home: t.TempDir(), Run: t.TempDir(), Instance: "unit"}
	return &machine{Config: Config{Settings: s, Out: out}}, out
}

func shell(t *testing.T, m *machine, name, script string) *daemon {
	t.Helper()
	d, err := startDaemon(m, name, []string{"PATH=/usr/bin:/bin"}, []string{"/bin/sh", "-c", script})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.stop(time.Second) })
	return d
}

// patience is how long a test waits for what must happen: a machine may be busy
// with others' tests.
const patience = time.Minute

func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %v", patience, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// A daemon that was up is brought back with another process, and the person is
// shown why it ended; one that is stopped stays away.
func TestDaemonIsBroughtBack(t *testing.T) {
	m, out := testMachine(t)
	d := shell(t, m, "agent", "echo here is why; exec sleep 1000")
	d.keepUp()
	first, err := os.ReadFile(recordPath(m.Settings, "agent"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if !strings.Contains(d.tail(), "here is why") {
			return errors.New("nothing in the log yet")
		}
		return nil
	})
	d.signal(syscall.SIGKILL)
	eventually(t, func() error {
		now, err := os.ReadFile(recordPath(m.Settings, "agent"))
		if err == nil && bytes.Equal(now, first) {
			return errors.New("still the first process")
		}
		return err
	})
	if text := out.String(); !strings.Contains(text, "signal: killed") || !strings.Contains(text, "here is why") {
		t.Errorf("the person reads %q", text)
	}
	d.stop(patience)
	if _, err := os.Stat(recordPath(m.Settings, "agent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the record of a stopped daemon: %v", err)
	}
}

// One that never came up is not tried again.
func TestDaemonThatDiesWhileStarting(t *testing.T) {
	m, _ := testMachine(t)
	shut := func(context.Context) error { return errors.New("the door is shut") }
	err := m.launch(t.Context(), "router", nil, shut, "/bin/sh", "-c", "echo port is taken; exit 3")
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "port is taken") {
		t.Errorf("error is %v", err)
	}
}

// One that dies just when its door was found open is not taken for one that is
// up: nobody would bring it back.
func TestDaemonThatDiesWhenItIsUp(t *testing.T) {
	m, _ := testMachine(t)
	up := func(context.Context) error {
		m.daemons[0].signal(syscall.SIGKILL)
		<-m.daemons[0].died
		return nil
	}
	if err := m.launch(t.Context(), "router", nil, up, "/bin/sleep", "1000"); err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("error is %v", err)
	}
}

// One that is stopped while it is brought back is told so, and not only killed in
// the end.
func TestDaemonStoppedWhileItComesBack(t *testing.T) {
	m, _ := testMachine(t)
	d := shell(t, m, "agent", "exec sleep 1000")
	d.stop(patience)
	again, err := d.spawn() // as when its wait was over just before
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- again.Wait() }()
	select {
	case err := <-ended:
		if err == nil || err.Error() != "signal: terminated" {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience / 6):
		d.signal(syscall.SIGKILL)
		t.Error("it runs on")
	}
}

// A daemon that ignores SIGTERM is killed.
func TestStubbornDaemon(t *testing.T) {
	m, out := testMachine(t)
	d := shell(t, m, "coordinator", "trap '' TERM; echo deaf; while :; do sleep 0.1; done")
	d.keepUp()
	eventually(t, func() error {
		if !strings.Contains(d.tail(), "deaf") {
			return errors.New("it has not begun")
		}
		return nil
	})
	d.stop(200 * time.Millisecond)
	if !strings.Contains(out.String(), "killing it") {
		t.Errorf("the person reads %q", out.String())
	}
}

// A log that grew past its bound keeps its newest lines in NAME.1 and goes on
// from empty, while its writer holds it open.
func TestLogIsCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.log")
	writer, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	line := bytes.Repeat([]byte("x"), 1<<20)
	for range maxLog>>20 + 2 {
		if _, err := writer.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := cutLog(path); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.WriteString("after\n"); err != nil {
		t.Fatal(err)
	}
	now, _ := os.ReadFile(path)
	old, err := os.Stat(path + ".1")
	if err != nil || string(now) != "after\n" || old.Size() != maxLog {
		t.Errorf("log is %d bytes, %v, %v", len(now), old, err)
	}
}

// The daemons of a killed run are ended; a stranger that got the number since
// is left alone.
func TestReplaceStale(t *testing.T) {
	m, out := testMachine(t)
	d := shell(t, m, "router", "exec sleep 1000")
	if err := m.replaceStale(); err != nil {
		t.Fatal(err)
	}
	<-d.ended // it was ended, and not brought back: it had not been up
	if !strings.Contains(out.String(), "A former run was killed and left its router") {
		t.Errorf("the person reads %q", out.String())
	}

	stranger := shell(t, m, "agent", "exec sleep 1000")
	text, err := os.ReadFile(recordPath(m.Settings, "agent"))
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(`"start":"`), []byte(`"start":"9`), 1)
	if err := os.WriteFile(recordPath(m.Settings, "agent"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.replaceStale(); err != nil {
		t.Fatal(err)
	}
	if closed(stranger.ended) {
		t.Error("a stranger's process was ended")
	}
}

// Two runs of one instance: the second is told who the first is.
func TestLock(t *testing.T) {
	s := manifold.Settings{Home: t.TempDir(), Run: t.TempDir()}
	unlock, err := lock(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(s); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("a second lock: %v", err)
	}
	unlock()
	unlock, err = lock(s)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}
