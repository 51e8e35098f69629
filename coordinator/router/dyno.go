package router

import (
	"bufio"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"manifold"
)

// maxIdle bounds the idle connections kept to one dyno.
const maxIdle = 64

// dyno is one run of a web dyno, from the first table that names it to the
// end of its last request.
type dyno struct {
	manifold.Backend
	open      atomic.Int64 // requests in progress on it
	withdrawn atomic.Bool  // no table in force names it
	until     atomic.Int64 // end of quarantine, Unix nanoseconds
	drained   func()

	mu   sync.Mutex
	idle []*dynoConn // last used last
}

func newDyno(b manifold.Backend, drained func()) *dyno { return &dyno{Backend: b, drained: drained} }

// acquire counts one request on the dyno, unless it was withdrawn.
func (d *dyno) acquire() bool {
	d.open.Add(1)
	if d.withdrawn.Load() {
		d.release()
		return false
	}
	return true
}

// release ends what acquire began.
func (d *dyno) release() {
	if d.open.Add(-1) == 0 && d.withdrawn.Load() {
		d.drained()
	}
}

// withdraw lets no new request in and closes the idle connections.
func (d *dyno) withdraw() {
	d.withdrawn.Store(true)
	d.reap(time.Now().Add(time.Hour))
}

func (d *dyno) quarantine(until time.Time) { d.until.Store(until.UnixNano()) }

func (d *dyno) quarantined(now time.Time) bool { return d.until.Load() > now.UnixNano() }

// reuse returns an idle connection that is still good, or nil. It was good a
// moment ago; the dyno may close it at any time.
func (d *dyno) reuse() *dynoConn {
	for {
		d.mu.Lock()
		n := len(d.idle)
		if n == 0 {
			d.mu.Unlock()
			return nil
		}
		c := d.idle[n-1]
		d.idle[n-1] = nil
		d.idle = d.idle[:n-1]
		d.mu.Unlock()
		if c.quiet() {
			c.reused = true
			return c
		}
		c.Close()
	}
}

// keep puts a connection away for the next request.
func (d *dyno) keep(c *dynoConn) {
	c.x = nil
	c.idleSince = time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.withdrawn.Load() || len(d.idle) >= maxIdle {
		c.Close()
		return
	}
	d.idle = append(d.idle, c)
}

// reap closes the connections that were put away before then.
func (d *dyno) reap(before time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for n < len(d.idle) && d.idle[n].idleSince.Before(before) {
		d.idle[n].Close()
		n++
	}
	if n > 0 {
		d.idle = append([]*dynoConn(nil), d.idle[n:]...)
	}
}

// dial opens a fresh connection.
func (d *dyno) dial(ctx context.Context, timeout time.Duration) (*dynoConn, error) {
	dialer := net.Dialer{Timeout: timeout, KeepAlive: -1} // the windows of time are what ends a dead one
	conn, err := dialer.DialContext(ctx, "tcp", d.Addr)
	if err != nil {
		return nil, err
	}
	c := &dynoConn{Conn: conn}
	if c.raw, err = conn.(*net.TCPConn).SyscallConn(); err != nil {
		conn.Close()
		return nil, err
	}
	c.peek = func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		c.nothing = err == syscall.EAGAIN
		return true
	}
	c.br = bufio.NewReader(c)
	return c, nil
}

// dynoConn is one connection to a dyno. Its Read keeps the time of the
// exchange that uses it.
type dynoConn struct {
	net.Conn
	br        *bufio.Reader
	x         *exchange
	reused    bool
	idleSince time.Time

	raw     syscall.RawConn
	peek    func(fd uintptr) bool // made once, so that quiet allocates nothing
	nothing bool
}

// quiet says whether an idle connection has nothing to read, not even its
// end: bytes nobody asked for must not become the next request's answer.
func (c *dynoConn) quiet() bool {
	return c.br.Buffered() == 0 && c.raw.Read(c.peek) == nil && c.nothing
}

// Read reads for the exchange in progress.
func (c *dynoConn) Read(p []byte) (int, error) { return c.x.readDyno(p) }
