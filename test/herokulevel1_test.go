package test

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"manifold/test/platform"
)

// What every user's fingers know, typed into each generation of the CLI that
// is still about (make test-cli; the newest one only in make test).
func TestHerokuLevel1(t *testing.T) {
	p := running(t)
	for _, version := range platform.HerokuVersions {
		t.Run(version, func(t *testing.T) {
			u := &user{t: t, p: p, version: version, dir: platform.Sample(t, "hello"), app: "t-" + strings.ReplaceAll(version, ".", "-")}
			t.Cleanup(func() { p.DeleteApp(u.app); p.DeleteApp(u.app + "-b") })
			u.deploys()
			u.configures()
			u.scales()
			u.runs()
			u.reads()
			u.renames()
			t.Logf("heroku %s did what it was asked to:\n%s", version, u.table.String())
		})
	}
}

// user types commands; each is told with what it was seen to do.
type user struct {
	t                 *testing.T
	p                 *platform.Instance
	version, dir, app string
	table             strings.Builder
}

// types runs a command, which must succeed and print something like want.
func (u *user) types(line, want, did string) string {
	u.t.Helper()
	out, err := u.command(strings.Fields(line)...).CombinedOutput()
	if err != nil {
		u.t.Fatalf("heroku %s: %v\n%s", line, err, out)
	}
	if !regexp.MustCompile(want).Match(out) {
		u.t.Errorf("heroku %s does not print %q:\n%s", line, want, out)
	}
	fmt.Fprintf(&u.table, "  %-34s %s\n", line, did)
	return string(out)
}

func (u *user) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(u.t.Context(), 2*time.Minute)
	u.t.Cleanup(cancel)
	return u.p.HerokuCommandOf(ctx, u.t, u.version, u.dir, args...)
}

func (u *user) deploys() {
	u.types("create "+u.app, u.app, "the app is there, its git remote too")
	if remote := platform.Git(u.t, u.dir, "remote", "get-url", "heroku"); !strings.Contains(remote, u.p.TLS+"/"+u.app+".git") {
		u.t.Errorf("git remote heroku is %s", remote)
	}
	platform.Git(u.t, u.dir, "remote", "remove", "heroku")
	u.types("git:remote -a "+u.app, "set git remote", "the remote is back")
	u.types("stack", "cedar", "cedar is the one in use")
	u.types("stack:set cedar", "(?i)cedar", "stays cedar")
	u.types("whoami", "admin@localhost", "the token's user")
	u.p.Push(u.t, u.dir, u.app)
	u.p.Answers(u.t, u.app, "/", "release v3")
}

func (u *user) configures() {
	u.types("config:set COLOUR=green", "COLOUR: +green", "release v4 serves")
	u.p.Answers(u.t, u.app, "/", "release v4")
	u.types("config:get COLOUR", "green", "the value")
	u.types("config", "COLOUR: +green", "all values")
	u.types("config:unset COLOUR", "(?i)unsetting", "release v5 serves")
	u.p.Answers(u.t, u.app, "/", "release v5")
	u.types("releases", "(?s)v5.*v4.*Set COLOUR config vars.*v1", "all five, in Heroku's words")
	u.types("releases:info v4", "COLOUR", "v4 with its config vars")
	u.types("rollback v4", "v4", "release v6 serves with v4's config")
	u.p.Answers(u.t, u.app, "/", "release v6")
	u.types("config:get COLOUR", "green", "v4's value")
}

func (u *user) scales() {
	u.types("ps:scale web=2", "web at 2", "both answer")
	dynosAnswer(u.t, u.p, u.app, "web.1", "web.2")
	platform.Eventually(u.t, time.Minute, func() error { return dynosUp(u.t, u.p, u.app, "web.1", "web.2") })
	u.types("ps", `(?s)web\.1: up.*web\.2: up`, "both, up")
	u.types("ps:type", "(?i)standard-1x", "types and sizes")
	for what, replaced := range map[string][]string{"ps:restart web.2": {"web.2"}, "ps:restart web": {"web.1", "web.2"}, "ps:restart": {"web.1", "web.2"}} {
		before := dynoIDs(u.t, u.p, u.app)
		u.types(what, "(?i)restarting", fmt.Sprintf("%v replaced, no other", replaced))
		platform.Eventually(u.t, time.Minute, func() error { return dynosReplaced(u.t, u.p, u.app, before, replaced...) })
	}
	u.types("ps:scale web=1", "web at 1", "web.2 is gone")
	platform.Eventually(u.t, time.Minute, func() error { return dynosUp(u.t, u.p, u.app, "web.1") })
	u.types("ps:wait", "(?s).*", "returned")
	u.types("maintenance:on", "(?i)enabling", "visitors get 503")
	platform.Eventually(u.t, 20*time.Second, func() error { return u.answers(503) })
	u.types("maintenance", "on", "it says so")
	u.types("maintenance:off", "(?i)disabling", "visitors get the app again")
	platform.Eventually(u.t, 20*time.Second, func() error { return u.answers(200) })
}

func (u *user) answers(want int) error {
	status, _, err := u.p.Visit(u.app, "/")
	if err != nil || status != want {
		return fmt.Errorf("%s answers %d %w, want %d", u.app, status, err, want)
	}
	return nil
}

func (u *user) runs() {
	out, err := u.command("run", "-x", "--no-tty", "--", "echo one-off in $DYNO; (exit 7)").CombinedOutput()
	if exitStatus(u.t, err) != 7 || !strings.Contains(string(out), "one-off in run.") {
		u.t.Errorf("heroku run -x: %v\n%s", err, out)
	}
	fmt.Fprintf(&u.table, "  %-34s %s\n", "run -x --no-tty -- …", "output and exit status 7 came back")
	u.types("run:detached echo detached was here", `run\.`, "its line is in the log")
	platform.Eventually(u.t, time.Minute, func() error { return u.p.LogContains(u.t, u.app, "detached was here") })
}

func (u *user) reads() {
	logs := u.types("logs -n 20", `heroku\[|app\[`, "at most 20 lines")
	if n := len(regexp.MustCompile(`(?m)^\d{4}-`).FindAllString(logs, -1)); n > 20 {
		u.t.Errorf("logs -n 20 printed %d lines", n)
	}
	if out := u.types("logs -s heroku", `heroku\[`, "the platform's lines only"); strings.Contains(out, " app[") {
		u.t.Errorf("logs -s heroku:\n%s", out)
	}
	tail := u.command("logs", "--tail")
	var seen platform.Buffer
	tail.Stdout, tail.Stderr = &seen, &seen
	if err := tail.Start(); err != nil {
		u.t.Fatal(err)
	}
	platform.Eventually(u.t, time.Minute, func() error {
		if _, _, err := u.p.Visit(u.app, "/followed"); err != nil {
			return err
		}
		if !strings.Contains(seen.String(), "/followed") {
			return fmt.Errorf("logs --tail printed:\n%s", seen.String())
		}
		return nil
	})
	_ = tail.Process.Kill()
	_ = tail.Wait()
	fmt.Fprintf(&u.table, "  %-34s %s\n", "logs --tail", "a request made meanwhile came by")
}

func (u *user) renames() {
	u.types("apps:rename "+u.app+"-b", u.app+"-b", "the new name serves")
	u.p.Answers(u.t, u.app+"-b", "/", "Hello")
	u.types("apps:info", u.app+"-b", "web and git address")
	u.types("apps", u.app+"-b", "the app is listed")
	u.types("apps:destroy --confirm "+u.app+"-b", "(?i)destroying", "gone")
	if status, _ := u.p.Request(u.t, "GET", "/apps/"+u.app+"-b", u.p.Token, nil); status != 404 {
		u.t.Errorf("the destroyed app answers %d", status)
	}
}
