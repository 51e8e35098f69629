package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"manifold/test/platform"
)

// What every user's fingers know, typed into each generation of the CLI that
// is still about (make test-cli; the newest one only in make test), and after
// each command a look at what really happened.
func TestHerokuLevel1(t *testing.T) {
	p := running(t)
	for _, version := range platform.HerokuVersions {
		t.Run(version, func(t *testing.T) {
			u := &level1{newSession(t, p, platform.Repository(t, map[string]string{
				"Procfile":         "web: python3 app.py\nworker: python3 worker.py\n",
				"requirements.txt": "",
				"app.py":           answering("one"),
				"worker.py":        "import os, time\nprint(os.environ['DYNO'], 'may have', open('/sys/fs/cgroup/memory.max').read(), flush=True)\ntime.sleep(1e6)\n",
			})), "t-" + strings.ReplaceAll(version, ".", "-")}
			u.version = version
			t.Cleanup(func() { p.DeleteApp(u.app); p.DeleteApp(u.app + "-b") })
			u.deploys()
			if t.Failed() {
				return // all that follows is done to that app
			}
			u.looks()
			u.configures()
			u.rollsBack()
			u.scales()
			u.restarts()
			u.runs()
			u.reads()
			u.hides()
		})
	}
}

// level1 is a user with one app.
type level1 struct {
	*session
	app string
}

// answers waits for what the app answers, from any of its dynos.
func (u *level1) answers(want string) func(*session, string) {
	return func(s *session, _ string) { s.p.Answers(s.t, u.app, "/", want) }
}

func (u *level1) deploys() {
	remote := func(s *session, _ string) {
		if url := platform.Git(s.t, s.dir, "remote", "get-url", "heroku"); !strings.Contains(url, "https://"+s.p.TLS+"/"+u.app+".git") {
			s.t.Errorf("git remote heroku is %s", url)
		}
	}
	u.does("create", "create "+u.app, u.app, "the app is there, and the repository's git remote", func(s *session, _ string) {
		s.p.Call(s.t, "GET", "/apps/"+u.app, nil, nil)
		remote(s, "")
	})
	platform.Git(u.t, u.dir, "remote", "remove", "heroku")
	u.does("git:remote", "git:remote -a "+u.app, "set git remote", "the git remote is there again", remote)
	u.shows("git push heroku main", "over TLS, the CLI gave git the password; the app answers", func(s *session) {
		git := s.command()
		git.Path, git.Args = "/usr/bin/git", []string{"git", "push", "heroku", "main"}
		if out, err := s.typed("(git push heroku main)", git); err != nil {
			s.t.Fatalf("git push heroku main: %v\n%s", err, out)
		}
		u.answers("one nothing web.1 v3")(s, "")
	})
	to := filepath.Join(u.t.TempDir(), "clone")
	u.does("git:clone", "git:clone -a "+u.app+" "+to, "", "the clone's commit is the one that was pushed", func(s *session, _ string) {
		if pushed, cloned := platform.Git(s.t, s.dir, "rev-parse", "HEAD"), platform.Git(s.t, to, "rev-parse", "HEAD"); pushed != cloned {
			s.t.Errorf("pushed is %s, cloned %s", pushed, cloned)
		}
	})
}

func (u *level1) looks() {
	u.does("whoami", "whoami", "admin@localhost", "it is the token's user", nil)
	u.does("stack", "stack", `(?m)^\* cedar`, "the app's stack is marked", nil)
	u.does("stack:set", "stack:set cedar", "cedar", "it is the app's build stack", func(s *session, _ string) {
		var app struct {
			Stack struct{ Name string } `json:"build_stack"`
		}
		if s.p.Call(s.t, "GET", "/apps/"+u.app, nil, &app); app.Stack.Name != "cedar" {
			s.t.Errorf("the build stack is %q", app.Stack.Name)
		}
	})
	opened := filepath.Join(u.t.TempDir(), "opened")
	platform.Write(u.t, filepath.Dir(opened), map[string]string{"browser": "#!/bin/sh\necho \"$@\" >" + opened + ".new; mv " + opened + ".new " + opened + "\n"})
	u.shows("open", "a browser was started with the app's address, which answers", func(s *session) {
		s.env = append(s.env, "BROWSER="+filepath.Join(filepath.Dir(opened), "browser"))
		s.run("open")
		platform.Eventually(s.t, time.Minute, func() error {
			if text, err := os.ReadFile(opened); err != nil || !strings.HasPrefix(string(text), "http://"+u.app+".localhost:") {
				return fmt.Errorf("the browser was given %q, %v", text, err)
			}
			return nil
		})
	})
}

func (u *level1) configures() {
	u.does("config:set", "config:set COLOUR=green", "COLOUR: +green", "release v4, whose dynos have the value", u.answers("one green web.1 v4"))
	u.does("config:get", "config:get COLOUR", "(?m)^green$", "it prints the value alone", nil)
	u.does("config", "config", "COLOUR: +green", "it lists the value", nil)
	platform.Write(u.t, u.dir, map[string]string{"app.py": answering("two")})
	platform.Commit(u.t, u.dir)
	u.p.Push(u.t, u.dir, u.app)
	u.p.Answers(u.t, u.app, "/", "two green web.1 v5")
	u.shows("config:edit", "an editor changed the value; release v6 has it", func(s *session) {
		editor := filepath.Join(s.t.TempDir(), "editor")
		platform.Write(s.t, filepath.Dir(editor), map[string]string{"editor": "#!/bin/sh\nexec sed -i s/green/blue/ \"$1\"\n"})
		cmd := s.command("config:edit")
		cmd.Env = append(cmd.Env, "EDITOR="+editor, "VISUAL="+editor)
		c := inTerminal(s.t, cmd)
		c.expect("Update config on")
		c.enter("y\r")
		if status := c.exit(); status != 0 {
			s.t.Errorf("config:edit ends with %d", status)
		}
		u.answers("two blue web.1 v6")(s, "")
	})
	u.does("config:unset", "config:unset COLOUR", "(?i)unsetting", "release v7, whose dynos have it no more", u.answers("two nothing web.1 v7"))
}

func (u *level1) rollsBack() {
	u.does("releases", "releases", `(?s)v7.*v6.*v5.*Deploy [0-9a-f]{8}.*v4.*Set COLOUR config vars.*v1.*Initial release`, "all seven, newest first, in Heroku's words", nil)
	u.does("releases:info", "releases:info v4", "(?s)Set COLOUR config vars.*COLOUR: +green", "v4 with the config vars of that time", nil)
	u.does("rollback vN", "rollback v4", "v4", "the old code answers, with its config vars of then", u.answers("one green web.1 v8"))
	u.does("rollback", "rollback", "v7", "the code and config of the release before answer", u.answers("two nothing web.1 v9"))
}

func (u *level1) scales() {
	u.does("ps:scale", "ps:scale web=2 worker=1", "web at 2", "web.1 and web.2 answer, a worker runs; scaled down, gone", func(s *session, _ string) {
		dynosAnswer(s.t, s.p, u.app, "web.1", "web.2")
		platform.Eventually(s.t, time.Minute, func() error { return dynosUp(s.t, s.p, u.app, "web.1", "web.2", "worker.1") })
	})
	u.does("ps:type", "ps:type worker=standard-2x", "(?i)worker.*standard-2x", "the worker sees 1 GB as its memory limit", func(s *session, _ string) {
		platform.Eventually(s.t, time.Minute, func() error { return s.p.LogContains(s.t, u.app, "worker.1 may have 1073741824") })
	})
	u.shows("ps:wait", "typed after a release, it ends when every dyno runs it", func(s *session) {
		s.p.Call(s.t, "PATCH", "/apps/"+u.app+"/config-vars", map[string]string{"SHAPE": "round"}, nil)
		s.run("ps:wait")
		for _, d := range dynos(s.t, s.p, u.app) {
			if d.State != "up" || d.Release.Version != 10 {
				s.t.Errorf("%s of v%d is %s", d.Name, d.Release.Version, d.State)
			}
		}
	})
	u.does("ps", "ps", `(?s)web\.1: up.*web\.2: up.*\(Standard-2X\).*worker\.1: up`, "each dyno with its state, each type with its size", nil)
}

func (u *level1) restarts() {
	ofType := "ps:restart --process-type web"
	if strings.HasPrefix(u.version, "9.") {
		ofType = "ps:restart web"
	}
	for _, r := range []struct {
		command, line, checked string
		replaced               []string
	}{
		{"ps:restart DYNO", "ps:restart web.2", "web.2 is another dyno now, all others are the same", []string{"web.2"}},
		{"ps:restart TYPE", ofType, "web.1 and web.2 are others now, the worker is the same", []string{"web.1", "web.2"}},
		{"ps:restart", "ps:restart", "every dyno is another one", []string{"web.1", "web.2", "worker.1"}},
	} {
		var before map[string]string
		platform.Eventually(u.t, time.Minute, func() error { return dynosUp(u.t, u.p, u.app, "web.1", "web.2", "worker.1") })
		before = dynoIDs(u.t, u.p, u.app)
		u.does(r.command, r.line, "(?i)restarting", r.checked, func(s *session, _ string) {
			platform.Eventually(s.t, time.Minute, func() error { return dynosReplaced(s.t, s.p, u.app, before, r.replaced...) })
		})
	}
	u.does("ps:scale", "ps:scale web=1 worker=0", "web at 1", "", func(s *session, _ string) {
		platform.Eventually(s.t, time.Minute, func() error { return dynosUp(s.t, s.p, u.app, "web.1") })
	})
}

func (u *level1) runs() {
	u.shows("run", "input and output piped through a dyno, its exit status (-x)", func(s *session) {
		cmd := s.command("run", "-x", "--no-tty", "--", "tr a-z A-Z; (exit 7)")
		cmd.Stdin = strings.NewReader("in and out\n")
		if out, err := s.typed("run -x --no-tty -- 'tr a-z A-Z; (exit 7)'", cmd); exitStatus(s.t, err) != 7 || !strings.Contains(out, "IN AND OUT") {
			s.t.Errorf("heroku run -x: %v\n%s", err, out)
		}
	})
	u.shows("run bash", "a shell on a terminal of the user's size, with the app's code", func(s *session) {
		c := inTerminal(s.t, s.command("run", "-x", "bash"))
		c.expect(prompt)
		c.enter("stty size; ls; echo in $DYNO\n")
		c.expect(`33 101\s+Procfile\s+app.py\s[^$]*in run\.\d+\s`)
		c.enter("exit 3\n")
		if status := c.exit(); status != 3 {
			s.t.Errorf("exit status %d, want 3", status)
		}
	})
	u.does("run:detached", "run:detached echo was here", `run\.`, "its line is in the log", func(s *session, out string) {
		name := regexp.MustCompile(`run\.\d+`).FindString(out)
		platform.Eventually(s.t, time.Minute, func() error { return s.p.LogContains(s.t, u.app, "app["+name+"]: was here") })
	})
}

func (u *level1) reads() {
	// lines are the sources and processes that a reading of the log shows.
	lines := func(out string) (of []string) {
		for _, found := range regexp.MustCompile(`(?m)^\d{4}-\S+ (\w+\[[\w.]+\]): `).FindAllStringSubmatch(out, -1) {
			of = append(of, found[1])
		}
		return of
	}
	only := func(like string) func(*session, string) {
		return func(s *session, out string) {
			for _, of := range lines(out) {
				if !regexp.MustCompile(like).MatchString(of) {
					s.t.Errorf("a line of %s, which is not like %s", of, like)
				}
			}
		}
	}
	u.does("logs -n", "logs -n 20", `heroku\[|app\[`, "twenty lines", func(s *session, out string) {
		if n := len(lines(out)); n != 20 {
			s.t.Errorf("%d lines", n)
		}
	})
	u.does("logs -s", "logs -s app -n 50", `app\[`, "lines of the app and its API alone", only(`^app\[`))
	u.does("logs -d", "logs -d web.1", `\[web\.1\]`, "lines of that dyno alone", only(`\[web\.1\]$`))
	u.does("logs -p", "logs -p web", `\[web\.`, "lines of dynos of that type alone", only(`\[web\.\d\]$`))
	u.shows("logs --tail", "a request made meanwhile came by", func(s *session) {
		tail := s.command("logs", "--tail")
		var seen platform.Buffer
		tail.Stdout, tail.Stderr = &seen, &seen
		if err := tail.Start(); err != nil {
			s.t.Fatal(err)
		}
		platform.Eventually(s.t, time.Minute, func() error {
			if _, _, err := s.p.Visit(u.app, "/followed"); err != nil {
				return err
			}
			if !strings.Contains(seen.String(), "/followed") {
				return fmt.Errorf("logs --tail printed:\n%s", seen.String())
			}
			return nil
		})
		_ = tail.Process.Kill()
		_ = tail.Wait()
	})
}

// hides takes the app out of its visitors' sight, and away to another name.
func (u *level1) hides() {
	visitors := func(app string, want int, page string) func(*session, string) {
		return func(s *session, _ string) {
			platform.Eventually(s.t, time.Minute, func() error {
				status, body, err := s.p.Visit(app, "/")
				if err != nil || status != want || !strings.Contains(body, page) {
					return fmt.Errorf("%s answers %d %.200q %w, want %d %q", app, status, body, err, want, page)
				}
				return nil
			})
		}
	}
	u.does("maintenance:on", "maintenance:on", "(?i)enabling", "visitors get 503 and the page", visitors(u.app, 503, "maintenance"))
	u.does("maintenance", "maintenance", "(?m)^on$", "it says so", nil)
	u.does("maintenance:off", "maintenance:off", "(?i)disabling", "visitors get the app again", visitors(u.app, 200, "two"))
	u.does("apps:rename", "apps:rename "+u.app+"-b", u.app+"-b", "the app answers at its new name and not at the old one", func(s *session, _ string) {
		visitors(u.app+"-b", 200, "two")(s, "")
		visitors(u.app, 404, "")(s, "")
	})
}
