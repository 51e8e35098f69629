package router

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"manifold"
)

// echoHead answers with the request's head as the dyno got it.
func echoHead(t testing.TB) string {
	return rawDyno(t, func(c net.Conn, br *bufio.Reader) {
		for {
			var head strings.Builder
			for {
				line, err := br.ReadString('\n')
				if err != nil {
					return
				}
				if line == "\r\n" {
					break
				}
				head.WriteString(line)
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", head.Len(), head.String())
		}
	})
}

func TestHeadersToTheDyno(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, echoHead(t))
	_, port, _ := net.SplitHostPort(r.addr)
	_, br := r.dial("GET /p?q HTTP/1.1\r\nhOsT: " + appHost + "\r\nX-Odd-Case: kept\r\nX-Forwarded-For: 9.9.9.9\r\n" +
		"X-Forwarded-For: 8.8.8.8, 7.7.7.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 1\r\nX-Request-Start: 5\r\n" +
		"X-Forwarded-Host: fake\r\nVia: 1.0 a\r\nConnection: keep-alive, X-Secret, host\r\nX-Secret: gone\r\nKeep-Alive: 3\r\nTE: trailers\r\n" +
		"Proxy-Authorization: gone\r\nProxy-Connection: gone\r\nX-Request-Id: short\r\nCookie: a=b\r\n\r\n")
	before := time.Now().UnixMilli()
	_, head := answer(t, br, "GET")
	for _, want := range []string{
		"GET /p?q HTTP/1.1\r\nhOsT: " + appHost + "\r\nX-Odd-Case: kept\r\n", "X-Forwarded-For: 9.9.9.9, 8.8.8.8, 7.7.7.7, 127.0.0.1\r\n",
		"X-Forwarded-Proto: http\r\n", "X-Forwarded-Port: " + port + "\r\n", "X-Forwarded-Host: fake\r\n", "Via: 1.0 a, 1.1 manifold-router\r\n",
		"Cookie: a=b\r\n",
	} {
		if !strings.Contains(head, want) {
			t.Errorf("%q is missing in\n%s", want, head)
		}
	}
	for _, gone := range []string{"gone", "Keep-Alive", "TE:", "Expect", "Connection", "short", "https", "Content-Length", "Transfer-Encoding", "Port: 1\r"} {
		if strings.Contains(head, gone) {
			t.Errorf("%q went to the dyno:\n%s", gone, head)
		}
	}
	_, rest, _ := strings.Cut(head, "X-Request-Start: ")
	start, _, _ := strings.Cut(rest, "\r\n")
	if n, err := strconv.ParseInt(start, 10, 64); err != nil || n < before-60_000 || n > before+60_000 {
		t.Errorf("X-Request-Start %q", start)
	}
	_, rest, _ = strings.Cut(head, "X-Request-Id: ")
	id, _, _ := strings.Cut(rest, "\r\n")
	if u, err := uuid.Parse(id); err != nil || u.Version() != 4 {
		t.Errorf("X-Request-Id %q", id)
	}
	r.logged(`fwd="9.9.9.9, 8.8.8.8, 7.7.7.7, 127.0.0.1"`, "request_id="+id)
}

func TestRequestIDs(t *testing.T) {
	for id, keep := range map[string]bool{
		strings.Repeat("a", 19): false, strings.Repeat("a", 20): true, strings.Repeat("Z9+/=-", 30): true,
		strings.Repeat("a", 200): true, strings.Repeat("a", 201): false, strings.Repeat("a_", 20): false, strings.Repeat("a", 30) + "\"": false,
	} {
		if validRequestID(id) != keep {
			t.Errorf("%q: kept %v", id, !keep)
		}
	}
}

// TestRefusedRequests are those that could be read in two ways or break a
// bound. No dyno must see one.
func TestRefusedRequests(t *testing.T) {
	r := newRig(t, nil)
	seen := make(chan string, 100)
	r.routes(nil, dynoServer(t, func(_ http.ResponseWriter, q *http.Request) { seen <- q.URL.Path }))
	host := "Host: " + appHost + "\r\n"
	for name, c := range map[string]struct {
		text   string
		status int
	}{
		"length and chunked":      {"POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"chunked and length":      {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400},
		"two lengths":             {"POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", 400},
		"list of lengths":         {"POST / HTTP/1.1\r\n" + host + "Content-Length: 5, 5\r\n\r\nabcde", 400},
		"signed length":           {"POST / HTTP/1.1\r\n" + host + "Content-Length: +5\r\n\r\nabcde", 400},
		"huge length":             {"POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\n", 400},
		"chunked twice":           {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"other coding":            {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
		"coding with tab":         {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400},
		"chunked in 1.0":          {"POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"blank before colon":      {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
		"folded line":             {"GET / HTTP/1.1\r\n" + host + "A: b\r\n c\r\n\r\n", 400},
		"first line folded":       {"GET / HTTP/1.1\r\n A: b\r\n" + host + "\r\n", 400},
		"bare line feed":          {"GET / HTTP/1.1\n" + host + "\r\n", 400},
		"bare line feed in field": {"GET / HTTP/1.1\r\n" + host + "A: b\nB: c\r\n\r\n", 400},
		"bare return in field":    {"GET / HTTP/1.1\r\n" + host + "A: b\rB: c\r\n\r\n", 400},
		"NUL":                     {"GET / HTTP/1.1\r\n" + host + "A: \x00\r\n\r\n", 400},
		"no host":                 {"GET / HTTP/1.1\r\n\r\n", 400},
		"no host in 1.0":          {"GET / HTTP/1.0\r\n\r\n", 400},
		"two hosts":               {"GET / HTTP/1.1\r\n" + host + "Host: other\r\n\r\n", 400},
		"empty host":              {"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
		"host with path":          {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
		"host with quote":         {"GET / HTTP/1.1\r\nHost: a\"b\r\n\r\n", 400},
		"other host in target":    {"GET http://other/ HTTP/1.1\r\n" + host + "\r\n", 400},
		"no target":               {"GET  HTTP/1.1\r\n" + host + "\r\n", 400},
		"two blanks":              {"GET  / HTTP/1.1\r\n" + host + "\r\n", 400},
		"blank in target":         {"GET /a b HTTP/1.1\r\n" + host + "\r\n", 400},
		"no version":              {"GET /\r\n" + host + "\r\n", 400},
		"version 0.9":             {"GET / HTTP/0.9\r\n" + host + "\r\n", 505},
		"version 2":               {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		"CONNECT":                 {"CONNECT a:1 HTTP/1.1\r\n" + host + "\r\n", 405},
		"long method":             {strings.Repeat("M", 128) + " / HTTP/1.1\r\n" + host + "\r\n", 400},
		"odd method":              {"G\"T / HTTP/1.1\r\n" + host + "\r\n", 400},
		"long request line":       {"GET /" + strings.Repeat("a", 8192) + " HTTP/1.1\r\n" + host + "\r\n", 400},
		"long field":              {"GET / HTTP/1.1\r\n" + host + "A: " + strings.Repeat("a", 8190) + "\r\n\r\n", 400},
		"long name":               {"GET / HTTP/1.1\r\n" + host + strings.Repeat("a", 1001) + ": b\r\n\r\n", 400},
		"many fields":             {"GET / HTTP/1.1\r\n" + host + strings.Repeat("A: b\r\n", 1000) + "\r\n", 400},
		"relative target":         {"GET a HTTP/1.1\r\n" + host + "\r\n", 400},
		"star":                    {"GET * HTTP/1.1\r\n" + host + "\r\n", 400},
	} {
		_, br := r.dial(c.text)
		res, body := answer(t, br, "GET")
		if res.StatusCode != c.status || !res.Close || !strings.Contains(body, "<p>") {
			t.Errorf("%s: %s", name, res.Status)
		}
		if _, err := br.ReadByte(); err == nil || timedOut(err) {
			t.Errorf("%s: the connection goes on (%v)", name, err)
		}
	}
	select {
	case path := <-seen:
		t.Fatalf("a dyno got %s", path)
	default:
	}
}

func TestAcceptedOddities(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		fmt.Fprintf(w, "%s %s %s", q.Method, q.RequestURI, body)
	}))
	host := "Host: " + appHost + "\r\n"
	for text, want := range map[string]string{
		"GET http://" + appHost + "/x?y HTTP/1.1\r\n" + host + "\r\n":                                                    "GET /x?y ",
		"GET HTTP://" + appHost + "?y HTTP/1.1\r\n" + host + "\r\n":                                                      "GET /?y ",
		"\r\nGET / HTTP/1.1\r\n" + host + "\r\n":                                                                         "GET / ",
		"POST / HTTP/1.1\r\n" + host + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab":                                "POST / ab",
		"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: Chunked\r\n\r\n2;x=\"y\"\r\nab\r\n0\r\nT: v\r\n\r\n":          "POST / ab",
		"BREW /%41%ff?\"'<> HTTP/1.1\r\n" + host + "\r\n":                                                                "BREW /%41%ff?\"'<> ",
		"GET / HTTP/1.1\r\n" + host + "A:\r\nB: \t x \t\r\n\r\n":                                                         "GET / ",
		"GET /" + strings.Repeat("a", 8192-len("GET / HTTP/1.1")) + " HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n": "GET /aaa",
	} {
		_, br := r.dial(text)
		if res, body := answer(t, br, "GET"); res.StatusCode != 200 || !strings.HasPrefix(body, want) {
			t.Errorf("%.80q: %s %.80q", text, res.Status, body)
		}
	}
	_, br := r.dial("OPTIONS * HTTP/1.1\r\n" + host + "\r\n")
	if res, _ := answer(t, br, "OPTIONS"); res.StatusCode != 200 {
		t.Error(res.Status)
	}
}

func TestKeepAliveAndPipelining(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/slow" {
			time.Sleep(60 * ms) // longer than a glance: the watcher sees the next request
		}
		body, _ := io.ReadAll(q.Body)
		fmt.Fprintf(w, "%s%s", q.URL.Path, body)
	}))
	host := "Host: " + appHost + "\r\n"
	_, br := r.dial("GET /slow HTTP/1.1\r\n" + host + "\r\nPOST /2 HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc" +
		"POST /3 HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nGET /4 HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n")
	for _, want := range []string{"/slow", "/2abc", "/3x", "/4"} {
		if _, body := answer(t, br, "GET"); body != want {
			t.Fatalf("%q, want %q", body, want)
		}
	}
	if _, err := br.ReadByte(); err != io.EOF {
		t.Fatal(err)
	}
}

func TestHTTP10(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/long" {
			w.(http.Flusher).Flush()
		}
		fmt.Fprint(w, "hello")
	}))
	host := "Host: " + appHost + "\r\n"
	_, br := r.dial("GET /long HTTP/1.0\r\n" + host + "Connection: keep-alive\r\n\r\n")
	res, body := answer(t, br, "GET")
	if body != "hello" || len(res.TransferEncoding) > 0 || res.Proto != "HTTP/1.1" || !res.Close {
		t.Fatalf("%v %q", res, body)
	}
	c, br := r.dial("GET / HTTP/1.0\r\n" + host + "Connection: keep-alive\r\n\r\n")
	if res, body = answer(t, br, "GET"); body != "hello" || !strings.EqualFold(res.Header.Get("Connection"), "keep-alive") {
		t.Fatalf("%v %q", res, body)
	}
	fmt.Fprintf(c, "GET / HTTP/1.0\r\n%s\r\n", host)
	if res, body = answer(t, br, "GET"); body != "hello" || !res.Close {
		t.Fatalf("%v %q", res, body)
	}
	if _, err := br.ReadByte(); err != io.EOF {
		t.Fatal(err)
	}
}

func TestAnswersWithoutABody(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.Header().Set("Etag", `"x"`)
			w.WriteHeader(304)
		default:
			w.Header().Set("Content-Length", "5")
			fmt.Fprint(w, "hello")
		}
	}))
	c, br := r.dial("")
	for _, q := range []struct{ method, path string }{{"HEAD", "/"}, {"GET", "/204"}, {"GET", "/304"}, {"HEAD", "/304"}, {"GET", "/"}} {
		fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\n\r\n", q.method, q.path, appHost)
		res, body := answer(t, br, q.method)
		if q.method == "HEAD" && q.path == "/" && res.ContentLength != 5 {
			t.Errorf("HEAD lost the length: %v", res)
		}
		if (body != "") != (q.method == "GET" && q.path == "/") {
			t.Errorf("%v: %q", q, body)
		}
	}
	r.routes(func(r *manifold.Route) { r.Maintenance = true })
	fmt.Fprintf(c, "HEAD / HTTP/1.1\r\nHost: %s\r\n\r\nGET / HTTP/1.1\r\nHost: %s\r\n\r\n", appHost, appHost)
	if res, body := answer(t, br, "HEAD"); res.StatusCode != 503 || res.ContentLength < 100 || body != "" {
		t.Fatalf("%v %q", res, body)
	}
	if res, _ := answer(t, br, "GET"); res.StatusCode != 503 {
		t.Fatal(res.Status)
	}
}

func TestExpectContinueIsAnsweredByUs(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		fmt.Fprintf(w, "%s[%s]", body, q.Header.Get("Expect"))
	}))
	c, br := r.dial("POST / HTTP/1.1\r\nHost: " + appHost + "\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n")
	line, err := br.ReadString('\n')
	if empty, _ := br.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" || empty != "\r\n" {
		t.Fatalf("%q %v", line, err)
	}
	fmt.Fprint(c, "abc")
	if res, body := answer(t, br, "POST"); res.StatusCode != 200 || body != "abc[]" {
		t.Fatalf("%v %q", res, body)
	}
	// With an error instead, no 100 comes and the body is not waited for.
	r.routes(func(r *manifold.Route) { r.WebQuantity = 0 })
	_, br = r.dial("POST / HTTP/1.1\r\nHost: " + appHost + "\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
	if res, _ := answer(t, br, "POST"); res.StatusCode != 503 || !res.Close {
		t.Fatal(res)
	}
}

func TestTrailersAndInformationalAnswers(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(103)
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprint(w, "hello")
		w.Header().Set("X-Sum", q.Trailer.Get("X-Up"))
	}))
	_, br := r.dial("POST / HTTP/1.1\r\nHost: " + appHost + "\r\nTransfer-Encoding: chunked\r\nTrailer: X-Up\r\n\r\n" +
		"1\r\na\r\n0\r\nX-Up: 42\r\nContent-Length: 7\r\n\r\n")
	res, _ := answer(t, br, "POST")
	if res.StatusCode != 103 || res.Header.Get("Link") == "" {
		t.Fatal(res)
	}
	if res, body := answer(t, br, "POST"); body != "hello" || res.Trailer.Get("X-Sum") != "42" {
		t.Fatalf("%v %v", res, res.Trailer)
	}
}

// TestStreamingBothWays: each piece arrives before the next is sent.
func TestStreamingBothWays(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, func(w http.ResponseWriter, q *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		_ = rc.Flush()
		for br := bufio.NewReader(q.Body); ; {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprint(w, strings.ToUpper(line))
			_ = rc.Flush()
		}
	}))
	pr, pw := io.Pipe()
	req, _ := http.NewRequest("POST", "http://"+r.addr+"/", pr)
	req.Host = appHost
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for br, n := bufio.NewReader(res.Body), 0; n < 20; n++ {
		fmt.Fprintf(pw, "line %d\n", n)
		if line, err := br.ReadString('\n'); line != fmt.Sprintf("LINE %d\n", n) {
			t.Fatalf("%q %v", line, err)
		}
	}
	pw.Close()
	if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
		t.Fatal(rest, err)
	}
	r.logged("at=info", "status=200")
}

// TestLargeBodies echoes some megabytes with and without a length.
func TestLargeBodies(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		if q.URL.Path == "/length" {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		}
		_, _ = w.Write(body)
	}))
	data := make([]byte, 5<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	want := sha256.Sum256(data)
	for _, path := range []string{"/length", "/chunked"} {
		for _, body := range []io.Reader{bytes.NewReader(data), io.MultiReader(bytes.NewReader(data))} {
			if res, got := r.do("PUT", path, body, nil); sha256.Sum256([]byte(got)) != want {
				t.Fatalf("%s: %d bytes differ", path, len(got))
			} else if path == "/length" && res.ContentLength != int64(len(data)) {
				t.Fatal(res)
			}
			r.logged(fmt.Sprintf("bytes=%d", len(data)))
		}
	}
}

func TestEarlyAnswerToALongUpload(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, answers413(t))
	c, br := r.dial("POST / HTTP/1.1\r\nHost: " + appHost + "\r\nContent-Length: 100000000\r\n\r\nabc")
	go func() {
		for buf := make([]byte, 64<<10); ; {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	}()
	if res, body := answer(t, br, "POST"); res.StatusCode != 413 || body != "too much" {
		t.Fatalf("%v %q", res, body)
	}
	r.logged("at=info", "status=413")
}

func answers413(t testing.TB) string {
	return rawDyno(t, func(c net.Conn, br *bufio.Reader) {
		if _, err := http.ReadRequest(br); err == nil {
			fmt.Fprint(c, "HTTP/1.1 413 Too Much\r\nContent-Length: 8\r\n\r\ntoo much")
			_, _ = io.CopyN(io.Discard, br, 1<<20)
		}
	})
}

func TestCloseDelimitedAnswer(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, answers(t, "HTTP/1.0 200 OK\r\nX: y\r\n\r\nuntil the end"))
	for range 3 { // on one connection of the client
		if res, body := r.get("/"); body != "until the end" || res.Header.Get("Server") != serverName || res.Header.Get("Date") == "" {
			t.Fatalf("%v %q", res, body)
		}
		r.logged("at=info", "bytes=13")
	}
}

// TestLogInjection: no request can end its line, or a quoted value in it.
func TestLogInjection(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, hello("x")))
	_, br := r.dial("GET /\"%0aat=info\\\x80 HTTP/1.1\r\nHost: " + appHost + "\r\nX-Forwarded-For: \" status=200 \\ \xff\r\n\r\n")
	answer(t, br, "GET")
	r.logged(`path="/%22%0aat=info%5C%80"`, `fwd="%22 status=200 %5C %FF, 127.0.0.1"`)
	_, br = r.dial("GET /" + strings.Repeat("\"", 8000) + " HTTP/1.1\r\nHost: " + appHost + "\r\nX-Forwarded-For: " + strings.Repeat("é", 4000) + "\r\n\r\n")
	answer(t, br, "GET")
	if line := r.line(); len(line) > 9000 || !strings.HasSuffix(line, "protocol=http") || strings.Count(line, `"`) != 4 {
		t.Fatalf("%d bytes: %s", len(line), line)
	}
}

func TestErrorPageEscapes(t *testing.T) {
	f := refused(400, "<script>alert(1)</script>")
	if page := string(f.render("GET", `"><b>`, true)); strings.Contains(page, "<script>") || strings.Contains(page, "<b>") {
		t.Fatal(page)
	}
}

func TestSlowHeaderIsEnded(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Timeouts.Header = 3 * time.Second }) // for the first line, too
	c, br := r.dial("GET / HTTP/1.1\r\n")
	stop := make(chan struct{})
	defer close(stop)
	go func() { // a byte now and then does not help
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * ms):
				_, _ = io.WriteString(c, "X")
			}
		}
	}()
	if res, _ := answer(t, br, "GET"); res.StatusCode != 408 {
		t.Fatal(res.Status)
	}
}

// TestIdleConnectionIsEnded without a word, before or after a request.
func TestIdleConnectionIsEnded(t *testing.T) {
	for text, change := range map[string]func(*Config){
		"": func(c *Config) { c.Timeouts.Header = 150 * ms },
		"GET / HTTP/1.1\r\nHost: " + appHost + "\r\n\r\n": func(c *Config) { c.Timeouts.KeepAlive = 150 * ms },
	} {
		r := newRig(t, change)
		r.routes(nil, dynoServer(t, hello("x")))
		_, br := r.dial(text)
		if text != "" {
			answer(t, br, "GET")
		}
		if b, err := br.ReadByte(); err != io.EOF {
			t.Fatal(b, err)
		}
	}
}
