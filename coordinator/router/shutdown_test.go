package router

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// heldConn waits in the middle of being hurried.
type heldConn struct {
	*net.TCPConn
	hurried, release chan struct{}
}

func (c *heldConn) SetReadDeadline(t time.Time) error {
	if left := time.Until(t); left > 0 && left <= lastChance {
		close(c.hurried)
		<-c.release
		t = time.Now().Add(left)
	}
	return c.TCPConn.SetReadDeadline(t)
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
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	user, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	taken, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn := &heldConn{taken.(*net.TCPConn), make(chan struct{}), make(chan struct{})}
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
	select { // whichever goes first
	case <-time.After(lastChance):
	case <-ended:
	}
	close(conn.release)
	if res, text := answer(t, replies, "GET"); res.StatusCode != 200 || text != "hello" {
		t.Errorf("%d %q", res.StatusCode, text)
	}
	<-ended
}
