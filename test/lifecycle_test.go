package test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"manifold/test/platform"
)

// One platform's whole life: first run, Ctrl-C, second run, killed, third run.
// Every step is a promise of `make run`.
func TestRunStopAndRunAgain(t *testing.T) {
	p := own(t)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Logf("measured: first run, from nothing but the stack image, ready after %.1f s", p.ReadyAfter.Seconds())
	for _, want := range []string{"-----> ", "remote: ", "Hello from web.1", "export HEROKU_HOST=http://" + p.API, "http://hello.localhost:"} {
		if !strings.Contains(p.Printed(), want) {
			t.Errorf("manifold run does not print %q", want)
		}
	}
	p.Call(t, "PATCH", "/apps/hello/config-vars", map[string]string{"COLOUR": "green"}, nil)
	p.Answers(t, "hello", "/", "Hello from web.1")
	before := snapshot(t, p)

	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	p.NothingLeft(t)

	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Logf("measured: second run ready after %.1f s", p.ReadyAfter.Seconds())
	if p.ReadyAfter > 30*time.Second { // two or three, unless the machine stands still
		t.Errorf("the second run took %s, more than 30 s", p.ReadyAfter)
	}
	if strings.Contains(p.Printed(), "git push http") {
		t.Error("the second run pushed the sample again")
	}
	if after := snapshot(t, p); after != before {
		t.Errorf("apps, releases and config are not what they were\nbefore: %s\nafter:  %s", before, after)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	stopUnread(t, p)
}

// stopUnread stops a platform whose reader is gone by then, as the tee of
// `manifold run | tee log` is after Ctrl-C.
func stopUnread(t *testing.T, p *platform.Instance) {
	t.Helper()
	run := exec.Command(filepath.Join(platform.Programs, "manifold"), "run")
	run.Env = p.Environ()
	out, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Ready in ") {
	}
	out.Close()
	if err := errors.Join(run.Process.Signal(syscall.SIGINT), run.Wait()); err != nil {
		t.Errorf("a run that nobody reads was stopped: %v", err)
	}
	p.NothingLeft(t)
}

// snapshot is what must survive a stop.
func snapshot(t *testing.T, p *platform.Instance) string {
	t.Helper()
	var all []byte
	for _, path := range []string{"/apps", "/apps/hello/releases", "/apps/hello/config-vars", "/apps/hello/formation"} {
		status, text := p.Request(t, "GET", path, p.Token, nil)
		if status/100 != 2 {
			t.Fatalf("GET %s: %d %s", path, status, text)
		}
		all = append(all, text...)
	}
	return string(all)
}

// `manifold run` itself may die: daemons and dynos go on, and the next run
// takes them over without a dyno noticing.
func TestRunKilled(t *testing.T) {
	p := own(t)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	before := runs(t, p, "hello")

	// A second one beside it is told off, and harms nothing.
	second := exec.Command(filepath.Join(platform.Programs, "manifold"), "run")
	second.Env = p.Environ()
	if out, err := second.CombinedOutput(); err == nil || !strings.Contains(string(out), "running already") {
		t.Errorf("a second manifold run beside the first: %v\n%s", err, out)
	}

	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait(10 * time.Second)
	p.Answers(t, "hello", "/", "Hello from web.1")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Logf("measured: run over a killed one ready after %.1f s", p.ReadyAfter.Seconds())
	if !strings.Contains(p.Printed(), "replacing it") {
		t.Errorf("nothing was said about the killed run:\n%s", p.Printed())
	}
	if now := runs(t, p, "hello"); now != before {
		t.Errorf("dynos were %s before manifold run was killed, and %s after the next", before, now)
	}
}

// An app that does not heed SIGTERM: the first Ctrl-C waits for it, the second
// one does not, and both leave nothing.
func TestHurriedStop(t *testing.T) {
	p := own(t)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	app := p.CreateApp(t)
	p.Push(t, platform.Repository(t, map[string]string{
		"Procfile": "web: sh stubborn.sh\n",
		"index.py": "",
		"runtime":  "",
		"stubborn.sh": "trap '' TERM\npython3 -c \"" +
			"import os,signal,http.server as h; signal.signal(signal.SIGTERM, signal.SIG_IGN); " +
			"h.HTTPServer(('', int(os.environ['PORT'])), h.SimpleHTTPRequestHandler).serve_forever()\"\n",
		"requirements.txt": "",
	}), app)
	p.Answers(t, app, "/", "stubborn.sh")
	began := time.Now()
	for range 2 {
		if err := p.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		platform.Eventually(t, time.Minute, func() error {
			if !strings.Contains(p.Printed(), "Stopping every dyno") {
				return fmt.Errorf("not stopping yet")
			}
			return nil
		})
	}
	if err := p.Wait(90 * time.Second); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(p.Printed(), "Killing every dyno now") {
		t.Errorf("the second Ctrl-C hurried nothing:\n%s", p.Printed())
	}
	t.Logf("measured: a stubborn dyno was gone %.1f s after two Ctrl-C", time.Since(began).Seconds())
}

// A port somebody else has: a sentence, and nothing started.
func TestPortTaken(t *testing.T) {
	p := own(t)
	l, err := net.Listen("tcp", p.Router)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = p.Start()
	if err == nil || !strings.Contains(p.Printed(), "MANIFOLD_ROUTER_ADDR") {
		t.Errorf("with the router's port taken: %v", err)
	}
}

// runs names every run of an app's formation, as the agent's own door shows it:
// a build that has ended may still be there for a while.
func runs(t *testing.T, p *platform.Instance, app string) (text string) {
	t.Helper()
	platform.Eventually(t, time.Minute, func() error {
		res, err := p.Agent().Get("http://agent/v1/ps")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		var all []struct {
			Name, Run, Kind string
			App             string `json:"app_name"`
		}
		if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
			return err
		}
		text = ""
		for _, d := range all {
			if d.App == app && d.Kind == "formation" {
				text += d.Name + "=" + d.Run + " "
			}
		}
		return nil
	})
	return text
}
