package coordinator

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/scheduler"
	"manifold/slugfs/stack"
)

// rig is a home and what runs in it.
type rig struct {
	t    testing.TB
	cfg  Config
	at   Addresses
	stop func() error // ends Run and returns its error
}

// patience is with what must happen.
const patience = time.Minute

func newRig(t testing.TB) *rig {
	t.Helper()
	run, err := os.MkdirTemp("", "mf") // short: a socket's path has room for 107 bytes
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(run)) })
	r := &rig{t: t, cfg: Config{
		Settings: manifold.Settings{
			Home: t.TempDir(), Run: run, Instance: "test",
			APIAddr: "127.0.0.1:0", TLSAddr: "127.0.0.1:0", AttachAddr: "127.0.0.1:0", FleetAddr: "127.0.0.1:0", RouterAddr: "127.0.0.1:8080",
		},
		Scheduler: scheduler.DefaultSettings(), Email: "admin@localhost", Log: slog.New(slog.DiscardHandler),
	}}
	must(t, os.MkdirAll(r.cfg.stacks(), 0o755))
	text, err := json.Marshal(stack.Stack{Name: "cedar", Version: "1", Run: []manifold.Image{{Digest: "sha256:" + strings.Repeat("0", 64)}}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(r.cfg.stacks(), "cedar.json"), text, 0o644))
	return r
}

func (r *rig) start() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan Addresses, 1), make(chan error, 1)
	cfg := r.cfg
	cfg.Ready = func(a Addresses) { ready <- a }
	go func() { ended <- Run(ctx, cfg) }()
	done := false
	r.stop = func() error {
		if done {
			return nil
		}
		done = true
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			r.t.Fatalf("the coordinator did not end in %v", patience)
			panic("not reached")
		}
	}
	r.t.Cleanup(func() { must(r.t, r.stop()) })
	select {
	case r.at = <-ready:
	case err := <-ended:
		done = true
		r.t.Fatalf("the coordinator ended at once: %v", err)
	case <-time.After(patience):
		r.t.Fatalf("the coordinator was not ready in %v", patience)
	}
}

func (r *rig) file(name string) string {
	r.t.Helper()
	path := r.cfg.dir(name)
	info, err := os.Stat(path)
	must(r.t, err)
	if info.Mode().Perm() != 0o600 {
		r.t.Errorf("%s has mode %v", name, info.Mode())
	}
	text, err := os.ReadFile(path)
	must(r.t, err)
	return strings.TrimSpace(string(text))
}

func (r *rig) api(method, path, token, body string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://"+r.at.API.String()+path, strings.NewReader(body))
	must(r.t, err)
	req.Header.Set("Accept", "application/vnd.heroku+json; version=3")
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	must(r.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(r.t, err)
	return res.StatusCode, string(text)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The operator removes a user: what becomes of their apps has to be said, and
// their token ends at once.
func TestRemoveUser(t *testing.T) {
	r := newRig(t)
	r.start()
	settings := r.cfg.Settings
	add := func(email string) string {
		u, err := AddUser(t.Context(), settings, email)
		must(t, err)
		return u.Token
	}
	grace, heir := add("grace@example.com"), add("heir@example.com")
	for _, name := range []string{"apple", "banana"} {
		if status, body := r.api("POST", "/apps", grace, `{"name":"`+name+`"}`); status != 201 {
			t.Fatalf("%d %s", status, body)
		}
	}
	if status, body := r.api("POST", "/apps", heir, `{"name":"cherry"}`); status != 201 {
		t.Fatalf("%d %s", status, body)
	}
	r.api("POST", "/apps/cherry/collaborators", heir, `{"user":"grace@example.com"}`)
	for words, what := range map[string]RemoveUser{
		"owns apple, banana: say what becomes": {Email: "grace@example.com"},
		"cannot inherit":                       {Email: "grace@example.com", AppsTo: "Grace@example.com"},
		"not both":                             {Email: "grace@example.com", AppsTo: "heir@example.com", DestroyApps: true},
		"not found":                            {Email: "nobody@example.com"},
		"the platform's first user":            {Email: "admin@localhost"},
	} {
		if _, err := TakeUser(t.Context(), settings, what); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%+v: %v, want %q", what, err, words)
		}
	}
	if status, _ := r.api("GET", "/apps/apple", grace, ""); status != 200 {
		t.Fatalf("a removal that was refused took something: %d", status)
	}
	plan, err := TakeUser(t.Context(), settings, RemoveUser{Email: "grace@example.com", AppsTo: "heir@example.com", DryRun: true})
	must(t, err)
	if plan.Removed || strings.Join(plan.Apps, " ") != "apple banana" {
		t.Errorf("plan %+v", plan)
	}
	done, err := TakeUser(t.Context(), settings, RemoveUser{Email: "grace@example.com", AppsTo: "heir@example.com"})
	must(t, err)
	if status, _ := r.api("GET", "/account", grace, ""); !done.Removed || status != 401 {
		t.Errorf("%+v; the token of one who was removed gives %d", done, status)
	}
	if status, body := r.api("GET", "/apps/apple", heir, ""); status != 200 || !strings.Contains(body, "heir@example.com") {
		t.Errorf("the heir finds %d %s", status, body)
	}
	if _, body := r.api("GET", "/apps/cherry/collaborators", heir, ""); strings.Contains(body, "grace") {
		t.Errorf("still a collaborator: %s", body)
	}
	if _, body := r.api("GET", "/apps/apple/audit", heir, ""); !strings.Contains(body, "Transferred from grace@example.com to heir@example.com") || !strings.Contains(body, `"operator"`) {
		t.Errorf("the trail says %s", body)
	}
	_, err = TakeUser(t.Context(), settings, RemoveUser{Email: "heir@example.com", DestroyApps: true})
	must(t, err)
	add("heir@example.com") // the address is free again
	users, err := Users(t.Context(), settings)
	must(t, err)
	if token := r.file("first-token"); len(users) != 2 {
		t.Errorf("users %+v", users)
	} else if status, _ := r.api("GET", "/apps/apple", token, ""); status != 404 {
		t.Errorf("a destroyed app: %d", status)
	}
}

func TestFirstAndSecondStart(t *testing.T) {
	r := newRig(t)
	r.start()
	token, join, ca := r.file("first-token"), r.file("join-token"), r.file("ca.pem")
	if status, body := r.api("GET", "/account", token, ""); status != 200 || !strings.Contains(body, "admin@localhost") {
		t.Errorf("the first token gives %d %s", status, body)
	}
	if status, body := r.api("POST", "/apps", token, `{"name":"kept"}`); status != 201 {
		t.Errorf("creating an app gives %d %s", status, body)
	}
	id, err := manifold.Join(t.Context(), r.at.Fleet.String(), join, manifold.RoleAgent, "host")
	must(t, err)
	must(t, r.stop())

	must(t, os.Remove(r.cfg.dir("first-token"))) // the operator has taken it away
	r.start()
	if exists(r.cfg.dir("first-token")) {
		t.Error("a second start gave a token away again")
	}
	if r.file("join-token") != join || r.file("ca.pem") != ca {
		t.Error("a second start made another join token or CA")
	}
	if status, body := r.api("GET", "/apps/kept", token, ""); status != 200 {
		t.Errorf("the app is gone: %d %s", status, body)
	}
	link, err := manifold.NewLink(r.at.Fleet.String(), id)
	must(t, err)
	must(t, link.Post(t.Context(), "/fleet/v1/observed", manifold.Observation{}))
}

// Killed after the user was made and before its token was written down.
func TestFirstStartThatWasCutOff(t *testing.T) {
	r := newRig(t)
	r.start()
	must(t, r.stop())
	must(t, os.Remove(r.cfg.dir("first-token")))
	must(t, os.Remove(r.cfg.dir("ca.pem")))
	r.start()
	if status, body := r.api("GET", "/account", r.file("first-token"), ""); status != 200 {
		t.Errorf("the token gives %d %s", status, body)
	}
}

func TestJoinTokens(t *testing.T) {
	r := newRig(t)
	r.start()
	token, err := NewJoinToken(t.Context(), r.cfg.Settings, time.Hour)
	must(t, err)
	if _, err := manifold.Join(t.Context(), r.at.Fleet.String(), token, manifold.RoleRouter, "router"); err != nil {
		t.Error(err)
	}
	if hosts, err := Hosts(t.Context(), r.cfg.Settings); err != nil || len(hosts) != 0 {
		t.Errorf("a router is no host: %+v, %v", hosts, err)
	}
	info, err := os.Stat(adminSocket(r.cfg.Settings))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the admin socket has mode %v", info.Mode())
	}
	if _, err := NewJoinToken(t.Context(), r.cfg.Settings, -time.Hour); err == nil {
		t.Error("a token that ended before it began")
	}
	must(t, r.stop())
	must(t, os.WriteFile(r.cfg.dir("join-token"), []byte("mfldjoin_wrong."+strings.Repeat("0", 64)+"\n"), 0o600))
	if _, err := NewJoinToken(t.Context(), r.cfg.Settings, time.Hour); err == nil || !strings.Contains(err.Error(), "is the coordinator running") {
		t.Errorf("without a coordinator: %v", err)
	}
	r.start() // a token in the file that is no good any more is replaced
	if _, err := manifold.Join(t.Context(), r.at.Fleet.String(), r.file("join-token"), manifold.RoleAgent, "host"); err != nil {
		t.Error(err)
	}
	hosts, err := Hosts(t.Context(), r.cfg.Settings)
	if must(t, err); len(hosts) != 1 || hosts[0].Name != "host" || hosts[0].Connected || !hosts[0].Seen.IsZero() {
		t.Errorf("of a host that joined and has not spoken: %+v", hosts)
	}
}

func TestWhoAnswersWhat(t *testing.T) {
	r := newRig(t)
	r.start()
	token := r.file("first-token")
	for _, c := range []struct {
		method, path, token string
		status              int
		body                string
	}{
		{"GET", "/healthz", "", 200, "ok"},
		{"GET", "/api/v4/current-status", "", 200, `{"system":"Apps","status":"red"},{"system":"Tools","status":"green"}`}, // no host yet
		{"GET", "/api/v4/current-status", "", 200, "No host is connected"},
		{"GET", "/account", "", 401, "unauthorized"},
		{"GET", "/account", "mfld_wrong", 401, "unauthorized"},
		{"GET", "/stacks", token, 200, "cedar"},
		{"GET", "/nothing", token, 404, "not_found"},
		{"GET", "/streams/guess", "", 404, ""},
		{"GET", "/app.git/info/refs?service=git-upload-pack", "", 401, ""},
	} {
		if status, body := r.api(c.method, c.path, c.token, ""); status != c.status || !strings.Contains(body, c.body) {
			t.Errorf("%s %s answered %d %s", c.method, c.path, status, body)
		}
	}
	// The same over TLS, by the CA in ca.pem.
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(r.file("ca.pem")))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	_, port, err := net.SplitHostPort(r.at.TLS.String())
	must(t, err)
	for _, host := range []string{"127.0.0.1", "localhost"} {
		res, err := client.Get("https://" + host + ":" + port + "/healthz")
		must(t, err)
		must(t, res.Body.Close())
		if res.StatusCode != 200 {
			t.Errorf("%s answered %d over TLS", host, res.StatusCode)
		}
	}
}

func TestHeadersAreBounded(t *testing.T) {
	r := newRig(t)
	r.start()
	// net/http reads 4 KB past the bound of 64 KB; much more would still be on
	// its way when it closes the connection.
	if status, _ := r.api("GET", "/healthz", strings.Repeat("x", 69<<10), ""); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a 69 KB header got %d", status)
	}
}

// Log tails never end by themselves; they must not keep us from ending.
func TestShutdownIsBounded(t *testing.T) {
	r := newRig(t)
	r.start()
	token := r.file("first-token")
	if status, body := r.api("POST", "/apps", token, `{"name":"tailed"}`); status != 201 {
		t.Fatalf("%d %s", status, body)
	}
	_, body := r.api("POST", "/apps/tailed/log-sessions", token, `{"tail":true,"lines":10}`)
	var session struct {
		URL string `json:"logplex_url"`
	}
	must(t, json.Unmarshal([]byte(body), &session))
	res, err := http.Get(session.URL)
	must(t, err)
	defer res.Body.Close()
	if _, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	must(t, r.stop())
	if took := time.Since(start); took > shutdownLimit+20*time.Second {
		t.Errorf("shutdown took %v", took)
	}
}

func TestTakenAddress(t *testing.T) {
	r := newRig(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	r.cfg.FleetAddr = ln.Addr().String()
	err = Run(t.Context(), r.cfg)
	if err == nil || !strings.Contains(err.Error(), "MANIFOLD_FLEET_ADDR") {
		t.Errorf("got %v, want an error that says which variable moves us", err)
	}
	r.cfg.FleetAddr = "127.0.0.1:0"
	r.start() // the failed start has left nothing locked
}

func TestSystemdIsNotified(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(r.cfg.Run, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	r.start()
	must(t, r.stop())
	must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	before := ""
	for _, want := range []string{"READY=1\nSTATUS=serves", "WATCHDOG=1\nSTATUS=serves; hosts that joined: 0", "STOPPING=1\nSTATUS=ends; dynos and routers go on"} {
		got := before
		for buf := make([]byte, 100); got == before; { // the watchdog is fed again every ten seconds
			n, err := conn.Read(buf)
			must(t, err)
			got = string(buf[:n])
		}
		if before = want; got != want {
			t.Errorf("told systemd %q, want %q", got, want)
		}
	}
}

func TestSecretsStayOutOfTheLog(t *testing.T) {
	r := newRig(t)
	log, err := os.Create(filepath.Join(t.TempDir(), "log")) // who writes last does not matter to a file
	must(t, err)
	defer log.Close()
	r.cfg.Log = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r.start()
	token, join := r.file("first-token"), r.file("join-token")
	r.api("GET", "/account", token, "")
	_, err = manifold.Join(t.Context(), r.at.Fleet.String(), join, manifold.RoleAgent, "host")
	must(t, err)
	must(t, r.stop())
	secret, _, _ := strings.Cut(join, ".")
	text, err := os.ReadFile(log.Name())
	must(t, err)
	if said := string(text); strings.Contains(said, token) || strings.Contains(said, secret) {
		t.Error("a secret is in the log")
	} else if !strings.Contains(said, "coordinator ready") {
		t.Errorf("the log is %s", said)
	}
}

func TestFromEnv(t *testing.T) {
	for key, bad := range map[string]string{
		"MANIFOLD_STOP_GRACE": "-3s", "MANIFOLD_DRAIN_TIMEOUT": "soon", "MANIFOLD_BOOT_TIMEOUT": "1000h",
		"MANIFOLD_BACKOFF": "never", "MANIFOLD_SLUG_LIMIT": "0",
	} {
		t.Run(key, func(t *testing.T) {
			t.Setenv(key, bad)
			if _, err := FromEnv(); err == nil || !strings.HasPrefix(err.Error(), key+" must be") {
				t.Errorf("%s=%s gives %v", key, bad, err)
			}
		})
	}
	t.Setenv("MANIFOLD_STOP_GRACE", "5s")
	t.Setenv("MANIFOLD_BACKOFF", "progressive")
	c, err := FromEnv()
	must(t, err)
	if c.Scheduler.Grace != 5*time.Second || c.Scheduler.Backoff != manifold.BackoffProgressive || c.Scheduler.Drain != 30*time.Second {
		t.Errorf("settings are %+v", c.Scheduler)
	}
}
