package router

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"manifold"
	"manifold/test/port"
)

const ms = time.Millisecond

func TestRequestAndItsLogLine(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, hello("Hello, World!")))
	res, body := r.do("GET", "/a?b=c", nil, http.Header{"X-Request-Id": {"0123456789abcdefghij"}})
	if res.StatusCode != 200 || body != "Hello, World!" || res.Header.Get("Via") != via {
		t.Fatalf("%v %q", res, body)
	}
	line := r.line()
	before, rest, _ := strings.Cut(line, " connect=")
	want := `at=info method=GET path="/a?b=c" host=myapp.localhost request_id=0123456789abcdefghij fwd="127.0.0.1" dyno=web.1`
	if before != want || !strings.HasSuffix(rest, "ms status=200 bytes=13 protocol=http") || !strings.Contains(rest, "ms service=") {
		t.Fatalf("%s", line)
	}
}

// TestCodesWithoutADyno are the answers that need no connection.
func TestCodesWithoutADyno(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*manifold.Route)
		status int
		at     string
		code   string
		desc   string
	}{
		{"crashed", func(r *manifold.Route) {}, 503, "error", "H10", "App crashed"},
		{"no web", func(r *manifold.Route) { r.WebQuantity = 0 }, 503, "error", "H14", "No web processes running"},
		{"maintenance", func(r *manifold.Route) { r.Maintenance, r.Blank = true, true }, 503, "info", "H80", "Maintenance mode"},
		{"blank", func(r *manifold.Route) { r.Blank = true }, 502, "info", "H81", "Blank app"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.routes(c.change)
			res, body := r.get("/x")
			if res.StatusCode != c.status || !strings.Contains(res.Header.Get("Content-Type"), "text/html") || !strings.Contains(body, "<h1>") {
				t.Fatalf("%v %s", res, body)
			}
			line := r.line()
			want := "at=" + c.at + " code=" + c.code + ` desc="` + c.desc + `" method=GET path="/x" host=myapp.localhost request_id=`
			if !strings.HasPrefix(line, want) || !strings.Contains(line, ` fwd="127.0.0.1" dyno= connect= service= status=`) ||
				!strings.HasSuffix(line, " bytes= protocol=http") {
				t.Fatalf("%s\n%s", line, want)
			}
		})
	}
}

func TestNoSuchAppAndNoTable(t *testing.T) {
	r := newRig(t, nil)
	if res, _ := r.get("/"); res.StatusCode != 503 {
		t.Fatalf("without a table: %d", res.StatusCode)
	}
	r.routes(nil, dynoServer(t, hello("x")))
	for _, host := range []string{"other.localhost", "localhost", "x.myapp.localhost", "127.0.0.1"} {
		res, body := r.do("GET", "/", nil, http.Header{"Host": {host}})
		if res.StatusCode != 404 || !strings.Contains(body, "No such app") {
			t.Fatalf("%s: %d %s", host, res.StatusCode, body)
		}
	}
	if batch := r.srv.ship.batch("r"); len(batch.Streams) != 0 {
		t.Fatalf("a log line for nobody: %v", batch)
	}
}

func TestHostsAndWildcards(t *testing.T) {
	r := newRig(t, nil)
	one, two := dynoServer(t, hello("exact")), dynoServer(t, hello("wild"))
	route := func(id, addr string, hosts ...string) manifold.Route {
		return manifold.Route{App: id, Hosts: hosts, WebQuantity: 1, Backends: []manifold.Backend{{Run: id, Dyno: "web.1", Addr: addr}}}
	}
	r.apply(manifold.RouteTable{Cluster: cluster, Revision: 1, Routes: []manifold.Route{
		route("a", one, "www.example.com"), route("b", two, "*.example.com"),
	}})
	for host, want := range map[string]string{
		"www.example.com": "exact", "WWW.Example.COM:8080": "exact", "www.example.com.": "exact", "x.example.com": "wild",
		"example.com": "", "a.b.example.com": "",
	} {
		res, body := r.do("GET", "/", nil, http.Header{"Host": {host}})
		if want == "" && res.StatusCode != 404 || want != "" && body != want {
			t.Errorf("%s: %d %s", host, res.StatusCode, body)
		}
	}
}

func TestH12FirstByteTooLate(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Timeouts.FirstByte = 150 * ms })
	release := make(chan struct{})
	defer close(release)
	r.routes(nil, dynoServer(t, func(http.ResponseWriter, *http.Request) { <-release }))
	began := time.Now()
	res, _ := r.get("/")
	if took := time.Since(began); res.StatusCode != 503 || took < 150*ms || took > 25*time.Second { // not the 30 s it is without this setting
		t.Fatalf("%d after %s", res.StatusCode, took)
	}
	r.logged("at=error", "code=H12", `desc="Request timeout"`, "dyno=web.1", "status=503", "bytes=0")
}

// TestH12CountsFromTheWholeRequest: a slow upload does not use up the time.
func TestH12CountsFromTheWholeRequest(t *testing.T) {
	const firstByte = 2 * time.Second // long for a dyno that answers at once
	r := newRig(t, func(c *Config) { c.Timeouts.FirstByte = firstByte })
	r.routes(nil, dynoServer(t, func(w http.ResponseWriter, q *http.Request) {
		n, _ := io.Copy(io.Discard, q.Body)
		w.Header().Set("X-Got", http.StatusText(int(n)))
	}))
	pr, pw := io.Pipe()
	go func() {
		for range 5 {
			_, _ = io.WriteString(pw, "some more")
			time.Sleep(firstByte / 4)
		}
		pw.Close()
	}()
	if res, _ := r.do("POST", "/", pr, nil); res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	r.logged("at=info", "status=200")
}

func TestH13ClosedWithoutResponse(t *testing.T) {
	for _, method := range []string{"GET", "POST"} {
		r := newRig(t, nil)
		r.routes(nil, rawDyno(t, func(c net.Conn, br *bufio.Reader) { _, _ = http.ReadRequest(br) }))
		if res, _ := r.do(method, "/", nil, nil); res.StatusCode != 503 {
			t.Fatal(res.Status)
		}
		r.logged("at=error", "code=H13", `desc="Connection closed without response"`, "dyno=web.1", "bytes=0")
	}
}

func TestH15IdleResponse(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Timeouts.Idle = time.Second })
	r.routes(nil, rawDyno(t, func(c net.Conn, br *bufio.Reader) {
		_, _ = http.ReadRequest(br)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
		_, _ = br.ReadByte()
	}))
	_, br := r.dial("GET / HTTP/1.1\r\nHost: " + appHost + "\r\n\r\n")
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); string(body) != "12345" || err != io.ErrUnexpectedEOF {
		t.Fatalf("%q %v", body, err)
	}
	r.logged("at=error", "code=H15", `desc="Idle connection"`, "status=503", "bytes=5")
}

func TestH17MalformedResponse(t *testing.T) {
	for _, text := range []string{
		"nonsense\r\n\r\n", "HTTP/1.1 200\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/2 200 OK\r\n\r\n", "HTTP/1.1 200 OK\nA: b\n\n",
		"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", "\r\n\r\n",
	} {
		r := newRig(t, nil)
		r.routes(nil, answers(t, text))
		if res, _ := r.get("/"); res.StatusCode != 503 {
			t.Fatalf("%q: %s", text, res.Status)
		}
		r.logged("code=H17", `desc="Poorly formatted HTTP response"`, "status=503")
	}
}

func TestH18BrokenOffResponse(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, rawDyno(t, func(c net.Conn, br *bufio.Reader) {
		_, _ = http.ReadRequest(br)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	}))
	_, br := r.dial("GET / HTTP/1.1\r\nHost: " + appHost + "\r\n\r\n")
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); string(body) != "hello" || err != io.ErrUnexpectedEOF {
		t.Fatalf("%q %v", body, err)
	}
	line := r.line()
	if !strings.HasPrefix(line, `sock=backend at=error code=H18 desc="Server Request Interrupted"`) {
		t.Fatal(line)
	}
}

// TestH19ConnectTimeout has a listener whose backlog is full.
func TestH19ConnectTimeout(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Timeouts.Connect = 100 * ms })
	full := fullListener(t)
	r.routes(nil, full)
	if res, _ := r.get("/"); res.StatusCode != 503 {
		t.Fatal(res.Status)
	}
	r.logged("code=H19", `desc="Backend connection timeout"`, "dyno=web.1", "service=", "bytes=")
}

func TestH20BootTimeoutAndHold(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Timeouts.Boot = 200 * ms })
	starting := func(r *manifold.Route) { r.Starting = 1 }
	r.routes(starting)
	if res, _ := r.get("/"); res.StatusCode != 503 {
		t.Fatal(res.Status)
	}
	r.logged("code=H20", `desc="App boot timeout"`, "dyno=")

	r = newRig(t, nil)
	r.routes(starting)
	got := make(chan string, 1)
	go func() {
		_, body := r.get("/")
		got <- body
	}()
	until(t, "the request to be held", func() bool {
		return r.srv.tables.current.Load().find(appHost).open.Load() == 1
	})
	r.routes(starting) // a table that changes nothing for it
	r.routes(nil, dynoServer(t, hello("booted")))
	if body := <-got; body != "booted" {
		t.Fatal(body)
	}
	r.logged("at=info", "dyno=web.1", "status=200")
}

// The body of a request that is held is read ahead by who watches its client.
func TestBodyComesWhileHeld(t *testing.T) {
	r := newRig(t, nil)
	r.routes(func(r *manifold.Route) { r.Starting = 1 })
	c, br := r.dial("POST / HTTP/1.1\r\nHost: " + appHost + "\r\nContent-Length: 4\r\n\r\n")
	until(t, "the request to be held", func() bool {
		return r.srv.tables.current.Load().find(appHost).open.Load() == 1
	})
	if _, err := io.WriteString(c, "body"); err != nil {
		t.Fatal(err)
	}
	until(t, "the body to be read", func() bool {
		r.srv.mu.Lock()
		defer r.srv.mu.Unlock()
		for held := range r.srv.clients {
			return waiting(held.conn) == 0
		}
		return false
	})
	r.routes(nil, dynoServer(t, func(w http.ResponseWriter, q *http.Request) { _, _ = io.Copy(w, q.Body) }))
	if _, body := answer(t, br, "POST"); body != "body" {
		t.Fatal(body)
	}
}

func TestH21RefusedAndQuarantine(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Timeouts.Quarantine = 300 * ms })
	dead := port.Closed(t)
	r.routes(nil, dead)
	if res, _ := r.get("/"); res.StatusCode != 503 {
		t.Fatal(res.Status)
	}
	r.logged("code=H21", `desc="Backend connection refused"`, "dyno=web.1", "status=503")
	// In quarantine it is not even tried; afterwards it is.
	end := r.srv.tables.current.Load().find(appHost).dynos[0].until.Load()
	r.get("/")
	if early := end - int64(time.Since(epoch)); early > 0 {
		t.Fatalf("tried again %s before its time", time.Duration(early))
	}
	r.logged("code=H21")
	// With a good one beside, nobody notices.
	r = newRig(t, nil)
	r.routes(nil, dead, dynoServer(t, hello("good")), port.Closed(t))
	for range 20 {
		if _, body := r.do("POST", "/", strings.NewReader("x"), nil); body != "good" {
			t.Fatal(body)
		}
		r.logged("at=info", "dyno=web.2")
	}
}

func TestH34AllQuarantined(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Timeouts.Boot, c.Timeouts.Quarantine = 200*ms, time.Minute })
	r.routes(nil, port.Closed(t))
	r.get("/")
	r.logged("code=H21")
	r.get("/")
	r.logged("code=H34", "status=503")
}

func TestH11TooManyRequests(t *testing.T) {
	r := newRig(t, func(c *Config) { c.PerDyno = 2 })
	release := make(chan struct{})
	r.routes(nil, dynoServer(t, func(http.ResponseWriter, *http.Request) { <-release }))
	done := make(chan int, 3)
	for range 2 {
		go func() {
			res, _ := r.get("/")
			done <- res.StatusCode
		}()
	}
	open := r.srv.tables.current.Load().find(appHost).open
	until(t, "two requests", func() bool { return open.Load() == 2 })
	if res, _ := r.get("/"); res.StatusCode != 503 {
		t.Fatal(res.Status)
	}
	r.logged("code=H11", `desc="Backlog too deep"`)
	close(release)
	if a, b := <-done, <-done; a != 200 || b != 200 {
		t.Fatal(a, b)
	}
}

func TestH25ResponseBreaksABound(t *testing.T) {
	for text, desc := range map[string]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n":                    "invalid content length",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n":           "invalid content length",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n":                                        "invalid content length",
		"HTTP/1.1 200 OK\r\nSet-Cookie: " + strings.Repeat("x", 8200) + "\r\n\r\n":             "oversized cookie",
		"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 513<<10) + "\r\n\r\n":                   "oversized header",
		"HTTP/1.1 200 " + strings.Repeat("x", 8200) + "\r\n\r\n":                               "oversized status line",
		"HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 1001) + "Content-Length: 0\r\n\r\n": "oversized header",
	} {
		r := newRig(t, nil)
		r.routes(nil, answers(t, text))
		if res, _ := r.get("/"); res.StatusCode != 502 {
			t.Fatalf("%.60q: %s", text, res.Status)
		}
		r.logged("code=H25", `desc="HTTP restriction: `+desc+`"`, "status=502")
	}
}

func TestH26(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, func(_ http.ResponseWriter, q *http.Request) { _, _ = io.Copy(io.Discard, q.Body) }))
	_, br := r.dial("POST / HTTP/1.1\r\nHost: " + appHost + "\r\nExpect: tea\r\nContent-Length: 3\r\n\r\nabc")
	if res, _ := answer(t, br, "POST"); res.StatusCode != 417 {
		t.Fatal(res.Status)
	}
	r.logged("code=H26", `desc="Request Error"`, `cause="unsupported expect header value"`, "dyno=", "status=417")
	_, br = r.dial("POST / HTTP/1.1\r\nHost: " + appHost + "\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
	if res, _ := answer(t, br, "POST"); res.StatusCode != 400 {
		t.Fatal(res.Status)
	}
	r.logged("code=H26", `cause="bad chunk"`, "dyno=web.1", "status=400")
}

func TestH27ClientLeaves(t *testing.T) {
	r := newRig(t, nil)
	arrived, left := make(chan struct{}, 1), make(chan struct{}, 1)
	r.routes(nil, dynoServer(t, func(_ http.ResponseWriter, q *http.Request) {
		arrived <- struct{}{}
		<-q.Context().Done() // the router hangs up on the dyno too
		left <- struct{}{}
	}))
	c, _ := r.dial("GET / HTTP/1.1\r\nHost: " + appHost + "\r\n\r\n")
	<-arrived
	c.Close()
	<-left
	line := r.line()
	if !strings.HasPrefix(line, `sock=client at=warning code=H27 desc="Client Request Interrupted"`) || !strings.Contains(line, " status=499 ") {
		t.Fatal(line)
	}
	// While it is held for a boot, and in the middle of its body.
	r.routes(func(r *manifold.Route) { r.Starting = 1 })
	c, _ = r.dial("GET / HTTP/1.1\r\nHost: " + appHost + "\r\n\r\n")
	until(t, "hold", func() bool { return r.srv.tables.current.Load().find(appHost).open.Load() == 1 })
	c.Close()
	r.logged("code=H27", "dyno=", "status=499")
	r.routes(nil, dynoServer(t, func(_ http.ResponseWriter, q *http.Request) { _, _ = io.Copy(io.Discard, q.Body) }))
	c, _ = r.dial("POST / HTTP/1.1\r\nHost: " + appHost + "\r\nContent-Length: 10\r\n\r\nabc")
	c.Close()
	r.logged("code=H27", "dyno=web.1", "status=499")
}

func TestH28ClientStopsSending(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Timeouts.Idle = time.Second })
	r.routes(nil, dynoServer(t, func(_ http.ResponseWriter, q *http.Request) { _, _ = io.Copy(io.Discard, q.Body) }))
	_, br := r.dial("POST / HTTP/1.1\r\nHost: " + appHost + "\r\nContent-Length: 10\r\n\r\nabc")
	if n, err := br.ReadByte(); err != io.EOF {
		t.Fatal(n, err)
	}
	r.logged("at=warning", "code=H28", `desc="Client Connection Idle"`, "status=499")
}

// Want of descriptors is this host's fault: it takes no dyno out of use.
func TestOwnFaultBlamesNoDyno(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, hello("hello")))
	ask := "GET / HTTP/1.1\r\nHost: " + appHost + "\r\n\r\n"
	user, replies := r.dial("") // has its descriptors
	until(t, "the connection", func() bool {
		r.srv.mu.Lock()
		defer r.srv.mu.Unlock()
		return len(r.srv.clients) == 1
	})
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 3, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, err := io.WriteString(user, ask)
	res, readErr := http.ReadResponse(replies, nil)
	if err := errors.Join(err, readErr, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	if res.StatusCode != 503 {
		t.Errorf("answer %d", res.StatusCode)
	}
	r.logged("code=H99")
	d := r.srv.tables.current.Load().hosts[appHost].dynos[0]
	if d.failed.Load() != 0 || d.quarantined(time.Now()) {
		t.Errorf("the dyno is blamed: %d failures, quarantined %v", d.failed.Load(), d.quarantined(time.Now()))
	}
	fmt.Fprint(user, ask)
	if res, text := answer(t, replies, "GET"); res.StatusCode != 200 || text != "hello" {
		t.Errorf("%d %q", res.StatusCode, text)
	}
}
