package test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"manifold/test/platform"
)

// session is a user at one CLI: what is typed, and what came of it.
type session struct {
	t          *testing.T
	p          *platform.Instance
	version    string // of the CLI
	dir        string
	env        []string // beside that of `manifold env`
	transcript *strings.Builder
}

// newSession is a user at the newest CLI, whose transcript is kept.
func newSession(t *testing.T, p *platform.Instance, dir string, env ...string) *session {
	s := &session{t: t, p: p, version: platform.HerokuVersions[0], dir: dir, env: env, transcript: &strings.Builder{}}
	t.Cleanup(s.keep)
	return s
}

// does gives the CLI a line, as a test of its own: it must end well and print
// something like want; check looks at what it did, of which checked is the
// sentence in the table of commands.
func (s *session) does(command, line, want, checked string, check func(s *session, out string)) {
	s.t.Helper()
	s.shows(command, checked, func(s *session) {
		out := s.run(line)
		if !regexp.MustCompile(want).MatchString(out) {
			s.t.Errorf("heroku %s does not print %q:\n%s", line, want, out)
		}
		if check != nil {
			check(s, out)
		}
	})
}

// shows is a row of the table of commands whose check types for itself.
func (s *session) shows(command, checked string, check func(s *session)) {
	s.t.Helper()
	s.t.Run(strings.ReplaceAll(command, " ", "_"), func(t *testing.T) {
		claim(t, s.version, command, checked)
		on := *s
		on.t = t
		check(&on)
	})
}

// command is a line of the CLI for a test that gives it a terminal or input.
func (s *session) command(args ...string) *exec.Cmd {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	s.t.Cleanup(cancel)
	cmd := s.p.HerokuCommandOf(ctx, s.t, s.version, s.dir, args...)
	cmd.Env = append(cmd.Env, s.env...)
	return cmd
}

// run runs one line, which must succeed and print each of want.
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

// try runs one line, which may fail.
func (s *session) try(line string) (string, error) {
	s.t.Helper()
	return s.typed(line, s.command(strings.Fields(line)...))
}

func (s *session) typed(line string, cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	fmt.Fprintf(s.transcript, "$ heroku %s\n%s\n", line, out)
	return string(out), err
}

// refused runs one line, which must fail and print each of want.
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

// answering is a web app whose answer names its version, COLOUR, dyno and
// release.
func answering(version string) string {
	return `import os, http.server
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ("` + version + ` " + os.environ.get("COLOUR", "nothing") + " " + os.environ["DYNO"] + " " + os.environ["HEROKU_RELEASE_VERSION"]).encode()
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
	Release                        struct{ Version int }
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
	return areUp(dynos(t, p, app), names...)
}

func areUp(all []dyno, names ...string) error {
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
	all := dynos(t, p, app)
	if err := areUp(all, slices.Collect(maps.Keys(before))...); err != nil {
		return err
	}
	for _, d := range all {
		switch replaced := before[d.Name] != d.ID; {
		case replaced && !slices.Contains(names, d.Name):
			t.Fatalf("%s is another dyno; only %v should be", d.Name, names)
		case !replaced && slices.Contains(names, d.Name):
			return fmt.Errorf("%s is still the same dyno", d.Name)
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
