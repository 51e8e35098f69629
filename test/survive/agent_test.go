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

// keeper runs a daemon and starts another one whenever it ended, at once: what
// systemd does. `manifold run` would wait longer each time.
type keeper struct {
	t       *testing.T
	p       *platform.Instance
	program string
	log     *os.File
	mu      sync.Mutex
	process *os.Process
	starts  int
	seen    int // of them, by another
	stop    func()
}

// keep takes agent and coordinator over from `manifold run`, which it kills:
// the daemons run on, and its next start, by stop, takes them all over again.
func keep(t *testing.T, p *platform.Instance) (agents, coordinators *keeper, stop func()) {
	t.Helper()
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait(10 * time.Second) // it was killed
	agents, coordinators = takeOver(t, p, "manifold-agent"), takeOver(t, p, "manifold-coordinator")
	stop = sync.OnceFunc(func() {
		agents.stop()
		coordinators.stop()
		if err := p.Start(); err != nil { // to take all down
			t.Errorf("manifold run over what was killed: %v", err)
		}
	})
	t.Cleanup(stop)
	return agents, coordinators, stop
}

// takeOver kills a daemon and keeps others in its place.
func takeOver(t *testing.T, p *platform.Instance, program string) *keeper {
	t.Helper()
	first, err := p.PID(program)
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{t: t, p: p, program: program}
	if k.log, err = os.Create(filepath.Join(p.Dir, program+".log")); err != nil {
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
	k.stop = func() {
		close(done)
		k.kill()
		work.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(k.log.Name())
			t.Logf("the log of %s ends:\n%s", program, text[max(0, len(text)-8000):])
		}
		k.log.Close()
	}
	return k
}

// run is one daemon's life.
func (k *keeper) run(done <-chan struct{}) bool {
	select {
	case <-done:
		return false
	default:
	}
	cmd := exec.Command(filepath.Join(platform.Programs, k.program))
	cmd.Env, cmd.Dir = k.p.Environ(), "/"
	cmd.Stdout, cmd.Stderr = io.Writer(k.log), io.Writer(k.log)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		k.t.Errorf("start %s: %v", k.program, err)
		return false
	}
	k.mu.Lock()
	k.process = cmd.Process
	k.starts++
	k.mu.Unlock()
	_ = cmd.Wait() // it is killed
	return true
}

// another waits until a daemon runs that was not there at the last call.
func (k *keeper) another() {
	k.t.Helper()
	platform.Eventually(k.t, time.Minute, func() error {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.starts == k.seen {
			return fmt.Errorf("no other %s was started after the %dth", k.program, k.seen)
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
// taking over from the one before, under requests and log lines; and now and
// then the coordinator with it.
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
	agents, coordinators, stop := keep(t, p)
	requests := startLoad(t, p, apps, n.requests)
	began := time.Now()
	for i := range n.kills {
		agents.another()
		time.Sleep(time.Duration(rand.IntN(1800)) * time.Millisecond)
		agents.kill()
		if i%20 == 3 {
			coordinators.another()
			coordinators.kill()
		}
	}
	took, machine := time.Since(began), busy()
	answers(t, p)
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
	var boxes []string
	platform.Eventually(t, time.Minute, func() error { // an agent that was just killed had no time to put others away
		if boxes, _ = filepath.Glob(filepath.Join(p.Home, "agent", "runs", "*-*-*-*-*")); len(boxes) != n.dynos {
			return fmt.Errorf("%d dynos have %d boxes: %q", n.dynos, len(boxes), boxes)
		}
		return nil
	})
	for _, app := range apps {
		scale(t, p, app, 0)
		settled(t, p, app, 0)
	}
	counted := lines.close()
	stop()
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	left := p.Leftovers()
	fmt.Printf(`
agent killed       %d times in %.0f s (%d starts), %s
coordinator too    %d times
requests           %s
log lines          %s
dynos              %d in %d apps, restarted %d
leaks              %d of %d boxes while it ran, %d at the end
`, n.kills, took.Seconds(), agents.starts, machine, coordinators.starts, visited, counted, n.dynos, len(apps), restarted, len(boxes)-n.dynos, n.dynos, len(left))
}
