package router

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"manifold/coordinator/router/http1"
)

// writers are lent to clients, most of which are idle most of the time.
var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 8<<10) }}

// server takes clients' connections.
type server struct {
	ctx    context.Context // of dialling; ends when open requests are cut off
	cfg    Config
	logger *slog.Logger
	tables *tables
	ship   *shipper

	ending  atomic.Bool
	mu      sync.Mutex
	clients map[*client]struct{}
	running sync.WaitGroup
}

// client is one connection of a client.
type client struct {
	srv   *server
	conn  net.Conn
	out   deadlineWriter
	br    *bufio.Reader
	bw    *bufio.Writer // during a request
	req   http1.Request
	res   http1.Response
	addr  string // without port
	port  string // that it came to
	proto string
	room  []byte // for heads

	x atomic.Pointer[exchange] // in progress

	// between guards idle, and the read deadline of a connection that is.
	between sync.Mutex
	idle    bool // between requests
	asked   bool // a request came
}

// accept serves ln until it is closed.
func (s *server) accept(ln net.Listener) {
	for pause := 5 * time.Millisecond; ; {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			s.start(conn)
		case errors.Is(err, net.ErrClosed):
			return
		default: // out of descriptors, most likely: let some requests end
			s.logger.Error("cannot take connections", "err", err)
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
		}
	}
}

// reap closes connections to dynos that nobody used for DynoIdle.
func (s *server) reap(ctx context.Context) {
	every := s.cfg.Timeouts.DynoIdle / 10
	for sleep(ctx, every); ctx.Err() == nil; sleep(ctx, every) {
		s.tables.reap(time.Now().Add(-s.cfg.Timeouts.DynoIdle))
	}
}

func (s *server) start(conn net.Conn) {
	c := &client{srv: s, conn: conn, proto: "http"}
	c.out = deadlineWriter{conn, s.cfg.Timeouts.Idle}
	c.addr, _, _ = net.SplitHostPort(conn.RemoteAddr().String())
	_, c.port, _ = net.SplitHostPort(conn.LocalAddr().String())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[c] = struct{}{}
	s.running.Go(func() {
		defer s.forget(c)
		c.serve()
	})
}

// forget ends a client. Should its goroutine have panicked, that one request
// is lost, not the router with all the others.
func (s *server) forget(c *client) {
	if p := recover(); p != nil {
		s.logger.Error("a request met a fault of the router", "panic", p, "stack", string(debug.Stack()))
		if x := c.x.Load(); x != nil {
			x.stop(h99)
			x.end(false)
			s.log(x, h99)
		}
	}
	s.mu.Lock()
	delete(s.clients, c)
	s.mu.Unlock()
}

// Whoever just connected is about to ask, and whoever is idle may have asked
// already: their requests are not lost to a shutdown that comes in between.
const (
	firstChance = time.Second            // for the first request of a connection
	lastChance  = 100 * time.Millisecond // for another one that is on its way
)

// rest begins the wait for a request, the next or the first.
func (c *client) rest(wait time.Duration) {
	c.between.Lock()
	defer c.between.Unlock()
	c.idle = true
	_ = c.conn.SetReadDeadline(time.Now().Add(wait))
	if c.srv.ending.Load() { // else its shutdown has yet to look at us
		c.hurry()
	}
}

// asks waits for the first byte of a request. A deadline that has passed is told
// without a look at what came: a router that stood still until then would throw
// away who asked in time.
func (c *client) asks() bool {
	_, err := c.br.Peek(1)
	if timedOut(err) && waiting(c.conn) > 0 {
		_ = c.conn.SetReadDeadline(time.Now().Add(lastChance)) // it is here; TLS has to open it
		_, err = c.br.Peek(1)
	}
	return err == nil
}

// waiting is how many bytes came that were not read (tcp(7), SIOCINQ).
func waiting(conn net.Conn) (n int) {
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok { // of TLS
		conn = over.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
	return n
}

// wake ends it: a request is here.
func (c *client) wake() {
	c.between.Lock()
	defer c.between.Unlock()
	c.idle, c.asked = false, true
	_ = c.conn.SetReadDeadline(time.Now().Add(c.srv.cfg.Timeouts.Header))
}

// hurry leaves an idle connection its chance. The caller holds between: a request
// that comes in between must not have its time cut.
func (c *client) hurry() {
	switch {
	case !c.idle:
	case c.asked:
		_ = c.conn.SetReadDeadline(time.Now().Add(lastChance))
	default:
		_ = c.conn.SetReadDeadline(time.Now().Add(firstChance))
	}
}

// shutdown ends idle connections after their chance and the others after their
// request, but none later than patience from now. No connection may be started
// any more.
func (s *server) shutdown(patience time.Duration, cut context.CancelFunc) {
	s.mu.Lock()
	s.ending.Store(true)
	for c := range s.clients {
		c.between.Lock()
		c.hurry()
		c.between.Unlock()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
		cut()
		return
	case <-timer.C:
	}
	cut()
	s.mu.Lock()
	for c := range s.clients {
		if x := c.x.Load(); x != nil {
			x.stop(h24)
		}
		c.conn.Close()
	}
	s.mu.Unlock()
	<-done
}

func (c *client) serve() {
	defer c.conn.Close()
	c.br = bufio.NewReader(c.conn)
	t := &c.srv.cfg.Timeouts
	wait := t.Header // for the first request; then an idle connection's time
	for {
		c.rest(wait)
		if !c.asks() {
			return
		}
		c.wake()
		wait = t.KeepAlive
		if err := c.req.Read(c.br); err != nil {
			c.refuse(err)
			return
		}
		_ = c.conn.SetReadDeadline(time.Time{})
		x := &exchange{client: c, srv: c.srv, req: &c.req, res: &c.res, body: c.req.Body(c.br), start: time.Now()}
		c.x.Store(x)
		c.bw = writers.Get().(*bufio.Writer)
		c.bw.Reset(c.out)
		more := x.run()
		writers.Put(c.bw)
		c.x.Store(nil)
		if !more {
			if !x.body.Done() && x.status != 499 && x.status != 101 {
				c.linger()
			}
			return
		}
	}
}

// refuse answers a request that could not be read, if there is somebody to
// answer.
func (c *client) refuse(err error) {
	var r *http1.Refusal
	switch {
	case errors.As(err, &r):
	case timedOut(err):
		r = &http1.Refusal{Status: 408, Why: "The request did not arrive in time."}
	default:
		return
	}
	f := refused(r.Status, r.Why)
	if _, err := c.out.Write(f.render(c.req.Method, "", true)); err == nil {
		c.linger()
	}
}

// linger ends our side of the connection and reads what the client still
// sends, for a moment: were it closed at once, the client's kernel could throw
// the answer away (RFC 9112, 9.6).
func (c *client) linger() {
	closeWrite(c.conn)
	_ = c.conn.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.CopyN(io.Discard, c.conn, 1<<20)
}

// deadlineWriter gives up on a reader that takes nothing for a while.
type deadlineWriter struct {
	net.Conn
	idle time.Duration
}

func (w deadlineWriter) Write(p []byte) (int, error) {
	_ = w.SetWriteDeadline(time.Now().Add(w.idle))
	return w.Conn.Write(p)
}
