package test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"manifold/test/platform"
)

// someone makes a user with an address nobody has.
func someone(t *testing.T, p *platform.Instance) (email, token string) {
	t.Helper()
	email = strings.ToLower(rand.Text()[:10]) + "@example.com"
	return email, p.AddUser(t, email)
}

// statusOf asks a router for a host name's front page.
func statusOf(p *platform.Instance, host string) (int, string) {
	req, err := http.NewRequest("GET", "http://"+p.Router+"/", nil)
	if err != nil {
		return 0, err.Error()
	}
	req.Host = host
	res, err := platform.Loopback.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	return res.StatusCode, res.Header.Get("X-Test")
}

// An app from creation to destruction: who may push, which names it answers
// to, its switches, and that nothing of it is left.
func TestHerokuApps(t *testing.T) {
	p := running(t)
	s := &session{t: t, p: p, dir: platform.Sample(t, "static")}
	t.Cleanup(s.keep)
	name := p.CreateApp(t)
	on := " -a " + name
	p.Push(t, s.dir, name)
	p.Answers(t, name, "/", "")
	s.run("apps", name)
	s.run("apps:info"+on, "Owner:", "admin@localhost", "Web URL:", name+".localhost")

	// access
	email, token := someone(t, p)
	other := &session{t: t, p: p, dir: s.dir, env: []string{"HEROKU_API_KEY=" + token}}
	other.run("apps", "no apps")
	other.refused("ps"+on, "no app of yours")
	push := func(branch string) (string, error) {
		platform.Commit(t, s.dir)
		return p.TryPush(t, s.dir, name, branch, token)
	}
	if out, err := push("main"); err == nil || !strings.Contains(out, "You have no app") && !strings.Contains(out, "not found") {
		t.Errorf("a stranger's push: %v\n%s", err, out)
	}
	s.run("access:add "+email+on, email)
	s.run("access"+on, email, "collaborator")
	other.run("apps", "Collaborated", name)
	other.run("apps:info"+on, "admin@localhost", email)
	if out, err := push("main"); err != nil {
		t.Errorf("a collaborator's push: %v\n%s", err, out)
	}
	other.refused("apps:destroy --confirm "+name+on, "only its owner")
	s.run("access:remove "+email+on, email)
	other.refused("config"+on, "no app of yours")
	if out, err := push("side"); err == nil {
		t.Errorf("the push of one who is no collaborator any more:\n%s", out)
	}

	// another owner, who declines; then the operator removes them
	s.run("apps:transfer "+email+on, "Initiating transfer", email)
	if status, text := p.Request(t, "PATCH", "/account/app-transfers/"+name, token, []byte(`{"state":"declined"}`)); status != 200 || !strings.Contains(string(text), "declined") {
		t.Errorf("a transfer is declined: %d %s", status, text)
	}
	p.Coordinator(t, email+"\n", "user", "remove", email) // asks for the address
	if status, text := p.Request(t, "GET", "/account", token, nil); status != 401 {
		t.Errorf("the token of one who was removed: %d %s", status, text)
	}

	// domains
	host := name + ".example.com"
	s.run("domains:add "+host+on, host)
	s.run("domains:add *.wild."+host+on, "wild")
	for _, h := range []string{host, "x.wild." + host, strings.ToUpper(host)} {
		platform.Eventually(t, 20*time.Second, func() error {
			if status, why := statusOf(p, h); status != 200 {
				return fmt.Errorf("%s answers %d %s", h, status, why)
			}
			return nil
		})
	}
	s.run("domains"+on, host, name+".localhost")
	s.refused("domains:add "+host+" -a "+p.CreateApp(t), "in use by another app")
	s.refused("domains:add localhost"+on, "not a public domain name")
	s.run("domains:remove "+host+on, host)
	platform.Eventually(t, 20*time.Second, func() error {
		if status, _ := statusOf(p, host); status == 200 {
			return fmt.Errorf("%s still answers", host)
		}
		return nil
	})

	// features, maintenance
	s.run("features"+on, "preboot", "daily-cycling")
	s.run("features:enable log-runtime-metrics"+on, "done")
	var f struct{ Enabled bool }
	p.Call(t, "GET", "/apps/"+name+"/features/log-runtime-metrics", nil, &f)
	if !f.Enabled {
		t.Error("the feature is not on")
	}
	s.run("features:disable log-runtime-metrics"+on, "done")
	s.run("labs" + on)
	s.run("maintenance:on"+on, "done")
	platform.Eventually(t, 20*time.Second, func() error {
		if status, _ := statusOf(p, name+".localhost"); status != 503 {
			return fmt.Errorf("an app in maintenance answers %d", status)
		}
		return nil
	})
	s.run("maintenance:off"+on, "done")
	p.Answers(t, name, "/", "")
	s.run("ps:wait"+on, "")

	s.audited(name, email, "Add domain "+host, "Enable maintenance mode", "by git push")
	s.destroyed(name)
}

// audited reads the trail as the owner does.
func (s *session) audited(app, collaborator string, actions ...string) {
	s.t.Helper()
	out, err := s.p.Manifold(s.t, "audit", app)
	if err != nil {
		s.t.Fatalf("manifold audit: %v\n%s", err, out)
	}
	for _, w := range append(actions, "Add "+collaborator+" as collaborator", "Remove "+collaborator+" as collaborator", "127.0.0.1") {
		if !strings.Contains(out, w) {
			s.t.Errorf("manifold audit does not print %q:\n%s", w, out)
		}
	}
}

// destroyed destroys an app, and looks on the disk for what is left of it.
func (s *session) destroyed(name string) {
	s.t.Helper()
	var app struct{ ID string }
	s.p.Call(s.t, "GET", "/apps/"+name, nil, &app)
	left := func() (paths []string) {
		for _, pattern := range []string{"git/", "cache/", "logs/"} {
			found, _ := filepath.Glob(filepath.Join(s.p.Home, "coordinator", pattern) + "/*" + app.ID + "*")
			paths = append(paths, found...)
		}
		return paths
	}
	if len(left()) < 2 {
		s.t.Errorf("of a living app there is only %v", left())
	}
	s.run("apps:destroy --confirm "+name+" -a "+name, "done")
	if now := left(); len(now) > 0 {
		s.t.Errorf("a destroyed app leaves %v", now)
	}
	s.refused("apps:info -a "+name, "no app of yours")
	platform.Eventually(s.t, 60*time.Second, func() error {
		if status, _ := statusOf(s.p, name+".localhost"); status == 200 {
			return fmt.Errorf("a destroyed app still answers")
		}
		return nil
	})
}

// Tokens and keys with the real CLI.
func TestHerokuAccount(t *testing.T) {
	p := running(t)
	email, token := someone(t, p)
	s := &session{t: t, p: p, dir: t.TempDir(), env: []string{"HEROKU_API_KEY=" + token}}
	t.Cleanup(s.keep)
	s.run("auth:whoami", email)
	s.run("auth:token", token)
	s.run("regions", "")
	s.run("addons --all", "")

	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ada@desk"
	platform.Write(t, s.dir, map[string]string{"key.pub": key + "\n"})
	s.run("keys:add " + filepath.Join(s.dir, "key.pub"))
	s.run("keys", "ada@desk")
	s.run("keys:remove ada@desk", "done")
	s.run("keys", "no SSH keys")

	out := s.run("authorizations:create -d reader -s read -e 3600 --json", "reader")
	var made struct {
		ID          string
		AccessToken struct{ Token string } `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(out[strings.IndexByte(out+"{", '{'):]), &made); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	s.run("authorizations", made.ID, "reader")
	reader := &session{t: t, p: p, dir: s.dir, env: []string{"HEROKU_API_KEY=" + made.AccessToken.Token}}
	reader.run("apps", "no apps")
	reader.refused("create", "needs write")
	s.run("authorizations:revoke "+made.ID, "done")
	if status, text := p.Request(t, "GET", "/apps", made.AccessToken.Token, nil); status != 401 {
		t.Errorf("a revoked token: %d %s", status, text)
	}
}

// Logging in with a password in the terminal and in a browser, and out.
func TestHerokuLogin(t *testing.T) {
	p := running(t)
	email, _ := someone(t, p)
	const password = "correct horse battery"
	p.Coordinator(t, password+"\n", "user", "password", email)
	home := t.TempDir()
	r := runner{T: t, p: p, dir: home}
	command := func(args ...string) *console {
		cmd := r.command(args...)
		env := cmd.Env[:0]
		for _, v := range cmd.Env {
			if !strings.HasPrefix(v, "HEROKU_API_KEY=") {
				env = append(env, v)
			}
		}
		// No program that opens a browser is found.
		cmd.Env = append(env, "HOME="+home, "GIT_CONFIG_GLOBAL="+filepath.Join(home, "gitconfig"), "BROWSER=none")
		return inTerminal(t, cmd)
	}
	whoami := func(want string, status int) {
		t.Helper()
		c := command("auth:whoami")
		c.expect(want)
		if got := c.exit(); got != status {
			t.Errorf("auth:whoami ends with %d", got)
		}
	}
	saved := func() string {
		text, _ := os.ReadFile(filepath.Join(home, ".netrc"))
		token := regexp.MustCompile(`mfld_\S+`).FindString(string(text))
		return token
	}
	c := command("login", "-i")
	c.expect("Email")
	c.enter(email + "\r")
	c.expect("Password")
	c.enter(password + "\r")
	c.expect("Logged in as.*" + regexp.QuoteMeta(email))
	if status := c.exit(); status != 0 {
		t.Fatalf("login -i ends with %d", status)
	}
	whoami(regexp.QuoteMeta(email), 0)
	token := saved()
	if token == "" {
		t.Fatal("the CLI kept no token")
	}
	if status := command("logout").exit(); status != 0 {
		t.Errorf("logout ends with %d", status)
	}
	if status, text := p.Request(t, "GET", "/account", token, nil); status != 401 {
		t.Errorf("the token of a login after the logout: %d %s", status, text)
	}

	c = command("login")
	c.expect("Press any key")
	c.enter("y")
	page := strings.TrimSpace(c.expect(`http://\S+/auth/browser/[A-Z0-9]+`))
	res, err := platform.Loopback.PostForm(page, url.Values{"do": {"login"}, "email": {email}, "password": {password}})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		t.Fatalf("the login page answers %d", res.StatusCode)
	}
	c.expect("Logged in as.*" + regexp.QuoteMeta(email))
	if status := c.exit(); status != 0 {
		t.Errorf("login ends with %d", status)
	}
	whoami(regexp.QuoteMeta(email), 0)
}
