package router

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"manifold"
)

const (
	cluster = "test-cluster"
	appID   = "01234567-89ab-cdef-0123-456789abcdef"
	appHost = "myapp.localhost"
)

// patience is how long a test waits for what must happen: a machine may be busy
// with others' tests.
const patience = time.Minute

// rig is a router without a coordinator: tables are applied by hand, log
// lines are read from the shipper's queue.
type rig struct {
	t        testing.TB
	srv      *server
	addr     string
	revision int64
}

func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	cfg := Config{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	cfg = cfg.withDefaults()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cut := context.WithCancel(context.Background())
	tables := newTables(func() {})
	tables.belong(cluster)
	s := &server{ctx: ctx, cfg: cfg, logger: cfg.Log, tables: tables, ship: newShipper(cfg.Log), clients: map[*client]struct{}{}}
	accepting := make(chan struct{})
	go func() { defer close(accepting); s.accept(ln) }()
	t.Cleanup(func() {
		ln.Close()
		s.shutdown(0, cut)
		<-accepting
	})
	return &rig{t: t, srv: s, addr: ln.Addr().String()}
}

// routes puts a table with one app in force.
func (r *rig) routes(change func(*manifold.Route), addrs ...string) {
	r.t.Helper()
	route := manifold.Route{App: appID, Name: "myapp", Hosts: []string{appHost}, WebQuantity: max(len(addrs), 1)}
	for i, a := range addrs {
		route.Backends = append(route.Backends, manifold.Backend{Run: "run-" + a, Dyno: manifold.DynoName("web", i+1), Addr: a})
	}
	if change != nil {
		change(&route)
	}
	r.revision++
	r.apply(manifold.RouteTable{Cluster: cluster, Revision: r.revision, Routes: []manifold.Route{route}})
}

func (r *rig) apply(table manifold.RouteTable) {
	r.t.Helper()
	raw, err := json.Marshal(table)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.srv.tables.apply(raw); err != nil {
		r.t.Fatal(err)
	}
}

// dynoServer is a web dyno of Go.
func dynoServer(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// rawDyno is a dyno that speaks by hand: each connection is given to talk.
func rawDyno(t testing.TB, talk func(c net.Conn, br *bufio.Reader)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				talk(c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

// answers makes a raw dyno that reads a request and writes text.
func answers(t testing.TB, text string) string {
	return rawDyno(t, func(c net.Conn, br *bufio.Reader) {
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(c, text)
			if !strings.Contains(text, "ontent-Length") {
				return
			}
		}
	})
}

// get makes one request on a connection of its own.
func (r *rig) do(method, path string, body io.Reader, header http.Header) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://"+r.addr+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Host = appHost
	if h := header.Get("Host"); h != "" {
		req.Host = h
	}
	res, err := (&http.Transport{DisableKeepAlives: true, DisableCompression: true}).RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, string(text)
}

func (r *rig) get(path string) (*http.Response, string) {
	r.t.Helper()
	return r.do("GET", path, nil, nil)
}

// dial opens a raw connection and writes text to it.
func (r *rig) dial(text string) (net.Conn, *bufio.Reader) {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, text); err != nil {
		r.t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

// answer reads one whole answer to a request of that method.
func answer(t testing.TB, br *bufio.Reader, method string) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}

// line takes the next log line of the app, which comes a moment after the
// answer.
func (r *rig) line() string {
	r.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		batch := r.srv.ship.batch("r")
		for _, s := range batch.Streams {
			first := manifold.LogBatch{Streams: []manifold.LogStream{{App: s.App, Lines: s.Lines[:1]}}}
			r.srv.ship.sent(first)
			return s.Lines[0].Text
		}
	}
	r.t.Fatal("no log line")
	return ""
}

// logged checks the next log line for each of the parts.
func (r *rig) logged(parts ...string) {
	r.t.Helper()
	line := r.line()
	for _, p := range parts {
		if !strings.Contains(" "+line+" ", " "+p+" ") {
			r.t.Errorf("log line\n%s\nlacks %s", line, p)
		}
	}
}

// until polls for something that happens soon.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for: %s", what)
		}
	}
}

func hello(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }
}
