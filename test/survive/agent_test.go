package survive

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"manifold/test/platform"
)

// keeper runs the agent and starts another one whenever it ended, at once: what
// systemd does. `manifold run` would wait longer each time.
type keeper struct {
	t       *testing.T
	p       *platform.Instance
	log     *os.File
	mu      sync.Mutex
	process *os.Process
	starts  int
	seen    int // of them, by another
	stop    func()
}

// keep takes the agent over from `manifold run`, which it kills: the daemons
// run on, and its next start takes them all over again.
func keep(t *testing.T, p *platform.Instance) *keeper {
	t.Helper()
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait(10 * time.Second) // it was killed
	first, err := p.PID("manifold-agent")
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{t: t, p: p}
	if k.log, err = os.Create(filepath.Join(p.Dir, "agent.log")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		runtime.LockOSThread() // Pdeathsig is of the thread that forked
		for k.run(done) {
		}
	})
	k.stop = sync.OnceFunc(func() {
		close(done)
		k.kill()
		work.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(k.log.Name())
			t.Logf("the agents' log ends:\n%s", text[max(0, len(text)-8000):])
		}
		k.log.Close()
		if err := p.Start(); err != nil { // to take all down
			t.Errorf("manifold run over what was killed: %v", err)
		}
	})
	t.Cleanup(k.stop)
	return k
}

// run is one agent's life.
func (k *keeper) run(done <-chan struct{}) bool {
	select {
	case <-done:
		return false
	default:
	}
	cmd := exec.Command(filepath.Join(platform.Programs, "manifold-agent"))
	cmd.Env, cmd.Dir = k.p.Environ(), "/"
	cmd.Stdout, cmd.Stderr = io.Writer(k.log), io.Writer(k.log)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		k.t.Errorf("start an agent: %v", err)
		return false
	}
	k.mu.Lock()
	k.process = cmd.Process
	k.starts++
	k.mu.Unlock()
	_ = cmd.Wait() // it is killed
	return true
}

// another waits until an agent runs that was not there at the last call.
func (k *keeper) another() {
	k.t.Helper()
	platform.Eventually(k.t, 30*time.Second, func() error {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.starts == k.seen {
			return fmt.Errorf("no other agent was started after the %dth", k.seen)
		}
		k.seen = k.starts
		return nil
	})
}

func (k *keeper) kill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.process != nil {
		_ = k.process.Kill() // it may just have been
	}
}

// TestAgentKilled kills the agent at random moments, also while it is still
// taking over from the one before, under requests and log lines.
func TestAgentKilled(t *testing.T) {
	n := sizeOf(t)
	p := start(t, patient)
	repo := repository(t)
	lines := newLedger(t)
	const perApp = 2
	var apps []string
	before := map[string]map[string]string{}
	for range n.dynos / perApp {
		app := p.CreateApp(t)
		p.Call(t, "PATCH", "/apps/"+app+"/config-vars", map[string]string{"LINES": fmt.Sprint(n.lines / n.dynos)}, nil)
		lines.follow(p, app)
		p.Push(t, repo, app)
		scale(t, p, app, perApp)
		apps = append(apps, app)
	}
	for _, app := range apps {
		before[app] = settled(t, p, app, perApp)
		p.Answers(t, app, "/", "")
	}
	k := keep(t, p)
	requests := startLoad(t, p, apps, n.requests)
	began := time.Now()
	for range n.kills {
		k.another()
		time.Sleep(time.Duration(rand.IntN(1800)) * time.Millisecond)
		k.kill()
	}
	took, machine := time.Since(began), busy()
	restarted := 0
	for _, app := range apps {
		for name, run := range settled(t, p, app, perApp) {
			if before[app][name] != run {
				restarted++
				t.Errorf("%s of %s ran as %s, and now as %s", name, app, before[app][name], run)
			}
		}
	}
	visited := requests.report()
	boxes, _ := filepath.Glob(filepath.Join(p.Home, "agent", "runs", "*-*-*-*-*"))
	if len(boxes) != n.dynos {
		t.Errorf("%d dynos have %d boxes: %q", n.dynos, len(boxes), boxes)
	}
	for _, app := range apps {
		scale(t, p, app, 0)
		settled(t, p, app, 0)
	}
	counted := lines.close()
	k.stop()
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	left := p.Leftovers()
	fmt.Printf(`
agent killed       %d times in %.0f s (%d starts), %s
requests           %s
log lines          %s
dynos              %d in %d apps, restarted %d
leaks              %d of %d boxes while it ran, %d at the end
`, n.kills, took.Seconds(), k.starts, machine, visited, counted, n.dynos, len(apps), restarted, len(boxes)-n.dynos, n.dynos, len(left))
}
