package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"manifold/test/platform"
)

// phased is a repository whose release command prints, and then waits for a
// file /tmp/go or fails, as it is told to by config vars; its answer says which
// commit serves.
func phased(t *testing.T, answer string) string {
	t.Helper()
	return platform.Repository(t, map[string]string{
		"Procfile":         "web: exec python3 app.py\nrelease: ./migrate\n",
		"requirements.txt": "",
		"answer":           answer,
		"migrate": "#!/bin/bash\n" +
			"echo \"migrating $(cat answer) in $DYNO\"\nfor i in 1 2 3; do echo \"step $i\"; done\n" +
			"while [[ -n $WAIT && ! -e /tmp/go ]]; do sleep 0.1; done\nexit \"${FAIL:-0}\"\n",
		"app.py": `import os, http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write((open("answer").read() + " " + os.environ.get("COLOUR", "")).encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), H).serve_forever()
`,
	})
}

func change(t *testing.T, dir, answer string) {
	t.Helper()
	platform.Write(t, dir, map[string]string{"answer": answer})
	platform.Commit(t, dir)
}

type release struct {
	ID, Status, Description string
	Version                 int
	Current                 bool
	Output                  *string `json:"output_stream_url"`
}

// newest is the app's newest release.
func newest(t *testing.T, p *platform.Instance, app string) release {
	t.Helper()
	var all []release
	p.Call(t, "GET", "/apps/"+app+"/releases", nil, &all)
	return all[len(all)-1]
}

func settled(t *testing.T, p *platform.Instance, app, status string, version int) release {
	t.Helper()
	var r release
	platform.Eventually(t, time.Minute, func() error {
		if r = newest(t, p, app); r.Status != status || r.Version != version {
			return fmt.Errorf("the newest release is v%d %s, want v%d %s", r.Version, r.Status, version, status)
		}
		return nil
	})
	return r
}

// The release command runs with the new slug and config before the new
// release serves, on a push, a config change and a rollback; when it fails the
// old release serves on.
func TestReleasePhase(t *testing.T) {
	p := running(t)
	app := p.CreateApp(t)
	dir := phased(t, "first")
	out := p.Push(t, dir, app)
	for _, want := range []string{
		"remote: Running release command...", "remote: migrating first in release.", "remote: step 3", "remote: Waiting for release... done.",
		"Release command declared: this new release will not be available until the command succeeds.", "deployed to Manifold",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the pusher does not read %q:\n%s", want, out)
		}
	}
	p.Answers(t, app, "/", "first")
	for _, want := range []string{"app[api]: Build started by user ", "app[api]: Deploy ", "app[api]: Running release v3 commands by user ",
		"app[release.", "app[api]: Release v3 created by user ", "app[api]: Build succeeded"} {
		platform.Eventually(t, time.Minute, func() error { return p.LogContains(t, app, want) })
	}

	// A config change runs it too; one that fails keeps the old release, and
	// the change.
	text, err := p.Heroku(t, dir, "config:set", "FAIL=7", "-a", app)
	if err != nil || !strings.Contains(text, "Release command executing") {
		t.Errorf("config:set: %v\n%s", err, text)
	}
	claims(t, "releases:output", "what a release command printed, and why it failed")
	failed := settled(t, p, app, "failed", 4)
	text, err = p.Heroku(t, dir, "releases:output", "v4", "-a", app)
	if err != nil || !strings.Contains(text, "migrating first in release.") || !strings.Contains(text, "Release command failed: it exited with status 7.") {
		t.Errorf("releases:output: %v\n%s", err, text)
	}
	if text, err = p.Heroku(t, dir, "releases", "-a", app); err != nil || !strings.Contains(text, "release command failed") {
		t.Errorf("releases: %v\n%s", err, text)
	}
	if failed.Current {
		t.Error("a failed release is shown as current")
	}

	// A push whose command fails is kept and says so; the old code serves.
	change(t, dir, "second")
	out = p.Push(t, dir, app)
	for _, want := range []string{"migrating second", "it exited with status 7", "Waiting for release... failed.", "what served before serves on"} {
		if !strings.Contains(out, want) {
			t.Errorf("the pusher does not read %q:\n%s", want, out)
		}
	}
	settled(t, p, app, "failed", 5)
	if status, body, err := p.Visit(app, "/"); status != 200 || !strings.Contains(body, "first") || err != nil {
		t.Errorf("after a failed release: %d %q %v", status, body, err)
	}
	p.Call(t, "PATCH", "/apps/"+app+"/config-vars", map[string]any{"FAIL": nil, "COLOUR": "green"}, nil)
	settled(t, p, app, "succeeded", 6)
	p.Answers(t, app, "/", "first green")
	if again := p.Push(t, dir, app); !strings.Contains(again, "up-to-date") {
		t.Errorf("the commit whose release failed was not kept:\n%s", again)
	}
	change(t, dir, "second") // a commit of its own, with nothing in it
	p.Push(t, dir, app)
	p.Answers(t, app, "/", "second green")

	// The CLI shows a rollback's command as it runs.
	text, err = p.Heroku(t, dir, "rollback", "v3", "-a", app)
	if err != nil || !strings.Contains(text, "migrating first in release.") {
		t.Errorf("rollback: %v\n%s", err, text)
	}
	settled(t, p, app, "succeeded", 8)
	p.Answers(t, app, "/", "first ")
	p.Refused(t, 422, "PATCH", "/apps/"+app+"/formation/release", map[string]any{"quantity": 1}, "cannot be scaled")
}

// An app whose first release command failed serves once what it lacked is
// there, or when it is tried again: without another push.
func TestFirstReleaseCommandFails(t *testing.T) {
	p := running(t)
	app := p.CreateApp(t)
	p.Call(t, "PATCH", "/apps/"+app+"/config-vars", map[string]any{"FAIL": "7"}, nil)
	dir := phased(t, "first")
	if out := p.Push(t, dir, app); !strings.Contains(out, "Waiting for release... failed.") {
		t.Errorf("the pusher does not read that the command failed:\n%s", out)
	}
	settled(t, p, app, "failed", 4)
	text, err := p.Heroku(t, dir, "releases:retry", "-a", app)
	if err != nil || !strings.Contains(text, "migrating first in release.") {
		t.Errorf("releases:retry: %v\n%s", err, text)
	}
	settled(t, p, app, "failed", 5)
	p.Call(t, "PATCH", "/apps/"+app+"/config-vars", map[string]any{"FAIL": nil}, nil)
	settled(t, p, app, "succeeded", 6)
	p.Answers(t, app, "/", "first")
}

// While a release command runs nothing overtakes it, whoever dies: another
// push and a change wait their turn, a pusher and a coordinator that are killed
// leave it running, and it is resolved.
func TestReleasePhaseIsNotDisturbed(t *testing.T) {
	p := running(t)
	app := p.CreateApp(t)
	dir := phased(t, "first")
	p.Push(t, dir, app)
	p.Answers(t, app, "/", "first")
	p.Call(t, "PATCH", "/apps/"+app+"/config-vars", map[string]any{"WAIT": "for a file"}, nil)

	// v4's command waits, and the coordinator is killed meanwhile.
	dyno := func(before ...string) (name string) { // before: those that may still be there
		platform.Eventually(t, 2*time.Minute, func() error {
			var dynos []struct{ Name, State string }
			p.Call(t, "GET", "/apps/"+app+"/dynos", nil, &dynos)
			for _, d := range dynos {
				if strings.HasPrefix(d.Name, "release.") && d.State == "up" && !slices.Contains(before, d.Name) {
					name = d.Name
					return nil
				}
			}
			return fmt.Errorf("no release dyno is up: %v", dynos)
		})
		return name
	}
	goOn := func(dyno string) { // the dyno may be gone before it is said that the file is there
		_ = hands{T: t, p: p}.host("exec", app+":"+dyno, "touch /tmp/go").Run()
	}
	first := dyno()
	kill9(t, p, "manifold-coordinator")
	platform.Eventually(t, time.Minute, func() error { return apiUp(p) })
	if r := newest(t, p, app); r.Status != "pending" {
		t.Errorf("after the kill v4 is %s", r.Status)
	}
	goOn(first)
	v4 := settled(t, p, app, "succeeded", 4)
	res, err := platform.Loopback.Get(*v4.Output)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	printed, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	text := string(printed)
	if strings.Count(text, "migrating first in "+first) != 1 || strings.Count(text, "step 3") != 1 {
		t.Errorf("the command's output, with a kill in its middle: %q", text)
	}

	// The pusher vanishes during v5's command; a second push comes meanwhile.
	change(t, dir, "second")
	push := p.PushCommand(t, dir, app)
	push.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := push.Start(); err != nil {
		t.Fatal(err)
	}
	second := dyno(first)
	p.PushRefused(t, dir, app, "Another push to this app is being built")
	if err := syscall.Kill(-push.Process.Pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if err := push.Wait(); err == nil {
		t.Error("a killed push succeeded")
	}
	goOn(second)
	settled(t, p, app, "succeeded", 5)
	p.Answers(t, app, "/", "second")

	// Its owner stops a command that hangs; what they change meanwhile follows.
	p.Call(t, "PATCH", "/apps/"+app+"/config-vars", map[string]any{"WAIT": "for nothing"}, nil)
	hanging := dyno(first, second)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	unset := p.HerokuCommand(ctx, t, dir, "config:unset", "WAIT", "-a", app)
	var said bytes.Buffer
	unset.Stdout, unset.Stderr = &said, &said
	if err := unset.Start(); err != nil {
		t.Fatal(err)
	}
	if text, err := p.Heroku(t, dir, "ps:stop", hanging, "-a", app); err != nil {
		t.Errorf("ps:stop: %v\n%s", err, text)
	}
	if err := unset.Wait(); err != nil {
		t.Errorf("config:unset during a release command: %v\n%s", err, said.String())
	}
	var v6 release
	p.Call(t, "GET", "/apps/"+app+"/releases/6", nil, &v6)
	if v6.Status != "failed" {
		t.Errorf("the release whose command was stopped: %+v", v6)
	}
	settled(t, p, app, "succeeded", 7)
	p.Answers(t, app, "/", "second")
}
