package platform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Instance is one platform: its settings, and its `manifold run` while that is
// running. Several live side by side.
type Instance struct {
	Dir, Name        string // Dir holds all that is the instance's; Name is its MANIFOLD_INSTANCE
	Home, Run        string
	API, TLS, Attach string        // addresses
	Router, Fleet    string        // more of them
	Extra            []string      // more of the environment; set before Start
	Token            string        // the first user's, once started
	ReadyAfter       time.Duration // of the last Start

	number int // draws the address pool and the user ids
	hold   *os.File
	out    Buffer

	forward    sync.Once
	watchedAPI string

	mu        sync.Mutex
	clientEnv map[string]string
	cmd       *exec.Cmd
	ended     chan struct{} // closed when cmd has ended
	endErr    error
}

// Each Instance has 1,024 slots for dynos (a /20 of /30s) with 65,536 user ids
// each.
const (
	uidBase  = 200_000_000
	uidRange = 1024 << 16
)

// Each Instance has ports of its own, below those that the kernel gives to
// whoever asks for any (ip_local_port_range): one of these could be somebody
// else's by the time `manifold run` opens it, or opens it again.
const (
	firstPort     = 21_000
	instancePorts = 8
)

// startDeadline is for `manifold run` to have its sample app answering,
// stopDeadline for it to have ended: it allows the agent 70 s, and then each
// daemon 10 s.
const (
	startDeadline = 3 * time.Minute
	stopDeadline  = 3 * time.Minute
)

// New draws settings that no other instance on this machine has. dir will hold
// all that is the instance's.
func New(dir string) (*Instance, error) {
	p := &Instance{Dir: dir, Home: filepath.Join(dir, "home"), Run: filepath.Join(dir, "run")}
	if err := p.draw(); err != nil {
		return nil, err
	}
	p.Name = fmt.Sprintf("mt%02d", p.number)
	if err := os.MkdirAll(p.Home, 0o755); err != nil {
		return nil, err
	}
	return p, os.Symlink(filepath.Join(Cache, "stacks"), filepath.Join(p.Home, "stacks"))
}

// draw takes a number that no other test process holds. The lock ends with us.
func (p *Instance) draw() error {
	for p.number = range 60 {
		f, err := os.OpenFile(fmt.Sprintf("/tmp/manifold-test-%02d.lock", p.number), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil && p.ports() == nil {
			p.hold = f
			return nil
		}
		f.Close()
	}
	return errors.New("all Instance numbers are taken by other tests")
}

// ports gives the instance the ports that belong to its number, unless somebody
// has one of them.
func (p *Instance) ports() error {
	for i, addr := range []*string{&p.API, &p.TLS, &p.Attach, &p.Router, &p.Fleet} {
		*addr = fmt.Sprintf("localhost:%d", firstPort+p.number*instancePorts+i)
		l, err := net.Listen("tcp", *addr)
		if err != nil {
			return err
		}
		l.Close()
	}
	return nil
}

func (p *Instance) Environ() []string {
	return append(append(os.Environ(), p.Extra...),
		"MANIFOLD_HOME="+p.Home, "MANIFOLD_RUN="+p.Run, "MANIFOLD_INSTANCE="+p.Name,
		"MANIFOLD_API_ADDR="+p.API, "MANIFOLD_TLS_ADDR="+p.TLS, "MANIFOLD_ATTACH_ADDR="+p.Attach,
		"MANIFOLD_ROUTER_ADDR="+p.Router, "MANIFOLD_FLEET_ADDR="+p.Fleet,
		"MANIFOLD_API_RATE=1000000", // tests ask often
		fmt.Sprintf("MANIFOLD_POOL=10.%d.0.0/20", 128+p.number),
		fmt.Sprintf("MANIFOLD_UID_BASE=%d", uidBase+p.number*uidRange),
	)
}

// Start runs `manifold run` until it says that it is ready.
func (p *Instance) Start() error {
	began := time.Now()
	cmd := exec.Command(filepath.Join(Programs, "manifold"), "run")
	cmd.Env = p.Environ()
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	// A process group of its own, so that a test can send it what a
	// terminal's Ctrl-C sends; and if this test process dies, it is told to
	// take the platform down.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	p.out.reset()
	ended := make(chan struct{})
	if err := startForLife(cmd, func(err error) { p.endErr = err; close(ended) }); err != nil {
		return err
	}
	p.mu.Lock()
	p.cmd, p.ended = cmd, ended
	p.mu.Unlock()
	deadline := time.After(startDeadline)
	for !strings.Contains(p.Printed(), "Ready in ") {
		select {
		case <-ended:
			return fmt.Errorf("manifold run ended: %v\n%s", p.endErr, p.Printed())
		case <-deadline:
			return fmt.Errorf("manifold run is not ready after %s:\n%s", startDeadline, p.Printed())
		case <-time.After(20 * time.Millisecond):
		}
	}
	p.ReadyAfter = time.Since(began)
	token, err := os.ReadFile(filepath.Join(p.Home, "coordinator", "first-token"))
	p.Token = strings.TrimSpace(string(token))
	return err
}

// startForLife starts cmd from a thread that lives as long as cmd does:
// Pdeathsig fires at the end of the thread that forked (PR_SET_PDEATHSIG(2const)).
func startForLife(cmd *exec.Cmd, ended func(error)) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended(cmd.Wait())
		}
	}()
	return <-started
}

// Signal sends sig to `manifold run` alone, as kill(1) does.
func (p *Instance) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return errors.New("not running")
	}
	return p.cmd.Process.Signal(sig)
}

// Wait waits until `manifold run` has ended and returns how.
func (p *Instance) Wait(limit time.Duration) error {
	select {
	case <-p.ended:
		p.mu.Lock()
		p.cmd = nil
		p.mu.Unlock()
		return p.endErr
	case <-time.After(limit):
		return fmt.Errorf("manifold run did not end within %s", limit)
	}
}

// Stop ends the platform as Ctrl-C does. It may be called again.
func (p *Instance) Stop() error {
	if p.Signal(syscall.SIGINT) != nil {
		return nil
	}
	if err := p.Wait(stopDeadline); err != nil {
		return fmt.Errorf("stop: %w\n%s", err, p.Printed())
	}
	return nil
}

func (p *Instance) Printed() string { return p.out.String() }

// LogTails shows the end of each daemon's log.
func (p *Instance) LogTails(logf func(string, ...any)) {
	for _, path := range logFiles(p) {
		text, _ := os.ReadFile(path)
		logf("%s:\n%s", filepath.Base(path), text[max(0, len(text)-6000):])
	}
}

// PID finds the running daemon of this instance by its command line and its
// MANIFOLD_HOME, as no more than ps(1) shows it.
func (p *Instance) PID(args ...string) (int, error) {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	want := filepath.Join(Programs, args[0]) + "\x00" + strings.Join(append(args[1:], ""), "\x00")
	parents := map[int]int{}
	for _, dir := range entries {
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || string(line) != want {
			continue
		}
		env, _ := os.ReadFile(filepath.Join(dir, "environ"))
		if bytes.Contains(env, []byte("MANIFOLD_HOME="+p.Home+"\x00")) {
			var pid, parent int
			stat, _ := os.ReadFile(filepath.Join(dir, "stat"))
			_, rest, _ := strings.Cut(string(stat), ") ") // these programs' names have no bracket
			if _, err := fmt.Sscanf(filepath.Base(dir)+" "+rest, "%d %1s %d", &pid, new(string), &parent); err == nil {
				parents[pid] = parent
			}
		}
	}
	for pid, parent := range parents {
		if _, itself := parents[parent]; !itself { // else it is a child on its way to another program
			return pid, nil
		}
	}
	return 0, fmt.Errorf("no process %q of this instance", args)
}

// Agent speaks to the agent's socket. A teardown is answered when it is done.
func (p *Instance) Agent() *http.Client {
	return &http.Client{Timeout: stopDeadline, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(p.Run, "agent.sock"))
		},
	}}
}

// Buffer is written by a process and read by a test.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *Buffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}

// WithoutSample keeps Start from deploying the sample app, as if its owner had
// deleted it.
func (p *Instance) WithoutSample() error {
	return os.WriteFile(filepath.Join(p.Home, "sample.json"), []byte(`{"app":"none"}`), 0o644)
}

// Number is drawn for the instance; its dynos' addresses and user ids follow
// from it (Pool, Owns).
func (p *Instance) Number() int { return p.number }

// withoutToken is text for a test's log.
func (p *Instance) withoutToken(text string) string {
	if p.Token == "" {
		return text
	}
	return strings.ReplaceAll(text, p.Token, "TOKEN")
}

// Cleanup ends the platform when the test does. Whatever the test did, nothing
// of it may be left then.
func (p *Instance) Cleanup(t testing.TB) {
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		p.NothingLeft(t)
		if t.Failed() {
			t.Logf("what manifold run printed:\n%s", p.withoutToken(p.Printed()))
			p.LogTails(t.Logf)
		}
	})
}
