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
const maxIdle = 256

// dyno is one run of a web dyno, from the first table that names it to the
// end of its last request.
type dyno struct {
	manifold.Backend
	open      atomic.Int64 // requests in progress on it
	withdrawn atomic.Bool  // no table in force names it
	until     atomic.Int64 // end of quarantine, nanoseconds since epoch
	trust     atomic.Int32
	failed    atomic.Int64 // requests in a row it did not answer
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

// epoch is what times are counted from that must not follow the host's clock
// when that is set: a dyno would be left alone for as long as it was set back.
var epoch = time.Now()

func (d *dyno) quarantine(until time.Time) { d.until.Store(int64(until.Sub(epoch))) }

func (d *dyno) quarantined(now time.Time) bool { return d.until.Load() > int64(now.Sub(epoch)) }

// Whether a request that must not be sent twice may go on a kept connection.
// It may if this dyno has shown that it keeps its connections open, and this
// one was used a moment ago, well within any server's idle time. A dyno that
// closed one without notice gets each of those requests on a fresh one.
const (
	trustUnknown int32 = iota
	trusted            // a kept connection was good, or quiet after settled
	distrusted
)

const (
	settled = 20 * time.Millisecond // a server that closes after an answer has done so
	recent  = time.Second
)

// reuse returns an idle connection that is still good, or nil. It was good a
// moment ago; the dyno may close it at any time. Safe says that the request
// may be sent once more if that happens.
func (d *dyno) reuse(safe bool) *dynoConn {
	if !safe && d.trust.Load() == trustUnknown {
		d.judge()
	}
	for {
		c := d.take()
		if c == nil {
			return nil
		}
		age := time.Since(c.idleSince)
		quiet := c.quiet()
		if !quiet && age < recent {
			d.trust.Store(distrusted)
		}
		switch {
		case !quiet:
			c.Close()
		case safe || d.trust.Load() == trusted && age < recent:
			c.reused = true
			return c
		default:
			d.keep(c, c.idleSince)
			return nil
		}
	}
}

// judge looks at the connection that was kept for longest.
func (d *dyno) judge() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.idle) == 0 || time.Since(d.idle[0].idleSince) < settled {
		return
	}
	if d.idle[0].quiet() {
		d.trust.Store(trusted)
	} else {
		d.trust.Store(distrusted)
	}
}

func (d *dyno) take() *dynoConn {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.idle)
	if n == 0 {
		return nil
	}
	c := d.idle[n-1]
	d.idle[n-1] = nil
	d.idle = d.idle[:n-1]
	return c
}

// keep puts a connection away for the next request.
func (d *dyno) keep(c *dynoConn, since time.Time) {
	c.x = nil
	c.idleSince = since
	_ = c.SetReadDeadline(time.Time{}) // one that passed would make quiet fail
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
