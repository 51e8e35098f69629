package router

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"manifold"
)

// TestSwapsUnderLoad replaces dynos as a deploy does, about twenty times a
// second, while requests of all kinds go on: no request may fail or be seen
// twice, and no dyno may be asked anything once it was said to be drained.
func TestSwapsUnderLoad(t *testing.T) {
	r := newRig(t, nil)
	var posts atomic.Int64
	type webDyno struct {
		*httptest.Server
		gone atomic.Bool
	}
	newDyno := func() *webDyno {
		d := &webDyno{}
		d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if d.gone.Load() {
				t.Error("a drained dyno was asked")
			}
			body, _ := io.ReadAll(q.Body)
			if q.Method == "POST" {
				posts.Add(1)
			}
			time.Sleep(time.Duration(len(q.URL.Path)) * ms)
			fmt.Fprintf(w, "ok%s", body)
		}))
		return d
	}
	addr := func(d *webDyno) string { return d.Listener.Addr().String() }
	up := []*webDyno{newDyno(), newDyno()}
	r.routes(nil, addr(up[0]), addr(up[1]))

	const clients, each, enough = 8, 250, 20
	var sent, requests, swaps atomic.Int64
	var failed sync.Map
	var load sync.WaitGroup
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	for n := range clients {
		load.Go(func() {
			for i := 0; i < each || swaps.Load() < enough; i++ {
				requests.Add(1)
				method, body := "GET", ""
				if i%3 == 0 {
					method, body = "POST", "body"
					sent.Add(1)
				}
				path := "/" + strings.Repeat("x", i%20)
				req, _ := http.NewRequest(method, "http://"+r.addr+path, strings.NewReader(body))
				req.Host = appHost
				res, err := transport.RoundTrip(req)
				if err != nil {
					failed.Store(fmt.Sprint(n, i), err)
					continue
				}
				text, err := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode != 200 || string(text) != "ok"+body || err != nil {
					failed.Store(fmt.Sprint(n, i), fmt.Sprintf("%s %v %s", res.Status, err, r.line()))
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { load.Wait(); close(done) }()
	for loading := true; loading; swaps.Add(1) {
		next := newDyno()
		old := up[0]
		up = []*webDyno{up[1], next}
		r.routes(nil, addr(up[0]), addr(up[1]))
		until(t, "the old dyno to drain", func() bool { return len(r.srv.tables.ack().Draining) == 0 })
		old.gone.Store(true)
		old.Close()
		select {
		case <-done:
			loading = false
		case <-time.After(20 * ms):
		}
	}
	up[0].Close()
	up[1].Close()
	failed.Range(func(k, v any) bool {
		t.Errorf("request %v: %v", k, v)
		return true
	})
	if posts.Load() != sent.Load() {
		t.Errorf("%d POSTs sent, %d seen", sent.Load(), posts.Load())
	}
	t.Logf("%d requests, %d swaps", requests.Load(), swaps.Load())
}

func TestAckCountsOpenRequestsOfWithdrawnDynos(t *testing.T) {
	r := newRig(t, nil)
	drained := make(chan struct{}, 10)
	r.srv.tables.drained = func() { drained <- struct{}{} }
	release := make(chan struct{})
	old := dynoServer(t, func(w http.ResponseWriter, _ *http.Request) { <-release; fmt.Fprint(w, "old") })
	r.routes(nil, old)
	got := make(chan string, 2)
	for range 2 {
		go func() {
			_, body := r.get("/")
			got <- body
		}()
	}
	open := r.srv.tables.current.Load().find(appHost).open
	until(t, "both requests", func() bool { return open.Load() == 2 })
	until(t, "both on the dyno", func() bool {
		r.srv.tables.mu.Lock()
		defer r.srv.tables.mu.Unlock()
		return r.srv.tables.dynos["run-"+old+" "+old].open.Load() == 2
	})
	r.routes(nil, dynoServer(t, hello("new")))
	ack := r.srv.tables.ack()
	if ack.Revision != 2 || len(ack.Draining) != 1 || ack.Draining["run-"+old] != 2 {
		t.Fatalf("%+v", ack)
	}
	if _, body := r.get("/"); body != "new" {
		t.Fatal(body)
	}
	close(release)
	if a, b := <-got, <-got; a != "old" || b != "old" {
		t.Fatal(a, b)
	}
	<-drained
	if ack := r.srv.tables.ack(); ack.Revision != 2 || len(ack.Draining) != 0 {
		t.Fatalf("%+v", ack)
	}
}

func TestBadTablesAreRefused(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, hello("good")))
	route := func(change func(*manifold.Route)) manifold.RouteTable {
		x := manifold.Route{App: "b", Hosts: []string{"b.localhost"}, Backends: []manifold.Backend{{Run: "r", Dyno: "web.1", Addr: "127.0.0.1:1"}}}
		change(&x)
		return manifold.RouteTable{Cluster: cluster, Revision: 9, Routes: []manifold.Route{x}}
	}
	bad := map[string]any{
		"not an object": "x", "routes not a list": map[string]any{"cluster": cluster, "routes": 5}, "no cluster": map[string]any{"revision": 9},
		"other cluster": manifold.RouteTable{Cluster: "other", Revision: 9},
		"no app id":     route(func(r *manifold.Route) { r.App = "" }),
		"upper case":    route(func(r *manifold.Route) { r.Hosts = []string{"B.localhost"} }),
		"empty host":    route(func(r *manifold.Route) { r.Hosts = []string{""} }),
		"host twice":    route(func(r *manifold.Route) { r.Hosts = []string{"a", "a"} }),
		"host and port": route(func(r *manifold.Route) { r.Hosts = []string{"a:80"} }),
		"stars":         route(func(r *manifold.Route) { r.Hosts = []string{"*.*.a"} }),
		"no port":       route(func(r *manifold.Route) { r.Backends[0].Addr = "127.0.0.1" }),
		"a name":        route(func(r *manifold.Route) { r.Backends[0].Addr = "localhost:80" }),
		"no run":        route(func(r *manifold.Route) { r.Backends[0].Run = "" }),
		"dyno's name":   route(func(r *manifold.Route) { r.Backends[0].Dyno = "web 1" }),
		"app twice":     manifold.RouteTable{Cluster: cluster, Routes: []manifold.Route{{App: "a"}, {App: "a"}}},
	}
	for name, table := range bad {
		raw, err := json.Marshal(table)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.srv.tables.apply(raw); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, raw := range []string{"", "{", "null", `{"cluster":"` + cluster} {
		if err := r.srv.tables.apply([]byte(raw)); err == nil {
			t.Errorf("%q: accepted", raw)
		}
	}
	if ack := r.srv.tables.ack(); ack.Revision != 1 {
		t.Fatalf("%+v", ack)
	}
	if _, body := r.get("/"); body != "good" {
		t.Fatal(body)
	}
	// What we do not know is no harm.
	if err := r.srv.tables.apply([]byte(`{"cluster":"` + cluster + `","revision":3,"new":{},"routes":[{"app":"a","shape":"round"}]}`)); err != nil {
		t.Fatal(err)
	}
}

func TestDynosAreChosenAtRandom(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, hello("1")), dynoServer(t, hello("2")), dynoServer(t, hello("3")))
	count := map[string]int{}
	for range 300 {
		_, body := r.get("/")
		count[body]++
	}
	for _, name := range []string{"1", "2", "3"} {
		if n := count[name]; n < 50 || n > 150 { // six standard deviations from 100
			t.Errorf("dyno %s got %d of 300", name, n)
		}
	}
}

// TestConnectionsAreReused, and quietly replaced when the dyno closes them.
func TestConnectionsAreReused(t *testing.T) {
	r := newRig(t, nil)
	var conns atomic.Int64
	srv := httptest.NewUnstartedServer(hello("x"))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	r.routes(nil, srv.Listener.Addr().String())
	client, br := r.dial("")
	for i := range 50 { // on one connection, so that each finds what the last put back
		if i%10 == 0 {
			time.Sleep(2 * glance)
		}
		fmt.Fprintf(client, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", appHost)
		answer(t, br, "GET")
	}
	if n := conns.Load(); n != 1 {
		t.Fatalf("%d connections for 50 requests", n)
	}
	for range 50 {
		srv.CloseClientConnections()
		if res, _ := r.get("/"); res.StatusCode != 200 {
			t.Fatal(res.Status)
		}
	}
	r.srv.tables.reap(time.Now().Add(time.Second))
	r.routes(nil, dynoServer(t, hello("y"))) // the withdrawn one's are closed
}

// TestStaleConnections: a dyno that closes a kept connection just when the
// next request is on its way. A GET goes out once more on a fresh connection,
// which also shows the dyno's ways; a POST is on a fresh one from the start and
// so never seen twice.
func TestStaleConnections(t *testing.T) {
	r := newRig(t, nil)
	var mu sync.Mutex
	seen := map[string]int{}
	r.routes(nil, rawDyno(t, func(c net.Conn, br *bufio.Reader) {
		for n := 0; ; n++ {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			mu.Lock()
			seen[req.URL.Path]++
			mu.Unlock()
			if n > 0 {
				return // read it and hang up
			}
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}))
	for i := range 20 {
		for _, method := range []string{"GET", "GET", "POST", "DELETE"} {
			if res, body := r.do(method, fmt.Sprintf("/%s%d", method, i), nil, nil); body != "ok" {
				t.Fatalf("%s %d: %s", method, i, res.Status)
			}
			r.logged("at=info", "status=200")
		}
	}
	for path, n := range seen {
		if !strings.HasPrefix(path, "/GET") && n != 1 || n > 4 {
			t.Errorf("%s was seen %d times", path, n)
		}
	}
}

// TestSilentCloser answers and closes without notice, as servers do that know
// nothing of kept connections. No request may fail for it, at any pace.
func TestSilentCloser(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, rawDyno(t, func(c net.Conn, br *bufio.Reader) {
		if req, err := http.ReadRequest(br); err == nil {
			_, _ = io.Copy(io.Discard, req.Body)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}))
	var load sync.WaitGroup
	for range 8 {
		load.Go(func() {
			for i := range 50 {
				if res, body := r.do([]string{"POST", "GET"}[i%2], "/", nil, nil); body != "ok" {
					t.Errorf("%d: %s", i, res.Status)
				}
			}
		})
	}
	load.Wait()
}

// TestPostsShareConnections once the dyno has shown that it keeps them.
func TestPostsShareConnections(t *testing.T) {
	r := newRig(t, nil)
	var conns atomic.Int64
	addr := rawDyno(t, func(c net.Conn, br *bufio.Reader) {
		conns.Add(1)
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	r.routes(nil, addr)
	c, br := r.dial("")
	post := func() {
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 1\r\n\r\nx", appHost)
		answer(t, br, "POST")
	}
	post()
	d := r.srv.tables.dynos["run-"+addr+" "+addr]
	until(t, "a connection that stays open", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.idle) == 1 && time.Since(d.idle[0].idleSince) > settled
	})
	for range 100 {
		post()
	}
	if n := conns.Load(); n > 10 { // one, but where this test had to wait for its turn
		t.Fatalf("%d connections for 101 POSTs", n)
	}
	// A connection that has been idle for long is not trusted with one. (The
	// last one is put away when its answer is out already.)
	until(t, "all connections are idle", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		if len(d.idle) < int(conns.Load()) {
			return false
		}
		for _, c := range d.idle {
			c.idleSince = c.idleSince.Add(-recent)
		}
		return true
	})
	before := conns.Load()
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 1\r\n\r\nx", appHost)
	answer(t, br, "POST")
	if conns.Load() != before+1 {
		t.Fatal("a POST went on an old connection")
	}
}

// TestUnaskedBytesOnAKeptConnection must not become the next one's answer,
// whether they come with the last answer or after it.
func TestUnaskedBytesOnAKeptConnection(t *testing.T) {
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	r := newRig(t, nil)
	later := make(chan net.Conn, 1)
	addr := rawDyno(t, func(c net.Conn, br *bufio.Reader) {
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			text := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + req.URL.Path
			if req.URL.Path == "/a" {
				text += evil
			}
			fmt.Fprint(c, text)
			if req.URL.Path == "/l" {
				later <- c
			}
		}
	})
	r.routes(nil, addr)
	d := r.srv.tables.dynos["run-"+addr+" "+addr]
	for range 5 {
		for _, path := range []string{"/a", "/b", "/l"} {
			if _, body := r.get(path); body != path {
				t.Fatalf("%q for %q", body, path)
			}
		}
		until(t, "the connection to be put away", func() bool { return d.open.Load() == 0 })
		fmt.Fprint(<-later, evil)
		until(t, "the bytes to arrive", func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return slices.ContainsFunc(d.idle, func(c *dynoConn) bool { return !c.quiet() })
		})
	}
}

// TestWithdrawnDynoTakesNoRequest is the moment between a look at the old
// table and the request's start.
func TestWithdrawnDynoTakesNoRequest(t *testing.T) {
	drained := 0
	d := newDyno(manifold.Backend{Run: "r"}, func() { drained++ })
	if !d.acquire() {
		t.Fatal("not withdrawn yet")
	}
	d.withdraw()
	if d.acquire() || d.open.Load() != 1 || drained != 0 {
		t.Fatal("it took a request", d.open.Load(), drained)
	}
	d.release()
	if d.open.Load() != 0 || drained != 1 {
		t.Fatal(d.open.Load(), drained)
	}
}

// TestQuarantineEndsWhenTheClockIsSetBack: it is as long as it is.
func TestQuarantineEndsWhenTheClockIsSetBack(t *testing.T) {
	d := newDyno(manifold.Backend{Run: "r"}, func() {})
	d.quarantine(time.Now().Add(time.Hour))
	after := time.Now().Add(2 * time.Hour)
	// What time.Now() gives when the clock was set back by three hours: of a time's two
	// readings (package time, Monotonic Clocks) that of the wall's.
	(*struct{ wall uint64 })(unsafe.Pointer(&after)).wall -= 3 * 3600 << 30
	if drift := time.Until(after); drift < 0 || time.Until(after.Round(0)) > 0 {
		t.Fatal("this is not how a time is kept any more", drift)
	}
	if d.quarantined(after) || !d.quarantined(time.Now()) {
		t.Fatal("it follows the host's clock")
	}
}

// TestPanicCostsOneRequest: a fault of ours must not end the router.
func TestPanicCostsOneRequest(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, hello("x")))
	broken := &route{Route: manifold.Route{App: "broken", WebQuantity: 1}, dynos: []*dyno{nil}, open: new(atomic.Int64)}
	r.srv.tables.current.Load().hosts["broken"] = broken
	_, br := r.dial("GET / HTTP/1.1\r\nHost: broken\r\n\r\n")
	if b, err := io.ReadAll(br); len(b) > 0 {
		t.Fatalf("%q %v", b, err)
	}
	r.logged("code=H99")
	if _, body := r.get("/"); body != "x" || broken.open.Load() != 0 {
		t.Fatal(body, broken.open.Load())
	}
}
