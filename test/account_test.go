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
	"slices"
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

// owned is an app, its owner at the CLI, and another user.
type owned struct {
	*session
	app          string
	email, token string // the other's
}

// other is the other user at the CLI.
func (u *owned) other(s *session) *session {
	o := *s
	o.env = []string{"HEROKU_APP=" + u.app, "HEROKU_API_KEY=" + u.token}
	return &o
}

// An app from its first day to its last: who may push, which names it answers
// to, its switches, and that nothing of it is left.
func TestHerokuApps(t *testing.T) {
	p := running(t)
	u := &owned{session: newSession(t, p, platform.Repository(t, map[string]string{
		"Procfile": "web: sleep 1.5; exec python3 -m http.server $PORT\n", "requirements.txt": "",
	})), app: p.CreateApp(t)}
	u.email, u.token = someone(t, p)
	u.env = append(u.env, "HEROKU_APP="+u.app)
	p.Push(t, u.dir, u.app)
	p.Answers(t, u.app, "/", "")
	u.run("labs:enable log-runtime-metrics", "done") // its lines come every 20 s; looked for below
	u.shares()
	u.declines()
	u.isNamed()
	u.switches()
	u.audited(u.email, "Add domain ", "Enable feature log-runtime-metrics", "by git push")
	u.destroys()
}

// push pushes a change to a branch as the other user.
func (u *owned) push(branch string) (string, error) {
	platform.Commit(u.t, u.dir)
	return u.p.TryPush(u.t, u.dir, u.app, branch, u.token)
}

func (u *owned) shares() {
	u.shows("apps", "it lists the app to its owner and to no one else", func(s *session) {
		s.run("apps", u.app)
		u.other(s).run("apps", "no apps")
	})
	u.other(u.session).refused("ps", "no app of yours")
	if out, err := u.push("main"); err == nil || !strings.Contains(out, "You have no app") && !strings.Contains(out, "not found") {
		u.t.Errorf("a stranger's push: %v\n%s", err, out)
	}
	u.does("access:add", "access:add "+u.email, u.email, "their push, refused before, deploys; destroying stays the owner's", func(s *session, _ string) {
		u.other(s).run("apps", "Collaborated", u.app)
		if out, err := u.push("main"); err != nil {
			s.t.Errorf("a collaborator's push: %v\n%s", err, out)
		}
		u.other(s).refused("apps:destroy --confirm "+u.app, "only its owner")
	})
	u.does("access", "access", u.email+" +collaborator", "the collaborator, with the role", nil)
	u.shows("apps:info", "owner, collaborator, and the address at which the app answers", func(s *session) {
		s.run("apps:info", "Owner:", "admin@localhost", "Web URL:", "http://"+u.app+".localhost:", u.email)
	})
	u.does("access:remove", "access:remove "+u.email, u.email, "the app does not exist for them any more; their push is refused", func(s *session, _ string) {
		u.other(s).refused("config", "no app of yours")
		if out, err := u.push("side"); err == nil {
			s.t.Errorf("the push of one who is no collaborator any more:\n%s", out)
		}
	})
}

// declines has the other user not take the app over; then the operator removes
// them.
func (u *owned) declines() {
	u.run("apps:transfer "+u.email, "Initiating transfer", u.email)
	if status, text := u.p.Request(u.t, "PATCH", "/account/app-transfers/"+u.app, u.token, []byte(`{"state":"declined"}`)); status != 200 || !strings.Contains(string(text), "declined") {
		u.t.Errorf("a transfer is declined: %d %s", status, text)
	}
	u.p.Coordinator(u.t, u.email+"\n", "user", "remove", u.email) // asks for the address
	if status, text := u.p.Request(u.t, "GET", "/account", u.token, nil); status != 401 {
		u.t.Errorf("the token of one who was removed: %d %s", status, text)
	}
}

func (u *owned) isNamed() {
	host := u.app + ".example.com"
	answers := func(s *session, yes bool, hosts ...string) {
		for _, h := range hosts {
			platform.Eventually(s.t, time.Minute, func() error {
				if status, why := statusOf(s.p, h); (status == 200) != yes {
					return fmt.Errorf("%s answers %d %s", h, status, why)
				}
				return nil
			})
		}
	}
	u.does("domains:add", "domains:add "+host, host, "the app answers at that host name, and below a wildcard", func(s *session, _ string) {
		s.run("domains:add *.wild."+host, "wild")
		answers(s, true, host, "x.wild."+host, strings.ToUpper(host))
		s.refused("domains:add "+host+" -a "+s.p.CreateApp(s.t), "in use by another app")
		s.refused("domains:add localhost", "not a public domain name")
	})
	u.does("domains", "domains", "(?s)"+u.app+`\.localhost.*`+host, "the platform's name of the app and its own", nil)
	u.does("domains:info", "domains:info "+host, host, "it is this app's, and done", nil)
	u.does("domains:wait", "domains:wait "+host, "", "it ends, as the name is in use", nil)
	u.does("domains:remove", "domains:remove "+host, host, "that name answers no more, the others do", func(s *session, _ string) {
		answers(s, false, host)
		answers(s, true, "x.wild."+host, u.app+".localhost")
	})
	u.does("domains:clear", "domains:clear", "", "none of the app's own names answers", func(s *session, _ string) {
		answers(s, false, "x.wild."+host)
		answers(s, true, u.app+".localhost")
	})
}

func (u *owned) switches() {
	u.does("features", "features", `(?s)\[\+\] daily-cycling.*\[\+\] preboot`, "each with its state", nil)
	u.does("features:disable", "features:disable preboot", "done", "at a restart the old dyno is stopped before the new one is up", func(s *session, _ string) {
		for range 5 { // with preboot it never is; without, the machine may be slow
			if !u.restart(s) {
				return
			}
		}
		s.t.Error("without preboot the new dyno was up before the old one was told to stop")
	})
	u.does("features:info", "features:info preboot", `Enabled: +false`, "its state and what it is for", nil)
	u.does("features:enable", "features:enable preboot", "done", "at a restart the new dyno is up before the old one is stopped", func(s *session, _ string) {
		if !u.restart(s) {
			s.t.Error("with preboot the old dyno was told to stop before the new one was up")
		}
	})
	u.does("labs:info", "labs:info log-runtime-metrics", `Enabled: +true`, "its state and what it is for", nil)
	u.shows("labs:enable", "log-runtime-metrics: the dynos' memory and load are in the log", func(s *session) {
		platform.Eventually(s.t, 90*time.Second, func() error { return s.p.LogContains(s.t, u.app, "sample#memory_total=") })
	})
	u.does("labs:disable", "labs:disable log-runtime-metrics", "done", "the app's feature is off", func(s *session, _ string) {
		var f struct{ Enabled bool }
		if s.p.Call(s.t, "GET", "/apps/"+u.app+"/features/log-runtime-metrics", nil, &f); f.Enabled {
			s.t.Error("the feature is on")
		}
	})
	u.does("labs", "labs", "App Features", "none: all there is, is no experiment", nil)
}

// restart replaces the app's dyno, and says whether the new one was up before
// the old one was told to stop.
func (u *owned) restart(s *session) (newFirst bool) {
	const (
		starts = "heroku[web.1]: State changed from created to starting"
		up     = "heroku[web.1]: State changed from starting to up"
		stops  = "heroku[web.1]: Stopping all processes with SIGTERM"
	)
	var told int // lines of before, of which the last may come late
	platform.Eventually(s.t, time.Minute, func() error {
		lines := s.p.Log(s.t, u.app)
		told = len(lines)
		log := strings.Join(lines, "\n")
		if strings.Count(log, starts) != strings.Count(log, up) {
			return fmt.Errorf("the log does not tell that web.1 is up:\n%s", log)
		}
		return nil
	})
	before := dynoIDs(s.t, s.p, u.app)
	s.p.Call(s.t, "DELETE", "/apps/"+u.app+"/dynos", nil, nil)
	platform.Eventually(s.t, time.Minute, func() error { return dynosReplaced(s.t, s.p, u.app, before, "web.1") })
	var log string
	platform.Eventually(s.t, time.Minute, func() error {
		lines := s.p.TimedLog(s.t, u.app, "")[told:]
		slices.Sort(lines)
		if log = strings.Join(lines, "\n"); !strings.Contains(log, up) || !strings.Contains(log, stops) {
			return fmt.Errorf("the log does not tell the restart yet:\n%s", log)
		}
		return nil
	})
	s.t.Logf("the log of a restart:\n%s", log)
	return strings.Index(log, up) < strings.Index(log, stops)
}

// audited reads the trail as the owner does.
func (s *owned) audited(collaborator string, actions ...string) {
	s.t.Helper()
	out, err := s.p.Manifold(s.t, "audit", s.app)
	if err != nil {
		s.t.Fatalf("manifold audit: %v\n%s", err, out)
	}
	for _, w := range append(actions, "Add "+collaborator+" as collaborator", "Remove "+collaborator+" as collaborator", "127.0.0.1") {
		if !strings.Contains(out, w) {
			s.t.Errorf("manifold audit does not print %q:\n%s", w, out)
		}
	}
}

// destroys destroys the app, and looks on the disk for what is left of it.
func (u *owned) destroys() {
	u.t.Helper()
	var app struct{ ID string }
	u.p.Call(u.t, "GET", "/apps/"+u.app, nil, &app)
	left := func() (paths []string) {
		for _, pattern := range []string{"git/", "cache/", "logs/"} {
			found, _ := filepath.Glob(filepath.Join(u.p.Home, "coordinator", pattern) + "/*" + app.ID + "*")
			paths = append(paths, found...)
		}
		return paths
	}
	if len(left()) < 2 {
		u.t.Errorf("of a living app there is only %v", left())
	}
	u.does("apps:destroy", "apps:destroy --confirm "+u.app, "done", "it answers no more; nothing of it is on the coordinator's disk", func(s *session, _ string) {
		if now := left(); len(now) > 0 {
			s.t.Errorf("a destroyed app leaves %v", now)
		}
		s.refused("apps:info", "no app of yours")
		platform.Eventually(s.t, 60*time.Second, func() error {
			if status, _ := statusOf(s.p, u.app+".localhost"); status == 200 {
				return fmt.Errorf("a destroyed app still answers")
			}
			return nil
		})
	})
}

// Tokens and keys with the real CLI, and what needs no app.
func TestHerokuAccount(t *testing.T) {
	p := running(t)
	email, token := someone(t, p)
	s := newSession(t, p, t.TempDir(), "HEROKU_API_KEY="+token)
	s.does("auth:whoami", "auth:whoami", email, "it is the token's user", nil)
	s.does("auth:token", "auth:token", token, "it is the token", nil)
	s.does("regions", "regions", `us +This Manifold`, "the one there is", nil)
	s.does("addons", "addons --all", "No add-ons", "none", nil)
	s.does("status", "status", `(?s)Apps: +No known issues.*Tools: +No known issues`, "this platform's own: a host is connected, the store answers", nil)
	platform.Write(t, s.dir, map[string]string{"Procfile": "web: echo port $PORT, a $COLOUR $SHAPE\n", ".env": "COLOUR=green\nSHAPE=leaf\n"})
	s.does("local", "local web --port 5123", "port 5123, a green leaf", "the Procfile's command ran here, with .env", nil)

	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ada@"
	keys := func(s *session) int {
		var all []struct{ ID string }
		_, text := s.p.Request(s.t, "GET", "/account/keys", token, nil)
		if err := json.Unmarshal(text, &all); err != nil {
			s.t.Fatal(err)
		}
		return len(all)
	}
	platform.Write(t, s.dir, map[string]string{"key.pub": key + "desk\n"})
	for _, row := range []struct {
		command, line, want, checked string
		left                         int
	}{
		{"keys:add", "keys:add " + filepath.Join(s.dir, "key.pub"), "done", "the account has the key", 1},
		{"keys", "keys", "ada@desk", "it lists the key", 1},
		{"keys:remove", "keys:remove ada@desk", "done", "the account has it no more", 0},
	} {
		s.does(row.command, row.line, row.want, row.checked, func(s *session, _ string) {
			if n := keys(s); n != row.left {
				s.t.Errorf("the account has %d keys", n)
			}
		})
	}
	if status, text := p.Request(t, "POST", "/account/keys", token, map[string]string{"public_key": key + "sofa"}); status/100 != 2 {
		t.Errorf("POST /account/keys: %d %s", status, text)
	}
	s.does("keys:clear", "keys:clear", "done", "the account has none", func(s *session, _ string) {
		if n := keys(s); n != 0 {
			s.t.Errorf("the account has %d keys", n)
		}
	})
	s.authorizations()
}

// authorizations makes a token for reading, changes it and takes it back.
func (s *session) authorizations() {
	type authorization struct {
		ID          string
		AccessToken struct{ Token string } `json:"access_token"`
	}
	var made authorization
	apps := func(s *session, token string, want int) {
		if status, text := s.p.Request(s.t, "GET", "/apps", token, nil); status != want {
			s.t.Errorf("the token is answered %d %s, want %d", status, text, want)
		}
	}
	s.does("authorizations:create", "authorizations:create -d reader -s read -e 3600 --json", "reader", "its token reads and may not write", func(s *session, out string) {
		if err := json.Unmarshal([]byte(out[strings.IndexByte(out+"{", '{'):]), &made); err != nil {
			s.t.Fatalf("%v in %s", err, out)
		}
		reader := *s
		reader.env = []string{"HEROKU_API_KEY=" + made.AccessToken.Token}
		reader.run("apps", "no apps")
		reader.refused("create", "needs write")
	})
	s.does("authorizations:update", "authorizations:update "+made.ID+" -d watcher", "(?i)updating", "it has the new description", nil)
	s.does("authorizations", "authorizations", "watcher +"+made.ID+" +read", "each with its scope, no token among them", func(s *session, out string) {
		if strings.Contains(out, made.AccessToken.Token) {
			s.t.Error("the token is shown")
		}
	})
	s.does("authorizations:info", "authorizations:info "+made.ID, "(?s)watcher.*read", "scope and end", nil)
	s.does("authorizations:rotate", "authorizations:rotate "+made.ID, "mfld_", "the new token reads, the old one is refused", func(s *session, out string) {
		apps(s, made.AccessToken.Token, 401)
		made.AccessToken.Token = regexp.MustCompile(`mfld_[\w-]+`).FindString(out)
		apps(s, made.AccessToken.Token, 200)
	})
	s.does("authorizations:revoke", "authorizations:revoke "+made.ID, "done", "the token is refused", func(s *session, _ string) {
		apps(s, made.AccessToken.Token, 401)
	})
}

// Logging in with a password in the terminal and in a browser, and out.
func TestHerokuLogin(t *testing.T) {
	claims(t, "login -i", "with the password typed: whoami is that user, from .netrc",
		"login", "with the password on the page that the browser shows: the same",
		"logout", "the token that login made is refused")
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
	page := strings.TrimSpace(c.expect(`http://\S+/auth/browser/[A-Z0-9]+\s`))
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
