package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/agent/door"
	"manifold/slugfs/stack"
)

// TestMain lets the test's binary be the agent, so that a test can kill it.
func TestMain(m *testing.M) {
	if os.Getenv("AGENT_TEST_CHILD") == "" {
		os.Exit(m.Run())
	}
	cfg, err := FromEnv()
	if err == nil {
		cfg.Log = slog.New(slog.NewJSONHandler(os.Stderr, nil))
		err = Run(context.Background(), cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// rig is a host of its own: an agent process with a home, an instance name
// and an address pool nobody else has, on the real kernel.
type rig struct {
	*testCoordinator
	t        testing.TB
	dir      string
	instance string
	env      []string
	stack    []manifold.Image
	agent    *exec.Cmd
	atEnd    func()   // once the agent is gone, nil for nothing
	parents  []string // cgroups made for this rig; see narrow
	log      *os.File
}

var rigs atomic.Int32

func newRig(t testing.TB) *rig {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test runs dynos on the real kernel: run it as root")
	}
	stacks := os.Getenv("MANIFOLD_TEST_STACKS")
	if stacks == "" {
		stacks = filepath.Join(manifold.FromEnv().Home, "stacks")
	}
	tiny := tinyStack(t, stacks)
	r := &rig{testCoordinator: newCoordinator(t, stacks), t: t, dir: t.TempDir(), stack: tiny.Run}
	n := (os.Getpid()*8 + int(rigs.Add(1))) % 100_000
	r.instance = fmt.Sprintf("g%d", n)
	token := filepath.Join(r.dir, "token")
	if err := os.WriteFile(token, []byte(r.token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(r.dir, "home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(stacks, filepath.Join(home, "stacks")); err != nil {
		t.Fatal(err)
	}
	r.env = []string{
		"AGENT_TEST_CHILD=1", "PATH=" + os.Getenv("PATH"),
		"MANIFOLD_HOME=" + home, "MANIFOLD_RUN=" + filepath.Join(r.dir, "run"), "MANIFOLD_INSTANCE=" + r.instance,
		"MANIFOLD_FLEET_ADDR=" + r.addr(), "MANIFOLD_JOIN_TOKEN_FILE=" + token,
		fmt.Sprintf("MANIFOLD_POOL=172.28.%d.0/22", n%64*4), "MANIFOLD_UID_BASE=2100000000", "MANIFOLD_RESOLVERS=192.0.2.53",
		"MANIFOLD_HEALTH_EVERY=100ms",
	}
	var err error
	if r.log, err = os.Create(filepath.Join(r.dir, "agent.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.cleanUp)
	r.start()
	return r
}

// tinyStack finds the smallest stack there is, or builds it.
func tinyStack(t testing.TB, dir string) stack.Stack {
	t.Helper()
	list, err := stack.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.Name == "tiny" {
			return s
		}
	}
	s, err := stack.Build(t.Context(), "tiny", dir, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// start runs an agent and waits until it answers.
func (r *rig) start() {
	r.t.Helper()
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	r.agent = exec.Command(self)
	r.agent.Env, r.agent.Stderr, r.agent.Stdout = r.env, r.log, r.log
	if err := r.agent.Start(); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, "the agent's socket", func() bool {
		if state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.agent.Process.Pid)); bytes.Contains(state, []byte(") Z ")) {
			r.t.Fatal("the agent ended by itself")
		}
		res, err := r.http().Get("http://agent/healthz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	}, nil)
}

func (r *rig) http() *http.Client {
	return &http.Client{Timeout: 90 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(r.dir, "run", "agent.sock"))
		},
	}}
}

// end sends the agent a signal and waits for its end.
func (r *rig) end(s syscall.Signal) {
	r.t.Helper()
	if err := r.agent.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
	_ = r.agent.Wait() // the status says what we sent
	r.agent = nil
}

func (r *rig) teardown() {
	r.t.Helper()
	res, err := r.http().Post("http://agent/v1/teardown", "", nil)
	if err != nil {
		r.t.Fatalf("teardown: %v", err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		r.t.Fatalf("teardown: %s", body)
	}
	if err := r.agent.Wait(); err != nil {
		r.t.Errorf("after a teardown the agent ended with %v", err)
	}
	r.agent = nil
}

func (r *rig) cleanUp() {
	defer func() {
		if r.t.Failed() {
			r.t.Logf("the agent's log:\n%s", r.agentLog())
		}
		r.log.Close()
	}()
	if r.agent == nil {
		r.start()
	}
	r.teardown()
	if r.atEnd != nil {
		r.atEnd()
	}
	for _, dir := range r.parents {
		eventually(r.t, "a cgroup of the test's can be removed", func() bool { return os.Remove(dir) == nil }, nil)
	}
	r.awaitNothingLeft()
	r.server.CloseClientConnections()
}

// awaitNothingLeft waits for the kernel, which frees loop devices and network
// namespaces some time after their last process.
func (r *rig) awaitNothingLeft() {
	r.t.Helper()
	eventually(r.t, "nothing is left behind on this host", func() bool { return r.left() == "" }, r.left)
}

// left lists what is on the host of this instance's. What cannot be listed,
// since others' vanish at the same time, is to be looked at again.
func (r *rig) left() string {
	var found []string
	for _, cmd := range [][]string{{"ip", "-o", "link"}, {"nft", "list", "tables"}, {"losetup", "-l", "-n"}, {"cat", "/proc/self/mounts"}} {
		out, err := exec.Command(cmd[0], cmd[1:]...).Output()
		if err != nil {
			found = append(found, fmt.Sprintf("%v: %v", cmd, err))
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, r.instance+"-") || strings.HasSuffix(line, " "+r.instance+"\n") || strings.Contains(line, r.dir) {
				found = append(found, strings.TrimSpace(line))
			}
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/" + r.instance, "/sys/fs/cgroup/*/" + r.instance} {
		dirs, _ := filepath.Glob(pattern)
		found = append(found, dirs...)
	}
	return strings.Join(found, "\n")
}

// assignment is a formation dyno that runs a command.
func (r *rig) assignment(command string) manifold.Assignment {
	size, err := manifold.ParseSize(manifold.DefaultSize)
	if err != nil {
		r.t.Fatal(err)
	}
	return manifold.Assignment{
		ID: uuid.NewString(), App: uuid.NewString(), AppName: "quiet-river-1234", Dyno: "worker.1", Kind: manifold.KindFormation,
		Layers: r.stack, Command: command, Size: size, Grace: 5 * time.Second, CreatedAt: time.Now(),
		Env: map[string]string{"GREETING": "hello from config"},
	}
}

func (r *rig) ps() []door.Status {
	r.t.Helper()
	res, err := r.http().Get("http://agent/v1/ps")
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	var list []door.Status
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		r.t.Fatal(err)
	}
	return list
}

// agentLog is what the agents of this rig have logged so far.
func (r *rig) agentLog() string {
	text, err := os.ReadFile(r.log.Name())
	if err != nil {
		r.t.Fatal(err)
	}
	return string(bytes.TrimSpace(text))
}
