package test

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
	"time"
)

// instance is one platform: its settings, and its `manifold run` while that is
// running. Several live side by side.
type instance struct {
	dir, name               string
	home, run               string
	api, tls, router, fleet string   // addresses
	extra                   []string // more of the environment
	number                  int      // draws the address pool and the user ids
	hold                    *os.File
	mu                      sync.Mutex
	cmd                     *exec.Cmd
	ended                   chan struct{} // closed when cmd has ended
	endErr                  error
	out                     buffer
	token                   string
	readyAfter              time.Duration // of the last start
}

// Each instance has 1,024 slots for dynos (a /20 of /30s) with 65,536 user ids
// each.
const (
	uidBase  = 200_000_000
	uidRange = 1024 << 16
)

// startDeadline is for `manifold run` to have its sample app answering.
const startDeadline = 3 * time.Minute

// newInstance draws settings that no other instance on this machine has.
func newInstance(dir string) (*instance, error) {
	p := &instance{dir: dir, home: filepath.Join(dir, "home"), run: filepath.Join(dir, "run")}
	if err := p.draw(); err != nil {
		return nil, err
	}
	p.name = fmt.Sprintf("mt%02d", p.number)
	for _, addr := range []*string{&p.api, &p.tls, &p.router, &p.fleet} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all are held until all are drawn
		*addr = fmt.Sprintf("localhost:%d", l.Addr().(*net.TCPAddr).Port)
	}
	if err := os.MkdirAll(p.home, 0o755); err != nil {
		return nil, err
	}
	return p, os.Symlink(filepath.Join(cache, "stacks"), filepath.Join(p.home, "stacks"))
}

// draw takes a number that no other test process holds. The lock ends with us.
func (p *instance) draw() error {
	for p.number = range 60 {
		f, err := os.OpenFile(fmt.Sprintf("/tmp/manifold-test-%02d.lock", p.number), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			p.hold = f
			return nil
		}
		f.Close()
	}
	return errors.New("all instance numbers are taken by other tests")
}

func (p *instance) environ() []string {
	return append(append(os.Environ(), p.extra...),
		"MANIFOLD_HOME="+p.home, "MANIFOLD_RUN="+p.run, "MANIFOLD_INSTANCE="+p.name,
		"MANIFOLD_API_ADDR="+p.api, "MANIFOLD_TLS_ADDR="+p.tls,
		"MANIFOLD_ROUTER_ADDR="+p.router, "MANIFOLD_FLEET_ADDR="+p.fleet,
		"MANIFOLD_API_RATE=1000000", // tests ask often
		fmt.Sprintf("MANIFOLD_POOL=10.%d.0.0/20", 128+p.number),
		fmt.Sprintf("MANIFOLD_UID_BASE=%d", uidBase+p.number*uidRange),
	)
}

// start runs `manifold run` until it says that it is ready.
func (p *instance) start() error {
	began := time.Now()
	cmd := exec.Command(filepath.Join(programs, "manifold"), "run")
	cmd.Env = p.environ()
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
	for !strings.Contains(p.printed(), "Ready in ") {
		select {
		case <-ended:
			return fmt.Errorf("manifold run ended: %v\n%s", p.endErr, p.printed())
		case <-deadline:
			return fmt.Errorf("manifold run is not ready after %s:\n%s", startDeadline, p.printed())
		case <-time.After(20 * time.Millisecond):
		}
	}
	p.readyAfter = time.Since(began)
	token, err := os.ReadFile(filepath.Join(p.home, "coordinator", "first-token"))
	p.token = strings.TrimSpace(string(token))
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

// signal sends sig to `manifold run` alone, as kill(1) does.
func (p *instance) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return errors.New("not running")
	}
	return p.cmd.Process.Signal(sig)
}

// wait waits until `manifold run` has ended and returns how.
func (p *instance) wait(limit time.Duration) error {
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

// stop ends the platform as Ctrl-C does. It may be called again.
func (p *instance) stop() error {
	if p.signal(syscall.SIGINT) != nil {
		return nil
	}
	if err := p.wait(90 * time.Second); err != nil {
		return fmt.Errorf("stop: %w\n%s", err, p.printed())
	}
	return nil
}

func (p *instance) printed() string { return p.out.String() }

// logTails shows the end of each daemon's log.
func (p *instance) logTails(logf func(string, ...any)) {
	for _, path := range logFiles(p) {
		text, _ := os.ReadFile(path)
		logf("%s:\n%s", filepath.Base(path), text[max(0, len(text)-6000):])
	}
}

// pid finds the running daemon of this instance by its command line and its
// MANIFOLD_HOME, as no more than ps(1) shows it.
func (p *instance) pid(args ...string) (int, error) {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	want := filepath.Join(programs, args[0]) + "\x00" + strings.Join(append(args[1:], ""), "\x00")
	for _, dir := range entries {
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || string(line) != want {
			continue
		}
		env, _ := os.ReadFile(filepath.Join(dir, "environ"))
		if bytes.Contains(env, []byte("MANIFOLD_HOME="+p.home+"\x00")) {
			var pid int
			_, err := fmt.Sscanf(filepath.Base(dir), "%d", &pid)
			return pid, err
		}
	}
	return 0, fmt.Errorf("no process %q of this instance", args)
}

// agent speaks to the agent's socket.
func (p *instance) agent() *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(p.run, "agent.sock"))
		},
	}}
}

// buffer is written by a process and read by a test.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *buffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}
