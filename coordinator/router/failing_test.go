package router

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"manifold/test/port"
)

// A dyno that does not answer is told of, once it is more than bad luck, and
// no more as soon as it answers again.
func TestFailingDynosAreToldOf(t *testing.T) {
	var well atomic.Bool
	addr := rawDyno(t, func(c net.Conn, br *bufio.Reader) {
		if _, err := http.ReadRequest(br); err == nil && well.Load() {
			_, _ = io.WriteString(c, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
	})
	r := newRig(t, nil)
	r.routes(nil, addr)
	for n := 1; n <= failingFrom+1; n++ {
		r.get("/")
		r.logged("code=H13")
		want := 0
		if n >= failingFrom {
			want = n
		}
		if got := r.srv.tables.ack().Failing["run-"+addr]; got != want {
			t.Fatalf("after %d requests without an answer it says %d, want %d", n, got, want)
		}
	}
	well.Store(true)
	r.get("/") // its own error is an answer
	until(t, "a dyno that answers to be told of no more", func() bool { return r.srv.tables.ack().Failing == nil })
}

// Nobody listens: connecting fails.
func TestUnreachableDynosAreToldOf(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Timeouts.Quarantine = time.Millisecond })
	addr := port.Closed(t)
	r.routes(nil, addr)
	for range failingFrom {
		r.get("/")
		r.logged("code=H21")
	}
	if got := r.srv.tables.ack().Failing["run-"+addr]; got < failingFrom {
		t.Errorf("it says %d of a dyno nobody reaches", got)
	}
}
