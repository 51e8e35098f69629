package router

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// heldConn waits in the middle of being hurried.
type heldConn struct {
	*net.TCPConn
	hurried, release chan struct{}
}

func (c *heldConn) SetReadDeadline(t time.Time) error {
	if t.After(longAgo) && time.Until(t) <= lastChance {
		close(c.hurried)
		<-c.release
		t = time.Now().Add(lastChance)
	}
	return c.TCPConn.SetReadDeadline(t)
}

// patientConn has all the time a test needs where a shutdown hurries it.
type patientConn struct{ *net.TCPConn }

func (c patientConn) SetReadDeadline(t time.Time) error {
	if t.After(longAgo) && time.Until(t) <= firstChance {
		t = time.Now().Add(patience)
	}
	return c.TCPConn.SetReadDeadline(t)
}

// connected is a user's connection and the router's end of it, which the router
// has yet to be given.
func connected(t *testing.T) (user, taken *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client.(*net.TCPConn), server.(*net.TCPConn)
}

// wasRead says whether the other end's program has read all that was written.
func wasRead(t *testing.T, user, taken *net.TCPConn) bool {
	t.Helper()
	left := 0
	for c, which := range map[*net.TCPConn]uint{user: unix.SIOCOUTQ, taken: unix.SIOCINQ} {
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			n, err := unix.IoctlGetInt(int(fd), which)
			if err != nil {
				t.Error(err)
			}
			left += n
		}); err != nil {
			t.Fatal(err)
		}
	}
	return left == 0
}

// A request that comes at the very moment at which a shutdown ends its idle
// connection has all its time.
func TestRequestMeetsShutdown(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			time.Sleep(3 * lastChance)
		}
		_, _ = io.WriteString(w, "hello")
	}))
	user, taken := connected(t)
	conn := &heldConn{taken, make(chan struct{}), make(chan struct{})}
	r.srv.start(conn)
	replies := bufio.NewReader(user)
	ask := func(path string) { fmt.Fprintf(user, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, appHost) }
	ask("/")
	answer(t, replies, "GET")
	var c *client
	r.srv.mu.Lock()
	for c = range r.srv.clients {
	}
	r.srv.mu.Unlock()
	until(t, "an idle connection", func() bool {
		c.between.Lock()
		defer c.between.Unlock()
		return c.idle
	})
	ended := make(chan struct{})
	go func() { r.srv.shutdown(10*time.Second, func() {}); close(ended) }()
	<-conn.hurried
	ask("/slow")
	until(t, "the request to be read", func() bool { return wasRead(t, user, taken) })
	close(conn.release)
	if res, text := answer(t, replies, "GET"); res.StatusCode != 200 || text != "hello" {
		t.Errorf("%d %q", res.StatusCode, text)
	}
	<-ended
}

// TestAskedInTime: a router that stood still beyond a deadline hears who asked
// before it, also over TLS.
func TestAskedInTime(t *testing.T) {
	for name, over := range map[string]func(net.Conn) net.Conn{
		"plain": func(c net.Conn) net.Conn { return c },
		"TLS":   func(c net.Conn) net.Conn { return &overConn{c} },
	} {
		t.Run(name, func(t *testing.T) {
			user, taken := connected(t)
			defer taken.Close()
			c := &client{conn: over(taken), br: bufio.NewReader(taken)}
			_ = taken.SetReadDeadline(longAgo)
			if c.asks() {
				t.Error("somebody asks who said nothing")
			}
			fmt.Fprint(user, "GET / HTTP/1.1\r\n")
			until(t, "it is there", func() bool { return waiting(c.conn) > 0 })
			_ = taken.SetReadDeadline(longAgo)
			if !c.asks() {
				t.Error("who asked is not heard")
			}
		})
	}
}

// overConn is over another connection, as tls.Conn is.
type overConn struct{ net.Conn }

func (c *overConn) NetConn() net.Conn { return c.Conn }
