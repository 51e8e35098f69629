package platform

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"html/template"
	"io"
	"mime"
	"net"
	"net/http"
	"sync"
	"time"

	"manifold/coordinator/store"
)

// The browser login, "heroku login". The CLI holds a secret, the person a
// page; whoever logs in there hands the CLI a token.
//
//	CLI                          here                        browser
//	POST /auth {description} ──▶ a login is made
//	◀── {browser_url, cli_url, token}
//	GET cli_url, Bearer token ─▶ held …      ◀── GET browser_url: a form
//	                                         ◀── POST browser_url: address, password
//	◀── {access_token} or {error}
//
// A login lives ten minutes, in memory: after a restart the CLI is told to
// start over.
const (
	loginLife  = 10 * time.Minute
	maxLogins  = 1000             // the oldest goes for the next
	loginPulse = 20 * time.Second // blanks before the JSON, so that the CLI does not give up on a silent line
)

type login struct {
	id, secret        string
	description, from string
	made              time.Time
	done              chan struct{}     // closed when decided
	result            map[string]string // set before
}

type logins struct {
	life time.Duration
	mu   sync.Mutex
	open map[string]*login
}

func newLogins() *logins { return &logins{life: loginLife, open: map[string]*login{}} }

func (l *logins) start(description, from string) *login {
	l.mu.Lock()
	defer l.mu.Unlock()
	var oldest *login
	for id, x := range l.open {
		if time.Since(x.made) > l.life {
			delete(l.open, id)
		} else if oldest == nil || x.made.Before(oldest.made) {
			oldest = x
		}
	}
	if len(l.open) >= maxLogins {
		delete(l.open, oldest.id)
	}
	x := &login{id: rand.Text(), secret: rand.Text(), description: description, from: from, made: time.Now(), done: make(chan struct{})}
	l.open[x.id] = x
	return x
}

// find returns a login that is waiting for its end, or was decided and not
// fetched.
func (l *logins) find(id string) *login {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.open[id]
	if x == nil || time.Since(x.made) > l.life {
		return nil
	}
	return x
}

// decide ends the wait. Only the first decision counts.
func (l *logins) decide(x *login, result map[string]string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if x.result != nil {
		return false
	}
	x.result = result
	close(x.done)
	return true
}

func (l *logins) drop(x *login) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, x.id)
}

// loginRoutes need no token, and one of them shows a page: they do not pass
// the door.
func (a *api) loginRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /auth", a.startLogin)
	mux.HandleFunc("GET /auth/cli/{id}", a.awaitLogin)
	mux.HandleFunc("GET /auth/browser/{id}", a.showLogin)
	mux.HandleFunc("POST /auth/browser/{id}", a.decideLogin)
}

func (a *api) startLogin(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(a.maxTime))
	var in struct{ Description string }
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 16<<10))
	if err != nil || len(text) > 0 && json.Unmarshal(text, &in) != nil || len(in.Description) > store.MaxDescription {
		writeJSON(w, http.StatusBadRequest, &fault{ID: "bad_request", Message: "A login takes a description of at most 256 bytes, as JSON."})
		return
	}
	from, _, _ := net.SplitHostPort(r.RemoteAddr)
	x := a.logins.start(in.Description, from)
	writeJSON(w, http.StatusCreated, map[string]string{
		"browser_url": "/auth/browser/" + x.id, "cli_url": "/auth/cli/" + x.id, "token": x.secret,
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a reader that left is no error of ours
}

// awaitLogin holds the CLI's request until a person has decided. A CLI that
// lost its connection may come again.
func (a *api) awaitLogin(w http.ResponseWriter, r *http.Request) {
	x := a.logins.find(r.PathValue("id"))
	if x == nil || subtle.ConstantTimeCompare([]byte(bearer(r)), []byte(x.secret)) != 1 {
		writeJSON(w, http.StatusNotFound, notFound("login", "There is no such login, or its time is up. Start over with: heroku login"))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	conn := http.NewResponseController(w)
	end := time.NewTimer(a.logins.life - time.Since(x.made))
	defer end.Stop()
	pulse := time.NewTicker(loginPulse)
	defer pulse.Stop()
	result := map[string]string{"error": "The login was not finished in time. Start over with: heroku login"}
	for waiting := true; waiting; {
		select {
		case <-x.done:
			result, waiting = x.result, false
		case <-end.C:
			waiting = false
		case <-r.Context().Done():
			return
		case <-pulse.C:
			if _, err := io.WriteString(w, " "); err != nil || conn.Flush() != nil {
				return
			}
		}
	}
	if json.NewEncoder(w).Encode(result) == nil && conn.Flush() == nil {
		a.logins.drop(x)
	}
}

var loginPage = template.Must(template.New("login").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Manifold login</title>
<h1>Manifold</h1>
{{with .Said}}<p role="alert"><strong>{{.}}</strong></p>{{end}}
{{with .Login}}<p>Log in to give a token with all your rights to a program that calls itself <strong>{{.Description}}</strong>
and asked from {{.From}}. If you did not just start one, close this page.</p>
<form method="post">
<p><label>Email<br><input name="email" type="email" autocomplete="username" required autofocus></label></p>
<p><label>Password<br><input name="password" type="password" autocomplete="current-password" required></label></p>
<p><button name="do" value="login">Log in</button> <button name="do" value="cancel" formnovalidate>Cancel</button></p>
</form>{{end}}
</html>
`))

type page struct {
	Said  string
	Login *struct{ Description, From string }
}

// showPage sends a page that can neither be framed nor load anything.
func showPage(w http.ResponseWriter, status int, said string, x *login) {
	p := page{Said: said}
	if x != nil {
		p.Login = &struct{ Description, From string }{x.description, x.from}
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = loginPage.Execute(w, p) // a reader that left is no error of ours
}

const loginGone = "There is no such login, or its time is up. Start over with: heroku login"

func (a *api) showLogin(w http.ResponseWriter, r *http.Request) {
	x := a.logins.find(r.PathValue("id"))
	if x == nil {
		showPage(w, http.StatusNotFound, loginGone, nil)
		return
	}
	showPage(w, http.StatusOK, "", x)
}

// decideLogin takes the form. The password is asked for each time, so that
// there is no session that another site could use.
func (a *api) decideLogin(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(a.maxTime))
	x := a.logins.find(r.PathValue("id"))
	if x == nil {
		showPage(w, http.StatusNotFound, loginGone, nil)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/x-www-form-urlencoded" || r.ParseForm() != nil {
		showPage(w, http.StatusBadRequest, "The form could not be read.", x)
		return
	}
	if r.PostForm.Get("do") == "cancel" {
		a.logins.decide(x, map[string]string{"error": "The login was cancelled in the browser."})
		showPage(w, http.StatusOK, "Cancelled. You can close this page.", nil)
		return
	}
	token, err := a.loginToken(r, x)
	if f := asFault(err); f != nil {
		showPage(w, f.Status, f.Message, x)
		return
	} else if err != nil {
		a.Log.Error("browser login failed", "err", err)
		showPage(w, http.StatusInternalServerError, "The platform failed at this. Try again.", x)
		return
	}
	if !a.logins.decide(x, map[string]string{"access_token": token}) {
		showPage(w, http.StatusConflict, "This login was decided already.", nil)
		return
	}
	showPage(w, http.StatusOK, "You are logged in. You can close this page and go back to your terminal.", nil)
}

// loginToken makes the token, good for thirty days as that of the terminal's login.
func (a *api) loginToken(r *http.Request, x *login) (string, error) {
	ctx, cancel := context.WithTimeout(r.Context(), a.maxTime)
	defer cancel()
	user, err := a.login(ctx, r.PostForm.Get("email"), r.PostForm.Get("password"))
	if err != nil {
		return "", err
	}
	select {
	case <-x.done:
		return "", store.ErrConflict
	default:
	}
	c := &call{Request: r.WithContext(ctx), api: a, user: user}
	c.sign("browser login")
	_, token, err := a.Store.Authorize(c.Context(), user, x.description, []string{store.ScopeGlobal}, 30*24*time.Hour)
	return token, err
}
