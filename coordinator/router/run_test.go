package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/fleet"
	"manifold/coordinator/logs"
	"manifold/coordinator/pki"
	"manifold/test/port"
)

// coordinator is the real fleet door and log hub over mTLS; only the store is
// a stand-in.
type coordinator struct {
	*fleet.Server
	hub   *logs.Hub
	token string
	addr  string
	stop  func()
}

type registry struct{}

func (registry) RedeemJoinToken(_ context.Context, secret string) error {
	if secret != "secret" {
		return errors.New("no such token")
	}
	return nil
}

func (registry) AddHost(context.Context, manifold.Host) error { return nil }

// startCoordinator starts one in dir; a second one there goes on for the
// first, at its address. Addr "" means any.
func startCoordinator(t *testing.T, dir, addr string) *coordinator {
	t.Helper()
	key := filepath.Join(dir, "ca")
	ca, err := pki.Open(func(_ string, make func() ([]byte, error)) ([]byte, error) {
		if b, err := os.ReadFile(key); err == nil {
			return b, nil
		}
		b, err := make()
		if err == nil {
			err = os.WriteFile(key, b, 0o600)
		}
		return b, err
	})
	if err != nil {
		t.Fatal(err)
	}
	hub, err := logs.Open(filepath.Join(dir, "logs"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleet.Open(fleet.Config{
		Cluster: cluster, Store: registry{}, CA: ca, Names: []string{"127.0.0.1"}, Logs: hub,
		Dir: filepath.Join(dir, "fleet"), JobsDir: filepath.Join(dir, "jobs"), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, ln) }()
	var once sync.Once
	c := &coordinator{Server: f, hub: hub, token: "secret." + ca.Fingerprint(), addr: ln.Addr().String()}
	c.stop = func() {
		once.Do(func() {
			cancel()
			if err := errors.Join(<-done, f.Close(), hub.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(c.stop)
	return c
}

// startRouter runs a router with its state in dir.
func startRouter(t *testing.T, dir, fleetAddr, token string) (addr string, stop func()) {
	t.Helper()
	tokenFile := filepath.Join(dir, "token")
	if err := os.WriteFile(tokenFile, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{
			Settings: manifold.Settings{Home: dir, FleetAddr: fleetAddr}, TokenFile: tokenFile, Listener: ln,
			Log: slog.New(slog.DiscardHandler), Timeouts: Timeouts{Drain: patience},
		})
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

func fetch(t *testing.T, addr string) (int, string) {
	t.Helper()
	req, _ := http.NewRequest("GET", "http://"+addr+"/", nil)
	req.Host = appHost
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func routeTo(addr string) []manifold.Route {
	return []manifold.Route{{App: appID, Hosts: []string{appHost}, WebQuantity: 1,
		Backends: []manifold.Backend{{Run: "run-" + addr, Dyno: "web.1", Addr: addr}}}}
}

// TestLifeWithAndWithoutACoordinator joins, serves, acknowledges and logs;
// loses the coordinator, serves on, also after a restart; finds it again.
func TestLifeWithAndWithoutACoordinator(t *testing.T) {
	dir, home := t.TempDir(), t.TempDir()
	c := startCoordinator(t, dir, port.Closed(t))
	addr, stop := startRouter(t, home, c.addr, c.token)
	one := dynoServer(t, hello("one"))
	revision, err := c.SetRoutes(routeTo(one))
	if err != nil {
		t.Fatal(err)
	}
	acked := func(c *coordinator, revision int64) func() bool {
		return func() bool {
			rs := c.Routers()
			return len(rs) == 1 && rs[0].Live && rs[0].Acked >= revision
		}
	}
	until(t, "the ack", acked(c, revision))
	if status, body := fetch(t, addr); body != "one" {
		t.Fatal(status, body)
	}
	lines := func(c *coordinator) []logs.Line {
		lines, err := c.hub.Recent(appID, logs.Filter{Source: "heroku", Dyno: "router"}, 100)
		if err != nil {
			t.Fatal(err)
		}
		return lines
	}
	until(t, "the log line", func() bool { return len(lines(c)) == 1 })
	if l := lines(c)[0]; !strings.HasPrefix(l.Text, "at=info method=GET") {
		t.Fatal(l)
	}
	for _, name := range []string{identityFile, tableFile} {
		info, err := os.Stat(filepath.Join(home, "router", name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%s: %v %v", name, info, err)
		}
	}

	c.stop()
	for range 3 { // logged when the coordinator is back
		if status, body := fetch(t, addr); body != "one" {
			t.Fatal(status, body)
		}
	}
	c2 := startCoordinator(t, dir, c.addr)
	until(t, "the lines that waited", func() bool { return len(lines(c2)) == 4 })
	c2.stop()

	stop()
	addr, stop = startRouter(t, home, c.addr, "no.token")
	if status, body := fetch(t, addr); body != "one" {
		t.Fatalf("after a restart without a coordinator: %d %s", status, body)
	}
	two := dynoServer(t, hello("two"))
	c3 := startCoordinator(t, dir, c.addr)
	if revision, err = c3.SetRoutes(routeTo(two)); err != nil {
		t.Fatal(err)
	}
	until(t, "the ack after both restarts", acked(c3, revision))
	if status, body := fetch(t, addr); body != "two" {
		t.Fatal(status, body)
	}
	until(t, "lines of the second start beside those of the first", func() bool { return len(lines(c3)) == 6 })
	for _, l := range lines(c3) {
		if strings.Contains(l.Text, "L12") {
			t.Errorf("a gap where none is: %s", l)
		}
	}
	stop()
}

// TestDrainingIsAcknowledgedAtOnce watches what the coordinator hears while a
// withdrawn dyno still has a request open.
func TestDrainingIsAcknowledgedAtOnce(t *testing.T) {
	usual := ackEvery
	ackEvery = time.Hour // no regular one comes
	t.Cleanup(func() { ackEvery = usual })
	c := startCoordinator(t, t.TempDir(), "")
	addr, _ := startRouter(t, t.TempDir(), c.addr, c.token)
	arrived, release := make(chan struct{}), make(chan struct{})
	old := dynoServer(t, func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-release
		fmt.Fprint(w, "old")
	})
	if _, err := c.SetRoutes(routeTo(old)); err != nil {
		t.Fatal(err)
	}
	until(t, "the table", func() bool { rs := c.Routers(); return len(rs) == 1 && rs[0].Acked > 0 })
	got := make(chan string, 1)
	go func() {
		_, body := fetch(t, addr)
		got <- body
	}()
	<-arrived
	revision, err := c.SetRoutes(routeTo(dynoServer(t, hello("new"))))
	if err != nil {
		t.Fatal(err)
	}
	until(t, "an ack that names the open request", func() bool {
		rs := c.Routers()
		return rs[0].Acked == revision && rs[0].Draining["run-"+old] == 1
	})
	close(release)
	until(t, "an ack without it", func() bool { return len(c.Routers()[0].Draining) == 0 })
	if body := <-got; body != "old" {
		t.Fatal(body)
	}
}

// TestJoinRefused: it serves what it has and tries on.
func TestJoinRefused(t *testing.T) {
	home := t.TempDir()
	c := startCoordinator(t, t.TempDir(), "")
	_, fingerprint, _ := strings.Cut(c.token, ".")
	addr, _ := startRouter(t, home, c.addr, "wrong."+fingerprint)
	if status, _ := fetch(t, addr); status != 503 {
		t.Fatal(status)
	}
	if err := os.WriteFile(filepath.Join(home, "token"), []byte(c.token), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SetRoutes(routeTo(dynoServer(t, hello("x")))); err != nil {
		t.Fatal(err)
	}
	until(t, "the second try", func() bool { status, _ := fetch(t, addr); return status == 200 })
}

// TestDamagedStateOnDisk must not keep a router from starting.
func TestDamagedStateOnDisk(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, "router"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{identityFile, tableFile} {
		if err := os.WriteFile(filepath.Join(home, "router", name), []byte(`{"id":`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := startCoordinator(t, t.TempDir(), "")
	if _, err := c.SetRoutes(routeTo(dynoServer(t, hello("x")))); err != nil {
		t.Fatal(err)
	}
	addr, _ := startRouter(t, home, c.addr, c.token)
	until(t, "a fresh join", func() bool { status, _ := fetch(t, addr); return status == 200 })
}

// TestShutdownLetsRequestsFinish and cuts off what takes too long (H24).
func TestShutdown(t *testing.T) {
	c := startCoordinator(t, t.TempDir(), "")
	addr, stop := startRouter(t, t.TempDir(), c.addr, c.token)
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	if _, err := c.SetRoutes(routeTo(dynoServer(t, func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		fmt.Fprint(w, "finished")
	}))); err != nil {
		t.Fatal(err)
	}
	until(t, "the table", func() bool { rs := c.Routers(); return len(rs) == 1 && rs[0].Acked > 0 })
	idle, err := net.Dial("tcp", addr) // an idle client does not hold it up
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	got := make(chan string, 1)
	go func() {
		_, body := fetch(t, addr)
		got <- body
	}()
	<-arrived
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	if _, err := io.ReadAll(idle); err != nil {
		t.Fatal(err)
	}
	close(release)
	if body := <-got; body != "finished" {
		t.Fatal(body)
	}
	<-stopped
	lines, err := c.hub.Recent(appID, logs.Filter{}, 10) // the last lines went home too
	if err != nil || len(lines) != 1 {
		t.Fatal(lines, err)
	}
}

// TestShutdownHearsOut: who connected before it, and asks during it, gets an
// answer, and is told that there will be no other.
func TestShutdownHearsOut(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "heard") }))
	const ask = "GET / HTTP/1.1\r\nHost: " + appHost + "\r\n\r\n"
	fresh, taken := connected(t)
	r.srv.start(patientConn{taken})
	ended := make(chan struct{})
	_, cut := context.WithCancel(context.Background())
	go func() { r.srv.shutdown(10*time.Second, cut); close(ended) }()
	until(t, "the shutdown", r.srv.ending.Load)
	if _, err := io.WriteString(fresh, ask); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(fresh)
	if err != nil || !strings.Contains(string(text), "heard") || !strings.Contains(strings.ToLower(string(text)), "connection: close") {
		t.Errorf("%q, %v", text, err)
	}
	<-ended
}

func TestForcedCloseIsH24(t *testing.T) {
	r := newRig(t, nil)
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	defer close(release)
	r.routes(nil, dynoServer(t, func(http.ResponseWriter, *http.Request) { arrived <- struct{}{}; <-release }))
	_, br := r.dial("GET / HTTP/1.1\r\nHost: " + appHost + "\r\n\r\n")
	<-arrived
	_, cut := context.WithCancel(context.Background())
	r.srv.shutdown(50*ms, cut)
	if b, err := io.ReadAll(br); len(b) > 0 {
		t.Fatalf("%q %v", b, err)
	}
	r.logged("code=H24", `desc="Forced close"`, "dyno=web.1")
}
