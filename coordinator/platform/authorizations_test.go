package platform

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

type shownAuthorization struct {
	ID, Description string
	Scope           []string
	User            struct{ Email string }
	AccessToken     struct {
		Token     string
		ExpiresIn *int `json:"expires_in"`
	} `json:"access_token"`
}

// lasts says whether a token was given so many seconds, some of which may have
// passed until it was shown.
func (x shownAuthorization) lasts(seconds int) bool {
	left := x.AccessToken.ExpiresIn
	return left != nil && *left <= seconds && *left > seconds-60
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// A token is made, shown once, listed without itself, renamed, replaced, ended.
func TestAuthorizationLife(t *testing.T) {
	r := newRig(t)
	eve := r.as("eve@example.com")
	const path = "/oauth/authorizations"
	made := into[shownAuthorization](r.send("POST", path, `{"description":"CI","expires_in":3600,"scope":["read","write"]}`).want(201))
	if made.Description != "CI" || len(made.Scope) != 2 || !made.lasts(3600) {
		t.Fatalf("%+v", made)
	}
	with := func(token string) reply { return r.send("GET", "/apps", "", "Authorization", "Bearer "+token) }
	with(made.AccessToken.Token).want(200)
	list := r.send("GET", path, "").want(200)
	if strings.Contains(list.text, made.AccessToken.Token) || !strings.Contains(list.text, r.token) {
		t.Errorf("the list shows a token other than the caller's, or not theirs: %s", list.text)
	}
	all := into[[]shownAuthorization](list)
	if len(all) != 2 {
		t.Fatalf("%d authorizations, want the first token's and CI's", len(all))
	}
	for _, x := range all {
		start, end, redacted := strings.Cut(x.AccessToken.Token, "**********")
		if x.ID == made.ID && (!redacted || !strings.HasPrefix(made.AccessToken.Token, start) || !strings.HasSuffix(made.AccessToken.Token, end)) {
			t.Errorf("the CLI cannot know %q again", x.AccessToken.Token)
		}
	}
	first := into[shownAuthorization](r.send("GET", path+"/~", "").want(200))
	if first.ID == made.ID || first.Description != "First token" {
		t.Errorf("~ is %+v", first)
	}
	for _, req := range [][2]string{{"GET", ""}, {"PATCH", ""}, {"DELETE", ""}, {"POST", "/actions/regenerate-tokens"}} {
		eve.send(req[0], path+"/"+made.ID+req[1], "{}").fails(404, "not_found")
	}
	renamed := into[shownAuthorization](r.send("PATCH", path+"/"+made.ID, `{"description":"CI 2"}`).want(200))
	if renamed.Description != "CI 2" || renamed.ID != made.ID {
		t.Errorf("renamed to %+v", renamed)
	}
	fresh := into[shownAuthorization](r.send("POST", path+"/"+made.ID+"/actions/regenerate-tokens", "").want(200))
	if fresh.ID != made.ID || fresh.AccessToken.Token == made.AccessToken.Token || !fresh.lasts(3600) {
		t.Errorf("regenerated %+v", fresh)
	}
	with(made.AccessToken.Token).fails(401, "unauthorized")
	with(fresh.AccessToken.Token).want(200)
	r.send("DELETE", path+"/"+made.ID, "").want(200)
	with(fresh.AccessToken.Token).fails(401, "unauthorized")
	r.send("DELETE", path+"/"+made.ID, "").fails(404, "not_found", "heroku authorizations")
	for _, bad := range []string{`{"scope":["everything"]}`, `{"scope":["read","read","read","read","read","read","read"]}`, `{"description":"` + strings.Repeat("x", 300) + `"}`} {
		r.send("POST", path, bad).fails(422, "invalid_params")
	}
}

// heroku login -i with a password, and heroku logout.
func TestPassword(t *testing.T) {
	r := newRig(t)
	a := &api{Config: r.config, rates: newRates(1000), guesses: newGuesses(), logins: newLogins(), maxTime: maxTime}
	r.url = r.serve(a).URL
	const path, password = "/oauth/authorizations", "correct horse: battery"
	login := func(email, password string) reply {
		return r.send("POST", path, `{"description":"CLI","expires_in":2592000,"scope":["global"]}`, "Authorization", basic(email, password))
	}
	login("ada@example.com", "").fails(401, "unauthorized")
	login("ada@example.com", password).fails(401, "unauthorized", "user password")
	if err := r.store.SetPassword(t.Context(), "ada@example.com", "short"); err == nil {
		t.Error("a short password was accepted")
	}
	if err := r.store.SetPassword(t.Context(), "ada@example.com", password); err != nil {
		t.Fatal(err)
	}
	made := into[shownAuthorization](login("Ada@Example.com", password).want(201))
	if made.User.Email != "ada@example.com" || !made.lasts(2592000) {
		t.Errorf("%+v", made)
	}
	// It is taken there only.
	r.send("GET", "/account", "", "Authorization", basic("ada@example.com", password)).fails(401, "unauthorized")

	r.send("DELETE", "/oauth/sessions/~", "").fails(404, "not_found") // the first token stays
	r.send("GET", "/account", "").want(200)
	auth := []string{"Authorization", "Bearer " + made.AccessToken.Token}
	r.send("DELETE", "/oauth/sessions/~", "", auth...).want(200)
	r.send("GET", "/account", "", auth...).fails(401, "unauthorized")

	nobody := "nobody@example.com"
	for a.guesses.of(nobody) == a.guesses.of("ada@example.com") {
		nobody = "x" + nobody
	}
	began, tried := time.Now(), 0
	got := login(nobody, "wrong")
	for ; got.status == 401; got = login(nobody, "wrong") {
		tried++
	}
	got.fails(429, "rate_limit")
	// One more every ten seconds: to compare a password takes its time.
	if more := int(time.Since(began) / (10 * time.Second)); tried < 10 || tried > 10+more {
		t.Errorf("%d passwords were tried in %v", tried, time.Since(began))
	}
	login("ada@example.com", password).want(201) // others are not held up
}

// Passwords that are tried at the same time are counted like others.
func TestGuessesAtOnce(t *testing.T) {
	r := newRig(t)
	a := &api{Config: r.config, guesses: newGuesses()}
	const nobody = "nobody@example.com"
	a.guesses.of(nobody).AllowN(time.Now(), 8)
	began := time.Now()
	var tried atomic.Int32
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			var f *fault
			if _, err := a.login(t.Context(), nobody, "wrong"); errors.As(err, &f) && f.Status == http.StatusUnauthorized {
				tried.Add(1)
			}
		})
	}
	group.Wait()
	if n, more := int(tried.Load()), int(time.Since(began)/(10*time.Second)); n < 2 || n > 2+more {
		t.Errorf("%d passwords were tried in %v, where 2 may be", n, time.Since(began))
	}
}

// heroku login by browser: the CLI waits, a person decides on a page.
func TestBrowserLogin(t *testing.T) {
	r := newRig(t)
	const password = "correct horse: battery"
	if err := r.store.SetPassword(t.Context(), "ada@example.com", password); err != nil {
		t.Fatal(err)
	}
	type urls struct {
		Browser string `json:"browser_url"`
		CLI     string `json:"cli_url"`
		Token   string
	}
	begin := func() (urls, <-chan map[string]string) {
		u := into[urls](r.send("POST", "/auth", `{"description":"Heroku CLI login from <b>host</b>"}`, "Authorization", "").want(201))
		done := make(chan map[string]string, 1)
		go func() {
			req, _ := http.NewRequestWithContext(context.WithoutCancel(t.Context()), "GET", r.url+u.CLI, nil)
			req.Header.Set("Authorization", "Bearer "+u.Token)
			var got map[string]string
			if res, err := http.DefaultTransport.RoundTrip(req); err == nil {
				text, _ := io.ReadAll(res.Body)
				res.Body.Close()
				_ = json.Unmarshal(text, &got)
			}
			done <- got
		}()
		return u, done
	}
	form := func(u urls, do, email, password string) reply {
		body := url.Values{"do": {do}, "email": {email}, "password": {password}}.Encode()
		return r.send("POST", u.Browser, body, "Authorization", "", "Content-Type", "application/x-www-form-urlencoded")
	}
	u, done := begin()
	page := r.send("GET", u.Browser, "", "Authorization", "").want(200)
	if !strings.Contains(page.text, "&lt;b&gt;host") || strings.Contains(page.text, u.Token) || !strings.Contains(page.header.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
		t.Errorf("page %v %s", page.header, page.text)
	}
	r.send("GET", u.CLI, "", "Authorization", "Bearer wrong").fails(404, "not_found")
	form(u, "login", "ada@example.com", "wrong password").want(401)
	form(u, "login", "ada@example.com", password).want(200)
	got := <-done
	r.send("GET", "/account", "", "Authorization", "Bearer "+got["access_token"]).want(200)
	form(u, "login", "ada@example.com", password) // again: too late, whether fetched or not
	trail := r.send("GET", "/account/audit", "").want(200).text
	if !strings.Contains(trail, "by browser login") {
		t.Errorf("the audit trail has no login: %s", trail)
	}

	u, done = begin()
	form(u, "cancel", "", "").want(200)
	if got := <-done; got["error"] == "" || got["access_token"] != "" {
		t.Errorf("a cancelled login gave %v", got)
	}
	r.send("GET", "/auth/browser/nonsense", "", "Authorization", "").want(404)
	r.send("POST", "/auth", `[]`, "Authorization", "").want(400)
	r.send("POST", "/auth", `{"description":"`+strings.Repeat("x", 20<<10)+`"}`, "Authorization", "").want(400)
}

// Logins are few and short: the oldest goes, and each ends.
func TestLoginsAreBounded(t *testing.T) {
	l := newLogins()
	first := l.start("", "")
	for range maxLogins {
		l.start("", "")
	}
	if len(l.open) != maxLogins || l.find(first.id) != nil {
		t.Errorf("%d logins are open", len(l.open))
	}
	l.life = time.Nanosecond
	last := l.start("", "")
	if len(l.open) != 1 || l.find(last.id) != nil {
		t.Errorf("%d logins are open after all ended", len(l.open))
	}
}

const keyLine = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ada@desk"

func TestKeys(t *testing.T) {
	r := newRig(t)
	type sshKey struct {
		ID, Comment, Fingerprint, Email string
		PublicKey                       string `json:"public_key"`
	}
	made := into[sshKey](r.send("POST", "/account/keys", `{"public_key":"  `+keyLine+`\n"}`).want(201))
	if made.PublicKey != keyLine || made.Comment != "ada@desk" || len(made.Fingerprint) != 47 || made.Email != "ada@example.com" {
		t.Errorf("added %+v", made)
	}
	r.send("POST", "/account/keys", `{"public_key":"`+keyLine+`"}`).fails(422, "invalid_params", "exists")
	for _, bad := range []string{"", "ssh-ed25519", "ssh-rsa AAAA x", "hello", `command=\"id\" ` + keyLine, keyLine + `\n` + keyLine, strings.Repeat("x", 20<<10)} {
		r.send("POST", "/account/keys", `{"public_key":"`+bad+`"}`).fails(422, "invalid_params", "ssh-ed25519")
	}
	if all := into[[]sshKey](r.send("GET", "/account/keys", "").want(200)); len(all) != 1 {
		t.Errorf("keys %+v", all)
	}
	if others := into[[]sshKey](r.as("eve@example.com").send("GET", "/account/keys", "").want(200)); len(others) != 0 {
		t.Errorf("another's keys %+v", others)
	}
	r.send("GET", "/account/keys/"+made.Fingerprint, "").want(200)
	r.send("DELETE", "/account/keys/"+made.ID, "").want(200)
	r.send("DELETE", "/account/keys/"+made.ID, "").fails(404, "not_found")
}

// A key that is taken is one line, and reads back as itself.
func FuzzParseKey(f *testing.F) {
	for _, text := range []string{keyLine, "", "ssh-ed25519 x", `command="sh" ` + keyLine, keyLine + "\nssh-rsa y", "ssh-rsa-cert-v01@openssh.com AAAA"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		k, err := parseKey(text)
		if err != nil {
			return
		}
		again, err := parseKey(k.Public)
		if err != nil || again.Public != k.Public || again.Fingerprint != k.Fingerprint || strings.ContainsAny(k.Public, "\r\n\x00") {
			t.Errorf("%q is kept as %q, which reads as %q (%v)", text, k.Public, again.Public, err)
		}
	})
}
