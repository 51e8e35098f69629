package test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"manifold/test/platform"
)

// traffic sends requests to an app one after the other until stop is called.
type traffic struct {
	sent, failed atomic.Int64
	mu           sync.Mutex
	first        string // failure
	longest      time.Duration
	stop         func()
}

func load(p *platform.Instance, app string) *traffic {
	l := &traffic{}
	done := make(chan struct{})
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				began := time.Now()
				status, body, err := p.Visit(app, "/")
				took := time.Since(began)
				l.sent.Add(1)
				l.mu.Lock()
				l.longest = max(l.longest, took)
				if err != nil || status != 200 {
					l.failed.Add(1)
					if l.first == "" {
						l.first = fmt.Sprintf("%d %q %v", status, body, err)
					}
				}
				l.mu.Unlock()
			}
		})
	}
	l.stop = sync.OnceFunc(func() { close(done); wait.Wait() })
	return l
}

// kill9 kills a daemon of the platform and waits until another is there.
func kill9(t *testing.T, p *platform.Instance, args ...string) {
	t.Helper()
	old, err := p.PID(args...)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	took := platform.Eventually(t, time.Minute, func() error {
		now, err := p.PID(args...)
		if err != nil {
			return err
		}
		if now == old {
			return fmt.Errorf("process %d is still there", old)
		}
		return nil
	})
	t.Logf("measured: %s %d killed, another one started after %.1f s", args[0], old, took.Seconds())
}

// The coordinator is killed at any moment: what was acknowledged is there
// afterwards, and neither dynos nor routed requests notice.
func TestKill9Coordinator(t *testing.T) {
	p := running(t)
	app := p.CreateApp(t)
	p.Push(t, platform.Sample(t, "hello"), app)
	p.Answers(t, app, "/", "Hello")
	before := runs(t, p, app)
	l := load(p, app)
	defer l.stop()
	const kills = 2 // manifold run waits twice as long after each
	for i := range kills {
		name := fmt.Sprintf("%s-%d", app, i)
		p.Call(t, "POST", "/apps", map[string]string{"name": name}, nil)
		t.Cleanup(func() { p.DeleteApp(name) })
		p.Call(t, "PATCH", "/apps/"+name+"/config-vars", map[string]string{"N": fmt.Sprint(i)}, nil)
		kill9(t, p, "manifold-coordinator")
		took := platform.Eventually(t, time.Minute, func() error { return apiUp(p) })
		t.Logf("measured: API answers again after %.1f s", took.Seconds())
		var vars map[string]string
		p.Call(t, "GET", "/apps/"+name+"/config-vars", nil, &vars)
		if vars["N"] != fmt.Sprint(i) {
			t.Errorf("acknowledged before the kill, gone after it: %s has config %v", name, vars)
		}
	}
	platform.Eventually(t, time.Minute, func() error { return dynosUp(t, p, app, "web.1") })
	l.stop()
	t.Logf("measured: %d requests while the coordinator was killed %d times, %d failed, longest %s", l.sent.Load(), kills, l.failed.Load(), l.longest)
	if l.failed.Load() > 0 {
		t.Errorf("requests failed; the first: %s", l.first)
	}
	if now := runs(t, p, app); now != before {
		t.Errorf("dynos noticed: runs were %s, are %s", before, now)
	}
}

// The agent is killed: dynos and requests do not notice, and the new one
// adopts them.
func TestAgentKilled(t *testing.T) {
	p := running(t)
	app := p.CreateApp(t)
	p.Push(t, platform.Sample(t, "hello"), app)
	p.Answers(t, app, "/", "Hello")
	before := runs(t, p, app)
	l := load(p, app)
	defer l.stop()
	for range 3 {
		kill9(t, p, "manifold-agent")
		if now := runs(t, p, app); now != before {
			t.Errorf("runs were %s, are %s", before, now)
		}
	}
	l.stop()
	t.Logf("measured: %d requests while the agent was killed 3 times, %d failed, longest %s", l.sent.Load(), l.failed.Load(), l.longest)
	if l.failed.Load() > 0 {
		t.Errorf("requests failed; the first: %s", l.first)
	}
	// It is not only there, it works: a new release replaces the dyno.
	p.Call(t, "PATCH", "/apps/"+app+"/config-vars", map[string]string{"A": "b"}, nil)
	platform.Eventually(t, 90*time.Second, func() error {
		if now := runs(t, p, app); now == before {
			return fmt.Errorf("the dyno was not replaced")
		}
		return dynosUp(t, p, app, "web.1")
	})
}

// The router is killed: it is back at once with its last table, and asks
// nobody for it.
func TestRouterKilled(t *testing.T) {
	p := running(t)
	app := p.CreateApp(t)
	p.Push(t, platform.Sample(t, "hello"), app)
	p.Answers(t, app, "/", "Hello")
	kill9(t, p, "manifold-coordinator", "router")
	took := platform.Eventually(t, time.Minute, func() error {
		status, _, err := p.Visit(app, "/")
		if err != nil || status != 200 {
			return fmt.Errorf("%d %w", status, err)
		}
		return nil
	})
	t.Logf("measured: the app answers again %.1f s after its router", took.Seconds())
}

// A dyno that crashes comes back at once, with the coordinator and without:
// the next try has the address that the router's last table names.
func TestCrash(t *testing.T) {
	p := running(t)
	dir := platform.Repository(t, map[string]string{
		"Procfile":         "web: python3 app.py\n",
		"requirements.txt": "",
		"app.py": `import os, http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            os._exit(7)
        self.send_response(200); self.end_headers(); self.wfile.write(os.uname().nodename.encode())
http.server.HTTPServer(("", int(os.environ["PORT"])), H).serve_forever()
`,
	})
	for _, hangs := range []bool{false, true} {
		t.Run(map[bool]string{false: "coordinator is there", true: "coordinator hangs"}[hangs], func(t *testing.T) {
			app := p.CreateApp(t)
			p.Push(t, dir, app)
			first := p.Answers(t, app, "/", "")
			goOn := func() {}
			if hangs {
				coordinator, err := p.PID("manifold-coordinator")
				if err != nil {
					t.Fatal(err)
				}
				goOn = sync.OnceFunc(func() { _ = syscall.Kill(coordinator, syscall.SIGCONT) })
				defer goOn()
				if err := syscall.Kill(coordinator, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			_, _, _ = p.Visit(app, "/die")
			took := platform.Eventually(t, time.Minute, func() error {
				status, body, err := p.Visit(app, "/")
				if err != nil || status != 200 || body == first {
					return fmt.Errorf("%d %q %w", status, body, err)
				}
				return nil
			})
			goOn()
			t.Logf("measured: another run answers %.2f s after the crash", took.Seconds())
			platform.Eventually(t, time.Minute, func() error { return p.LogContains(t, app, "Process exited with status 7") })
		})
	}
}

// apiUp says whether the Platform API answers.
func apiUp(p *platform.Instance) error {
	res, err := platform.Loopback.Get("http://" + p.API + "/account")
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode != 401 {
		return fmt.Errorf("%s without a token", res.Status)
	}
	return nil
}
