package router

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"manifold/coordinator/router/http1"
)

// exchange is one request and its answer.
//
//	find app ─▶ choose dyno ─▶ connect ─▶ send head ─▶ send body ┐
//	    │           ▲             │ refused, late               ├─▶ end ─▶ log line
//	    │           └─────────────┘        read head ─▶ relay  ─┘
//	    └─▶ error page                         └─▶ 101: pipe
//
// The client's goroutine runs it. What the client sends meanwhile, its body or
// its end, is read by a second one, the watcher, if it does not all come at
// once. A request holds its dyno from choose to end; tables may change
// meanwhile. After the first byte of a request was written to a dyno it is
// never sent again, but for one case: a safe request without a body, on a
// connection that was kept from an earlier one and gave no answer. Other
// requests go on such a connection only where it can be trusted (dyno.reuse).
type exchange struct {
	client *client
	srv    *server
	req    *http1.Request
	res    *http1.Response
	body   *http1.Body // the request's
	start  time.Time
	id     string // X-Request-Id
	fwd    string // X-Forwarded-For

	route    *route
	dyno     *dyno
	dynoName string // the last one tried
	conn     *dynoConn
	single   bool          // conn must not be kept
	fresh    bool          // no kept connection is to be used any more
	connect  time.Duration // how long connecting took
	service  time.Time     // when it was done; zero: never

	status   int   // sent to the client
	bytes    int64 // of the body, from the dyno
	headSent bool  // the answer has begun
	last     bool  // the client's connection ends with this exchange
	watcher  *watcher

	// mu guards what the watcher and the shutdown touch, and the read
	// deadline of conn with it.
	mu       sync.Mutex
	sending  bool      // the body is on its way
	answered bool      // the first byte of the answer came
	sentAt   time.Time // when the request was handed over
	abort    *failure  // why somebody else ended the exchange
	aborted  chan struct{}
}

// run serves the request and says whether the client's connection can take
// another.
func (x *exchange) run() bool {
	x.last = x.req.Last || x.srv.ending.Load()
	f := x.serve()
	if x.dyno != nil {
		switch {
		case f == h12, f == h13:
			x.dyno.failed.Add(1)
		case f == nil, x.headSent:
			x.dyno.failed.Store(0)
		}
	}
	x.end(f == nil)
	if f != nil {
		f = x.fail(f)
	}
	x.srv.log(x, f)
	return !x.last
}

// serve finds the app and the dyno and relays. It returns why that failed.
func (x *exchange) serve() *failure {
	x.id, x.fwd = requestID(x.req), forwardedFor(x.req, x.client.addr)
	r := x.srv.tables.current.Load().find(x.req.Host)
	if f := x.admit(r); f != nil {
		return f
	}
	if x.route.open.Add(1) > int64(x.srv.cfg.PerDyno*max(len(r.dynos), r.WebQuantity, 1)) {
		x.route.open.Add(-1)
		return h11
	}
	defer x.route.open.Add(-1)
	for {
		if f := x.choose(); f != nil {
			return f
		}
		f := x.exchange()
		if f == h13 && x.conn.reused {
			x.dyno.trust.Store(distrusted)
		} else if x.conn.reused {
			x.dyno.trust.CompareAndSwap(trustUnknown, trusted)
		}
		if f != h13 || !x.conn.reused || !x.safe() {
			return f
		}
		// A kept connection that the dyno closed at the same moment: once
		// more, on one that cannot be stale.
		x.dropConn()
		x.stopWatch()
		x.fresh, x.sentAt, x.answered = true, time.Time{}, false
	}
}

// safe says whether the request may be sent a second time: its method
// promises that nothing happens by it (RFC 9110, 9.2.1).
func (x *exchange) safe() bool {
	switch x.req.Method {
	case "GET", "HEAD", "OPTIONS":
		return x.req.Length == 0
	}
	return false
}

// admit says which requests get an answer without a dyno.
func (x *exchange) admit(r *route) *failure {
	x.route = r
	switch {
	case r == nil && !x.srv.tables.current.Load().known:
		return noTable
	case r == nil:
		return noApp
	case r.Maintenance:
		return h80
	case r.Blank:
		return h81
	case r.WebQuantity == 0:
		return h14
	case x.req.Expects:
		return h26expect
	}
	return nil
}

// maxTries bounds the dynos that are tried for one request.
const maxTries = 10

// choose finds a dyno that can be connected to. Dynos that cannot are left
// alone for a while and others tried; if none is up yet it waits for one.
func (x *exchange) choose() *failure {
	var tried []*dyno
	var refusal *failure
	end := x.start.Add(x.srv.cfg.Timeouts.Boot)
	for pause := 10 * time.Millisecond; ; {
		t := x.srv.tables.current.Load()
		r := t.find(x.req.Host)
		if f := x.admit(r); f != nil {
			return f
		}
		var d *dyno
		switch {
		case len(r.dynos) == 0 && r.Starting == 0:
			return h10
		case len(r.dynos) == 0:
			if f := x.wait(t, end, end, h20); f != nil {
				return f
			}
			continue
		case len(tried) < maxTries:
			d = r.pick(time.Now(), tried)
		}
		if d == nil && refusal != nil {
			return refusal
		}
		if d == nil {
			if f := x.wait(t, time.Now().Add(pause), end, h34); f != nil {
				return f
			}
			pause = min(2*pause, time.Second)
			continue
		}
		if !d.acquire() {
			continue // withdrawn this moment: there is a newer table
		}
		err := x.connectTo(d)
		if err == nil {
			return nil
		}
		d.release()
		if f := x.why(); f != nil {
			return f
		}
		if ownFault(err) {
			return h99
		}
		d.failed.Add(1)
		d.quarantine(time.Now().Add(x.srv.cfg.Timeouts.Quarantine))
		tried = append(tried, d)
		refusal = h21
		if timedOut(err) {
			refusal = h19
		}
	}
}

// connectTo takes a connection to d, kept or new.
func (x *exchange) connectTo(d *dyno) error {
	began := time.Now()
	x.dynoName = d.Dyno
	var c *dynoConn
	if x.req.Upgrade == "" && !x.fresh {
		c = d.reuse(x.safe())
	}
	x.single = x.req.Upgrade != "" || !x.safe() && d.trust.Load() == distrusted
	if c == nil {
		var err error
		if c, err = d.dial(x.srv.ctx, x.srv.cfg.Timeouts.Connect); err != nil {
			x.connect = time.Since(began)
			return err
		}
	}
	c.x = x
	x.mu.Lock()
	x.dyno, x.conn = d, c
	x.mu.Unlock()
	x.service = time.Now()
	x.connect = x.service.Sub(began)
	return nil
}

// ownFault tells a connection that could not be made here from one that the
// dyno did not take: descriptors, memory or ports of this host are short
// (connect(2), socket(2)), and it is no reason to leave a dyno alone.
func ownFault(err error) bool {
	for _, short := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, short) {
			return true
		}
	}
	return false
}

// wait holds the request until the table changes or a time comes. Past end
// it fails with late.
func (x *exchange) wait(t *table, until, end time.Time, late *failure) *failure {
	if !time.Now().Before(end) {
		return late
	}
	x.watch(nil)
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-t.superseded:
	case <-timer.C:
	case <-x.gone():
	}
	return x.why()
}

// exchange sends the request on x.conn and relays the answer.
func (x *exchange) exchange() *failure {
	if f := x.send(); f != nil {
		return f
	}
	for range 64 {
		if err := x.res.Read(x.conn.br, x.req.Method); err != nil {
			return x.blame(err)
		}
		switch {
		case x.res.Status == 101:
			return x.upgrade()
		case x.res.Status >= 200:
			return x.relay()
		case x.res.Status != 100 && x.req.Minor == 1:
			// 103 Early Hints and the like. 100 was answered by us.
			if _, err := x.client.bw.Write(x.appendResponse(nil, x.res, none)); err != nil {
				return h27
			}
			if err := x.client.bw.Flush(); err != nil {
				return h27
			}
		}
	}
	return h17
}

// send writes the head, and the body if it is here already. Else the watcher
// sends it while the answer is awaited.
func (x *exchange) send() *failure {
	b := x.appendRequest(x.client.room[:0], x.single)
	here := x.watcher == nil && x.req.Length > 0 && x.req.Length <= int64(x.client.br.Buffered()) // a watcher may be reading
	if here {
		n := len(b)
		b = append(b, make([]byte, x.req.Length)...)
		if _, err := io.ReadFull(x.body, b[n:]); err != nil {
			return h27
		}
	}
	x.client.room = b[:0]
	x.mu.Lock()
	x.sending, x.sentAt = !x.body.Done(), time.Now()
	sending := x.sending
	x.mu.Unlock()
	_ = x.conn.SetWriteDeadline(time.Now().Add(x.srv.cfg.Timeouts.Idle))
	if _, err := x.conn.Write(b); err != nil {
		return h13
	}
	if sending {
		x.stopWatch()
		if x.req.Continue {
			if _, err := io.WriteString(x.client.out, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
				return h27
			}
		}
		x.watch(x.body)
	}
	return nil
}

// blame finds the failure behind an error of the dyno's side.
func (x *exchange) blame(err error) *failure {
	if f := x.why(); f != nil {
		return f
	}
	var restriction http1.Restriction
	switch {
	case errors.As(err, &restriction):
		return h25(string(restriction))
	case errors.Is(err, http1.ErrMalformed), errors.Is(err, http1.ErrChunk):
		return h17
	case timedOut(err) && !x.answered:
		return h12
	case timedOut(err):
		return h15
	case !x.answered:
		return h13
	}
	return h18
}

// end stops the watcher and gives the dyno and its connection back.
func (x *exchange) end(ok bool) {
	if x.watcher != nil && ok && !x.watcher.sent(100*time.Millisecond) {
		ok = false // answered before the body was all there
	}
	if x.conn != nil && (!ok || x.single || x.res.Last || x.conn.br.Buffered() > 0) {
		x.conn.Close()
		x.single = true
	}
	x.stopWatch()
	if !x.body.Done() {
		x.last = true
	}
	if x.dyno == nil {
		return
	}
	if x.conn != nil && !x.single {
		x.dyno.keep(x.conn, time.Now())
	}
	x.dyno.release()
	x.dyno = nil
}

// dropConn ends an attempt that is tried again.
func (x *exchange) dropConn() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.conn.Close()
	x.dyno.release()
	x.conn, x.dyno = nil, nil
}

// fail answers with an error page if nothing was sent yet, and returns the
// failure to be logged.
func (x *exchange) fail(f *failure) *failure {
	x.status = f.status
	if x.headSent || f.status == 499 || f == h24 {
		x.last = true
		return f
	}
	x.last = x.last || x.req.Minor == 0
	shown := *f
	if shown.page == nil {
		shown.page = pageApp
	}
	if _, err := x.client.out.Write(shown.render(x.req.Method, x.id, x.last)); err != nil {
		x.last = true
	}
	return f
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}
