package hostile

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// cache holds the stack images (see package test).
var cache = func() string {
	if dir := os.Getenv("MANIFOLD_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/manifold"
}()

var programs, _ = filepath.Abs("../../bin")

// platform is one instance of the whole, on ports, names and addresses of its
// own, run by `manifold run`.
type platform struct {
	t                               testing.TB
	dir, home, run, name            string
	number                          int
	api, tls, attach, router, fleet string
	resolvers                       string
	token                           string
	cmd                             *exec.Cmd
	ended                           chan error
	out                             syncBuffer
}

const (
	uidBase  = 200_000_000
	uidRange = 1024 << 16
	deadline = 3 * time.Minute
)

// start builds the programs and runs a platform until the test ends. Then
// nothing of it may be left on the machine.
func start(t testing.TB, resolvers string) *platform {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests need root: they run dynos on this kernel")
	}
	build := exec.Command("make", "-C", "../..", "build")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	dir := t.TempDir()
	p := &platform{t: t, dir: dir, home: filepath.Join(dir, "home"), run: filepath.Join(dir, "run"), resolvers: resolvers}
	p.draw()
	p.listenAt()
	if err := os.MkdirAll(p.home, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(cache, "stacks"), filepath.Join(p.home, "stacks")); err != nil {
		t.Fatal(err)
	}
	// No sample app is wanted: as if its owner had deleted it.
	if err := os.WriteFile(filepath.Join(p.home, "sample.json"), []byte(`{"app":"none"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	p.launch()
	return p
}

// draw takes a number that no other test process on this machine holds.
func (p *platform) draw() {
	for p.number = range 60 {
		f, err := os.OpenFile(fmt.Sprintf("/tmp/manifold-test-%02d.lock", p.number), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			p.t.Fatal(err)
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			p.t.Cleanup(func() { f.Close() })
			p.name = fmt.Sprintf("mt%02d", p.number)
			return
		}
		f.Close()
	}
	p.t.Fatal("all instance numbers are taken by other tests")
}

// listenAt draws the addresses of the doors.
func (p *platform) listenAt() {
	p.t.Helper()
	for _, addr := range []*string{&p.api, &p.tls, &p.attach, &p.router, &p.fleet} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			p.t.Fatal(err)
		}
		defer l.Close() // all are held until all are drawn
		*addr = fmt.Sprintf("localhost:%d", l.Addr().(*net.TCPAddr).Port)
	}
}

func (p *platform) launch() {
	p.t.Helper()
	p.cmd = exec.Command(filepath.Join(programs, "manifold"), "run")
	p.cmd.Env = append(os.Environ(),
		"MANIFOLD_HOME="+p.home, "MANIFOLD_RUN="+p.run, "MANIFOLD_INSTANCE="+p.name,
		"MANIFOLD_API_ADDR="+p.api, "MANIFOLD_TLS_ADDR="+p.tls, "MANIFOLD_ATTACH_ADDR="+p.attach, "MANIFOLD_ROUTER_ADDR="+p.router, "MANIFOLD_FLEET_ADDR="+p.fleet,
		"MANIFOLD_RESOLVERS="+p.resolvers, "MANIFOLD_API_RATE=1000000",
		fmt.Sprintf("MANIFOLD_POOL=10.%d.0.0/20", 128+p.number), fmt.Sprintf("MANIFOLD_UID_BASE=%d", uidBase+p.number*uidRange))
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	p.ended = make(chan error, 1)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig fires at the end of the thread that forked
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.ended <- p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		p.t.Fatal(err)
	}
	p.eventually(deadline, "the platform", func() error {
		select {
		case err := <-p.ended:
			p.ended <- err
			p.t.Fatalf("manifold run ended: %v\n%s", err, p.out.String())
		default:
		}
		if !strings.Contains(p.out.String(), "Ready in ") {
			return errors.New("is not ready")
		}
		return nil
	})
	token, err := os.ReadFile(filepath.Join(p.home, "coordinator", "first-token"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.token = strings.TrimSpace(string(token))
}

func (p *platform) stop() {
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	if p.t.Failed() {
		logs, _ := filepath.Glob(filepath.Join(p.home, "log", "*.log"))
		for _, path := range logs {
			text, _ := os.ReadFile(path)
			p.t.Logf("%s:\n%s", filepath.Base(path), text[max(0, len(text)-5000):])
		}
	}
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	select {
	case err := <-p.ended:
		if err != nil {
			p.t.Errorf("manifold run ended with %v:\n%s", err, p.out.String())
		}
	case <-time.After(90 * time.Second):
		p.t.Errorf("manifold run does not end:\n%s", p.out.String())
	}
	for _, left := range p.leftovers() {
		p.t.Errorf("left on the machine: %s", left)
	}
}

// leftovers looks with the host's own tools for anything of the instance's.
func (p *platform) leftovers() (left []string) {
	for _, l := range []struct{ mark, command string }{
		{p.dir + "/", "findmnt -rno TARGET,SOURCE"}, {p.dir + "/", "losetup -nl -O NAME,BACK-FILE"},
		{" " + p.name + "-", "ip -o addr"}, {" " + p.name + "-", "ip -o link"}, {" " + p.name, "nft list tables"},
		{"/" + p.name, "find /sys/fs/cgroup -type d -name " + p.name}, {"MANIFOLD_HOME=" + p.home + " ", "ps -eww -o pid,args e"},
	} {
		args := strings.Fields(l.command)
		out, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil && args[0] != "findmnt" { // which says so when it finds no mount
			left = append(left, fmt.Sprintf("%s: %v", l.command, err))
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, l.mark) {
				left = append(left, args[0]+": "+strings.TrimSpace(line))
			}
		}
	}
	return left
}

func (p *platform) eventually(limit time.Duration, what string, check func() error) {
	p.t.Helper()
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Since(began) > limit {
			p.t.Fatalf("%s, after %v: %v", what, limit, err)
		}
	}
}

var loopback = &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{Proxy: nil, MaxIdleConnsPerHost: 64}}

// call does a Platform API request.
func (p *platform) call(method, path string, body, reply any) {
	p.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	req, err := http.NewRequest(method, "http://"+p.api+path, bytes.NewReader(text))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Accept", "application/vnd.heroku+json; version=3")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+p.token)
	res, err := loopback.Do(req)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	text, err = io.ReadAll(res.Body)
	if err != nil || res.StatusCode/100 != 2 {
		p.t.Fatalf("%s %s: %d %s %v", method, path, res.StatusCode, text, err)
	}
	if reply != nil {
		if err := json.Unmarshal(text, reply); err != nil {
			p.t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
}

func (p *platform) createApp(prefix string) string {
	p.t.Helper()
	name := prefix + "-" + strings.ToLower(rand.Text()[:8])
	p.call("POST", "/apps", map[string]string{"name": name}, nil)
	return name
}

func (p *platform) scale(app, typ string, quantity int) {
	p.t.Helper()
	p.call("PATCH", "/apps/"+app+"/formation/"+typ, map[string]any{"quantity": quantity}, nil)
}

// push deploys files, all of them executable.
func (p *platform) push(app string, files map[string][]byte) {
	p.t.Helper()
	dir := p.t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o755); err != nil {
			p.t.Fatal(err)
		}
	}
	const helper = `!f() { test "$1" = get && echo username=any && echo "password=$TEST_TOKEN"; }; f`
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"}, {"add", "-A"}, {"commit", "-q", "-m", "Hostile"}, {"push", "-q", "http://" + p.api + "/" + app + ".git", "main"},
	} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "TEST_TOKEN="+p.token, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
			"GIT_AUTHOR_NAME=Test", "GIT_AUTHOR_EMAIL=test@localhost", "GIT_COMMITTER_NAME=Test", "GIT_COMMITTER_EMAIL=test@localhost",
			"NO_PROXY=localhost", "no_proxy=localhost", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=credential.helper", "GIT_CONFIG_VALUE_0="+helper)
		if out, err := cmd.CombinedOutput(); err != nil {
			p.t.Fatalf("git %s: %v\n%s", args[0], err, out)
		}
	}
}

// log is what the app's log keeps, "app[web.1]: text" a line.
func (p *platform) log(app string) (lines []string) {
	p.t.Helper()
	var session struct {
		URL string `json:"logplex_url"`
	}
	p.call("POST", "/apps/"+app+"/log-sessions", map[string]any{"lines": 1500}, &session)
	res, err := loopback.Get(session.URL)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if _, text, _ := strings.Cut(data, " "); ok {
			lines = append(lines, text)
		}
	}
	return lines
}

// dyno is one line of the agent's ps.
type dyno struct {
	App     string `json:"app_name"`
	Name    string `json:"name"`
	Run     string `json:"run"`
	State   string `json:"state"`
	Addr    string `json:"addr"`
	Crashes int    `json:"crashes"`
}

// ps asks the agent's socket.
func (p *platform) ps() (dynos []dyno, err error) {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(p.run, "agent.sock"))
		},
	}}
	res, err := client.Get("http://agent/v1/ps")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return dynos, json.NewDecoder(res.Body).Decode(&dynos)
}

func (p *platform) dyno(app, name string) (dyno, error) {
	dynos, err := p.ps()
	if err != nil {
		return dyno{}, err
	}
	i := slices.IndexFunc(dynos, func(d dyno) bool { return d.App == app && d.Name == name })
	if i < 0 {
		return dyno{}, fmt.Errorf("there is no dyno %s of %s", name, app)
	}
	return dynos[i], nil
}

// daemonPIDs are the process ids of this instance's daemons, and a few of the
// host's.
func (p *platform) daemonPIDs() (pids []string) {
	pids = append(pids, "2", strconv.Itoa(os.Getpid()))
	out, _ := exec.Command("pgrep", "-f", programs+"/manifold").Output()
	return append(pids, strings.Fields(string(out))...)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
