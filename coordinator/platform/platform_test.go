package platform

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/logs"
	"manifold/coordinator/scheduler"
	"manifold/coordinator/store"
	"manifold/test/hyperschema"
)

var (
	_ Dynos = (*scheduler.Scheduler)(nil)
	_ Logs  = (*logs.Hub)(nil)
)

// described is Heroku's schema. Every answer to these tests is held against it.
var described = sync.OnceValues(func() (*hyperschema.Schema, error) { return hyperschema.Load(".") })

func TestMain(m *testing.M) {
	code := m.Run()
	if h, err := described(); err == nil {
		fmt.Println("measured:", h.Report())
		for _, v := range h.Violations() {
			fmt.Println("against Heroku's schema:", v)
			code = 1
		}
	}
	os.Exit(code)
}

// rig is the API over HTTP on a real store and a real log hub. Only the
// dynos are made up: running them is not this room's business.
type rig struct {
	*testing.T
	store  *store.Store
	hub    *logs.Hub
	dynos  *fakeDynos
	config Config
	url    string
	token  string
	user   manifold.User
}

func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	st, err := store.Open(t.Context(), t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	hub, err := logs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hub.Close() })
	r := &rig{T: t, store: st, hub: hub, dynos: &fakeDynos{}}
	if r.token, err = st.Bootstrap(t.Context(), "ada@example.com"); err != nil {
		t.Fatal(err)
	}
	if r.user, _, err = st.Authenticate(t.Context(), r.token); err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Store: st, Dynos: r.dynos, Logs: hub, Log: log, Builds: &fakeBuilds{store: st}, Sources: newSources(t), Outputs: newOutputs(t),
		Stacks: []Stack{{Name: "cedar", BuiltAt: time.Now()}, {Name: "cedar-2", BuiltAt: time.Now()}},
		WebURL: func(app string) string { return "http://" + app + ".localhost:8080/" },
		GitURL: func(app string) string { return "https://localhost:5443/" + app + ".git" },

		Forget:    hub.Forget,
		AttachURL: func(secret string) string { return "rendezvous://localhost:5444/" + secret },
	}
	for _, f := range change {
		f(&cfg)
	}
	r.config = cfg
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/streams/", hub)
	mux.Handle("/", h)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

// on lets a subtest fail by itself.
func (r *rig) on(t *testing.T) *rig {
	sub := *r
	sub.T = t
	return &sub
}

// impatient serves the same once more, where a call may take no longer.
func (r *rig) impatient(maxTime time.Duration) *httptest.Server {
	return r.serve(&api{Config: r.config, rates: newRates(1000), guesses: newGuesses(), logins: newLogins(), maxTime: maxTime})
}

func (r *rig) serve(a *api) *httptest.Server {
	server := httptest.NewServer(a.handler())
	r.Cleanup(server.Close)
	return server
}

// fakeDynos keeps what was asked to restart.
type fakeDynos struct {
	mu        sync.Mutex
	dynos     []scheduler.Dyno
	restarted []string
	stopped   []string
	started   []scheduler.OneOff
	execs     []scheduler.Exec
	err       error
}

func (f *fakeDynos) Start(_ context.Context, o scheduler.OneOff) (d scheduler.Dyno, secret string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return d, "", f.err
	}
	f.started = append(f.started, o)
	if o.Attach != nil {
		secret = "secret"
	}
	return scheduler.Dyno{
		Dyno: manifold.Dyno{Assignment: uuid.NewString(), App: o.App, Name: "run.4711"}, Kind: manifold.KindOneOff,
		Type: "run", Command: o.Command, Size: o.Size.Name, Release: 3, CreatedAt: time.Now(),
	}, secret, nil
}

func (f *fakeDynos) Stop(_ context.Context, app string, match func(string) bool) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.dynos {
		if d.App == app && d.Kind == manifold.KindOneOff && match(d.Name) {
			f.stopped = append(f.stopped, d.Name)
			n++
		}
	}
	return n, f.err
}

func (f *fakeDynos) Exec(_ context.Context, e scheduler.Exec) (d scheduler.Dyno, secret string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.dynos {
		if f.err == nil && d.App == e.App && d.Name == e.Dyno {
			f.execs = append(f.execs, e)
			return d, "secret", nil
		}
	}
	return d, "", cmp.Or(f.err, store.ErrNotFound)
}

func (f *fakeDynos) Dynos(app string) []scheduler.Dyno {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.dynos), func(d scheduler.Dyno) bool { return d.App != app })
}

func (f *fakeDynos) Restart(_ context.Context, app string, match func(string) bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.dynos {
		if d.App == app && match(d.Name) {
			f.restarted = append(f.restarted, d.Name)
		}
	}
	return f.err
}

func (f *fakeDynos) taken() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := f.restarted
	f.restarted = nil
	return names
}

// add makes a dyno that is up.
func (f *fakeDynos) add(app manifold.App, name string, release int, state manifold.State) {
	typ, _, _ := manifold.SplitDynoName(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dynos = append(f.dynos, scheduler.Dyno{
		Dyno: manifold.Dyno{Assignment: uuid.NewString(), App: app.ID, Name: name, State: state, Since: time.Now()},
		Type: typ, Command: "run " + typ, Size: manifold.DefaultSize, Release: release, CreatedAt: time.Now(),
	})
}

// reply is what came back.
type reply struct {
	t      testing.TB
	what   string
	status int
	header http.Header
	text   string
}

// send makes one request; header is pairs of name and value and may overrule
// the defaults.
func (r *rig) send(method, path, body string, header ...string) reply {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Accept", "application/vnd.heroku+json; version=3")
	req.Header.Set("Authorization", "Bearer "+r.token)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	h, err := described()
	if err != nil {
		r.Fatal(err)
	}
	res, err := h.Watch(http.DefaultTransport).RoundTrip(req)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.Fatal(err)
	}
	return reply{r, method + " " + path, res.StatusCode, res.Header, string(text)}
}

// want ends the test unless the reply has the status.
func (p reply) want(status int) reply {
	p.t.Helper()
	if p.status != status {
		p.t.Fatalf("%s: status %d, want %d: %s", p.what, p.status, status, p.text)
	}
	return p
}

// fails checks for a complete error object whose message holds each of words.
func (p reply) fails(status int, id string, words ...string) {
	p.t.Helper()
	p.want(status)
	var body struct{ ID, Message string }
	if err := json.Unmarshal([]byte(p.text), &body); err != nil || body.ID != id {
		p.t.Errorf("%s: error id %q (%v), want %q: %s", p.what, body.ID, err, id, p.text)
	}
	for _, w := range words {
		if !strings.Contains(body.Message, w) {
			p.t.Errorf("%s: message %q does not say %q", p.what, body.Message, w)
		}
	}
}

// into decodes the body.
func into[T any](p reply) T {
	p.t.Helper()
	var v T
	if err := json.Unmarshal([]byte(p.text), &v); err != nil {
		p.t.Fatalf("%s: %v: %s", p.what, err, p.text)
	}
	return v
}

func (r *rig) app(name string) manifold.App {
	r.Helper()
	r.send("POST", "/apps", `{"name":"`+name+`"}`).want(201)
	app, err := r.store.App(r.Context(), name)
	if err != nil {
		r.Fatal(err)
	}
	return app
}

// deploy gives the app code with these process types.
func (r *rig) deploy(app manifold.App, types map[string]string) manifold.Release {
	r.Helper()
	release, err := r.store.Deploy(r.Context(), app.ID, manifold.Slug{
		Image: manifold.Image{Digest: "sha256:" + strings.Repeat("ab", 32), Bytes: 4711},
		Stack: "cedar", Commit: "1234567890", Language: "Ruby", ProcessTypes: types,
	}, "Deploy 12345678", r.user)
	if err != nil {
		r.Fatal(err)
	}
	return release
}

// said checks that the app's log has the line.
func (r *rig) said(app manifold.App, line string) {
	r.Helper()
	lines, err := r.hub.Recent(app.ID, logs.Filter{Source: manifold.SourceApp}, 100)
	if err != nil {
		r.Fatal(err)
	}
	var all []string
	for _, l := range lines {
		if l.Text == line && l.Process == "api" {
			return
		}
		all = append(all, l.Text)
	}
	r.Errorf("the log does not say %q; it says:\n%s", line, strings.Join(all, "\n"))
}

// as is the rig in the hands of another user, who is made for it.
func (r *rig) as(email string) *rig {
	r.Helper()
	user, token, err := r.store.CreateUser(r.Context(), email)
	if err != nil {
		r.Fatal(err)
	}
	other := *r
	other.user, other.token = user, token
	return &other
}

// strangersApp makes an app that is there, but not the caller's.
func (r *rig) strangersApp() manifold.App {
	r.Helper()
	app, err := r.store.CreateApp(r.Context(), manifold.App{Name: "not-yours", Stack: "cedar"}, manifold.User{ID: uuid.NewString(), Email: "eve@example.com"})
	if err != nil {
		r.Fatal(err)
	}
	return app
}

func TestNewRefusesToStandOnNothing(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("New made an API without a store")
	}
}

var errBroken = errors.New("the disk with the secret path /var/lib/x is broken")
