package agent

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"manifold/test/port"
)

// TestWorks: what a dyno may answer when it is asked whether it works.
func TestWorks(t *testing.T) {
	pages := http.NewServeMux()
	status := func(path string, code int) {
		pages.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/hangs")
			if r.Host != "app.localhost" {
				code = http.StatusForbidden
			}
			w.WriteHeader(code)
		})
	}
	status("/well", 204)
	status("/elsewhere", 302)
	status("/ill", 503)
	status("/early", 404)
	raw := func(path string, write func(net.Conn)) {
		pages.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				write(conn)
				conn.Close()
			}
		})
	}
	const timeout = 100 * time.Millisecond // of what does not answer
	forever := func(conn net.Conn, text string) {
		for { // until the other end has had enough
			if _, err := fmt.Fprint(conn, text); err != nil {
				return
			}
		}
	}
	raw("/hangs", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }) // until nobody waits any more
	raw("/garbage", func(c net.Conn) { fmt.Fprint(c, "\x00\x1b[31mHTTP/9 boo\r\n\r\n") })
	raw("/head", func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\n"); forever(c, "X-More: and more\r\n") })
	raw("/continue", func(c net.Conn) { forever(c, "HTTP/1.1 103 Early Hints\r\n\r\n") })
	raw("/body", func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n"); forever(c, strings.Repeat("more", 1000)) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: pages}
	go func() { _ = server.Serve(listener) }()
	url := "http://" + listener.Addr().String()
	for path, want := range map[string]string{
		"/well": "", "/elsewhere": "", "/body": "", "/ill": "status 503", "/early": "status 404",
		"/hangs": "no answer in 100ms", "/garbage": "no HTTP answer", "/head": "no HTTP answer", "/continue": "no HTTP answer",
	} {
		got, wait := "", patience
		if path == "/hangs" {
			wait = timeout
		}
		if err := works(t.Context(), url+path, "app.localhost", wait); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 3, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err = works(t.Context(), url+"/well", "app.localhost", patience)
	if err := errors.Join(err, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)); err != nil {
		t.Errorf("a host without a free descriptor: %v", err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := works(t.Context(), "http://"+port.Closed(t), "app.localhost", patience); err == nil || err.Error() != "connection refused" {
		t.Errorf("nobody there: %v", err)
	}
}
