// Package survive puts a platform under load and takes away what it should be
// able to lose: its agent, at random, again and again; and dynos, by restarts,
// scaling and age. Nobody may notice: no request fails, no dyno restarts that
// was not meant to, no log line is lost, doubled or out of order, and nothing
// is left behind. It drives the built programs from outside and must never
// import a room of the platform.
//
//	main_test.go    how long, and the platform
//	load_test.go    requests at a steady rate
//	lines_test.go   log lines, counted
//	agent_test.go   the agent is killed
//	rolling_test.go dynos are replaced
package survive

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"manifold/test/platform"
)

// size says how much is done. `make test-survive` does all of it; as a part of
// `make test` it takes half a minute.
type size struct {
	dynos    int // in apps of two
	requests int // a second
	lines    int // a second
	kills    int
	restarts int
	scalings int
	cycles   int
}

func sizeOf(t *testing.T) size {
	if os.Getenv("MANIFOLD_SURVIVE") == "full" {
		return size{dynos: 20, requests: 500, lines: 10_000, kills: 200, restarts: 50, scalings: 20, cycles: 10}
	}
	t.Parallel() // so little that they do not disturb each other
	return size{dynos: 4, requests: 100, lines: 1000, kills: 6, restarts: 2, scalings: 1, cycles: 1}
}

func TestMain(m *testing.M) {
	if err := platform.Build(); err != nil {
		fmt.Fprintln(os.Stderr, "survival tests:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// patient has the coordinator keep so much of an app's log that none is dropped
// in front of a slow reader (L11): ours shares the machine with all the rest,
// and is not what is tested.
const patient = "MANIFOLD_LOG_LINES=500000"

// start runs a platform of the test's own.
func start(t *testing.T, extra ...string) *platform.Instance {
	t.Helper()
	p, err := platform.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p.Extra = extra
	if err := p.WithoutSample(); err != nil {
		t.Fatal(err)
	}
	p.Cleanup(t)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// repository holds the app, built: its build does nothing.
func repository(t *testing.T) (dir string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "app")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./app")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the app: %v\n%s", err, out)
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	return platform.Repository(t, map[string]string{"Procfile": "web: exec ./app\n", "app": string(binary), "index.html": ""})
}

// answers waits until the coordinator does.
func answers(t *testing.T, p *platform.Instance) {
	t.Helper()
	platform.Eventually(t, time.Minute, func() error {
		res, err := http.Get("http://" + p.API + "/schema")
		if err == nil {
			res.Body.Close()
		}
		return err
	})
}

func scale(t *testing.T, p *platform.Instance, app string, quantity int) {
	t.Helper()
	p.Call(t, "PATCH", "/apps/"+app+"/formation/web", map[string]any{"quantity": quantity}, nil)
}

// dyno is a line of the agent's ps.
type dyno struct {
	App   string `json:"app_name"`
	Name  string `json:"name"`
	Run   string `json:"run"`
	State string `json:"state"`
}

// settled waits until the agent has exactly so many dynos of an app and all
// are up, and returns their runs by name.
func settled(t *testing.T, p *platform.Instance, app string, n int) (runs map[string]string) {
	t.Helper()
	platform.Eventually(t, 90*time.Second, func() error {
		dynos, err := ps(p)
		if err != nil {
			return err
		}
		runs = map[string]string{}
		for _, d := range dynos {
			if d.App != app {
				continue
			}
			if d.State != "up" || runs[d.Name] != "" {
				return fmt.Errorf("%s of %s is %s", d.Name, app, d.State)
			}
			runs[d.Name] = d.Run
		}
		if len(runs) != n {
			return fmt.Errorf("%s has %d dynos, not %d", app, len(runs), n)
		}
		return nil
	})
	return runs
}

func ps(p *platform.Instance) (dynos []dyno, err error) {
	res, err := p.Agent().Get("http://agent/v1/ps")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return dynos, json.NewDecoder(res.Body).Decode(&dynos)
}

// busy is what the machine was doing meanwhile: figures mean little without.
func busy() string {
	text, _ := os.ReadFile("/proc/loadavg")
	var one, five, fifteen string
	_, _ = fmt.Sscan(string(text), &one, &five, &fifteen)
	return fmt.Sprintf("load average %s, %s, %s", one, five, fifteen)
}
