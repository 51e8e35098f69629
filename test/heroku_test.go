package test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"manifold/test/platform"
)

// session is a transcript of the real heroku CLI.
type session struct {
	t          *testing.T
	p          *platform.Instance
	dir        string
	env        []string // beside that of `manifold env`
	transcript strings.Builder
}

// run runs one command, which must succeed and print each of want.
func (s *session) run(line string, want ...string) string {
	s.t.Helper()
	out, err := s.try(line)
	if err != nil {
		s.t.Fatalf("heroku %s: %v\n%s", line, err, out)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			s.t.Errorf("heroku %s does not print %q:\n%s", line, w, out)
		}
	}
	return out
}

// try runs one command, which may fail.
func (s *session) try(line string) (string, error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := s.p.HerokuCommand(ctx, s.t, s.dir, strings.Fields(line)...)
	cmd.Env = append(cmd.Env, s.env...)
	out, err := cmd.CombinedOutput()
	fmt.Fprintf(&s.transcript, "$ heroku %s\n%s\n", line, out)
	return string(out), err
}

// refused runs one command, which must fail and print each of want.
func (s *session) refused(line string, want ...string) {
	s.t.Helper()
	out, err := s.try(line)
	if err == nil {
		s.t.Errorf("heroku %s was not refused:\n%s", line, out)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			s.t.Errorf("heroku %s does not print %q:\n%s", line, w, out)
		}
	}
}

// The unmodified heroku CLI from npm, and after each command a look at what
// really happened.
func TestHerokuCLI(t *testing.T) {
	p := running(t)
	s := &session{t: t, p: p, dir: platform.Repository(t, map[string]string{
		"Procfile":         "web: python3 app.py\nworker: python3 worker.py\n",
		"requirements.txt": "",
		"app.py":           answering("one"),
		"worker.py":        "import os, time\nprint('worker', os.environ['DYNO'], 'says', os.environ.get('COLOUR', 'nothing'), flush=True)\ntime.sleep(1e6)\n",
	})}
	t.Cleanup(func() { s.keep() })

	out := s.run("create", "Creating app", ".git")
	app := regexp.MustCompile(`https?://([a-z0-9-]+)\.localhost`).FindStringSubmatch(out)
	if app == nil {
		t.Fatalf("heroku create names no app:\n%s", out)
	}
	name := app[1]
	t.Cleanup(func() { p.DeleteApp(name) })
	if remote := platform.Git(t, s.dir, "remote", "get-url", "heroku"); !strings.Contains(remote, "https://"+p.TLS+"/"+name+".git") {
		t.Errorf("git remote heroku is %s", remote)
	}
	s.run("stack", "cedar")

	p.Push(t, s.dir, name)
	p.Answers(t, name, "/", "one")
	s.run("ps", "web.1: up")

	s.run("ps:scale web=2 worker=1", "web", "2")
	dynosAnswer(t, p, name, "web.1", "web.2")
	platform.Eventually(t, 60*time.Second, func() error { return dynosUp(t, p, name, "web.1", "web.2", "worker.1") })
	s.run("ps", "web.1: up", "web.2: up", "worker.1: up")

	before := dynoIDs(t, p, name)
	s.run("ps:restart worker.1", "Restarting")
	platform.Eventually(t, 90*time.Second, func() error { return dynosReplaced(t, p, name, before, "worker.1") })
	before = dynoIDs(t, p, name)
	s.run("ps:restart", "Restarting")
	platform.Eventually(t, 90*time.Second, func() error { return dynosReplaced(t, p, name, before, "web.1", "web.2", "worker.1") })

	s.run("config:set COLOUR=green", "COLOUR: green", "v4")
	p.Answers(t, name, "/", "one green")

	platform.Write(t, s.dir, map[string]string{"app.py": answering("two")})
	platform.Commit(t, s.dir)
	p.Push(t, s.dir, name)
	p.Answers(t, name, "/", "two green")

	s.run("releases", "v5", "Deploy", "v4", "Set COLOUR config vars", "v3", "v2", "v1", "Initial release")
	s.run("rollback", "v6")
	p.Answers(t, name, "/", "one green") // v4: the old slug with its config
	s.run("releases", "Rollback to v4")
	s.run("rollback v3", "v7")
	p.Answers(t, name, "/", "one nothing") // v3 had no COLOUR

	platform.Eventually(t, 30*time.Second, func() error {
		out, err := p.Heroku(t, s.dir, "logs", "-n", "50")
		if err != nil || !strings.Contains(out, "app[worker.1]: worker worker.1 says nothing") {
			return fmt.Errorf("logs: %v\n%s", err, out)
		}
		return nil
	})
	logs := s.run("logs -n 50", "heroku[web.1]: ", "heroku[router]: at=info", "app[worker.1]: worker worker.1 says nothing")
	if n := strings.Count(strings.TrimSpace(logs), "\n") + 1; n > 50 {
		t.Errorf("logs -n 50 printed %d lines", n)
	}
}

// answering is a web app whose answer names its version, COLOUR and dyno.
func answering(version string) string {
	return `import os, http.server
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ("` + version + ` " + os.environ.get("COLOUR", "nothing") + " " + os.environ["DYNO"]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Answer).serve_forever()
`
}

// keep writes the transcript where a person finds it.
func (s *session) keep() {
	text := regexp.MustCompile(`mfld_[\w-]+`).ReplaceAllString(s.transcript.String(), "TOKEN")
	s.t.Logf("transcript:\n%s", text)
	path := filepath.Join(platform.Cache, "transcripts", s.t.Name()+".txt")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Error(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Error(err)
	}
}

type dyno struct {
	ID, Name, State, Type, Command string
}

func dynos(t *testing.T, p *platform.Instance, app string) (all []dyno) {
	t.Helper()
	p.Call(t, "GET", "/apps/"+app+"/dynos", nil, &all)
	return all
}

func dynoIDs(t *testing.T, p *platform.Instance, app string) map[string]string {
	t.Helper()
	ids := map[string]string{}
	for _, d := range dynos(t, p, app) {
		ids[d.Name] = d.ID
	}
	return ids
}

// dynosUp says whether exactly these dynos are there and up.
func dynosUp(t *testing.T, p *platform.Instance, app string, names ...string) error {
	t.Helper()
	all := dynos(t, p, app)
	want := map[string]bool{}
	for _, n := range names {
		want[n] = true
	}
	for _, d := range all {
		if !want[d.Name] || d.State != "up" {
			text, _ := json.Marshal(all)
			return fmt.Errorf("dynos are %s, want %v up", text, names)
		}
		delete(want, d.Name)
	}
	if len(want) > 0 {
		return fmt.Errorf("dynos %v are missing", want)
	}
	return nil
}

// dynosReplaced says whether of the dynos in before exactly these are others
// now, and all are up.
func dynosReplaced(t *testing.T, p *platform.Instance, app string, before map[string]string, names ...string) error {
	t.Helper()
	if err := dynosUp(t, p, app, slices.Collect(maps.Keys(before))...); err != nil {
		return err
	}
	for dyno, id := range dynoIDs(t, p, app) {
		switch replaced := before[dyno] != id; {
		case replaced && !slices.Contains(names, dyno):
			t.Fatalf("%s is another dyno; only %v should be", dyno, names)
		case !replaced && slices.Contains(names, dyno):
			return fmt.Errorf("%s is still the same dyno", dyno)
		}
	}
	return nil
}

// dynosAnswer asks the router until each of names has answered a request.
func dynosAnswer(t *testing.T, p *platform.Instance, app string, names ...string) {
	t.Helper()
	missing := map[string]bool{}
	for _, n := range names {
		missing[n] = true
	}
	took := platform.Eventually(t, 90*time.Second, func() error {
		status, body, err := p.Visit(app, "/")
		if err != nil || status != 200 {
			return fmt.Errorf("%d %q %w", status, body, err)
		}
		for n := range missing {
			if strings.Contains(body, n) {
				delete(missing, n)
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("no answer yet from %v", missing)
		}
		return nil
	})
	t.Logf("measured: %v of %s all answered %.1f s after the scale", names, app, took.Seconds())
}
