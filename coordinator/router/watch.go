package router

import (
	"errors"
	"io"
	"sync"
	"time"

	"manifold/coordinator/router/http1"
)

// glance is how long a dyno's answer is awaited before somebody is set to
// watch the client meanwhile. Most answers come sooner.
const glance = 20 * time.Millisecond

// longAgo as a deadline ends a read or write at once.
var longAgo = time.Unix(1, 0)

// watcher is the goroutine that reads the client's side of an exchange.
type watcher struct {
	x    *exchange
	body *http1.Body   // to be sent to the dyno, if any
	over chan struct{} // closed when the body is sent; it may also be done
	done chan struct{}
	quit bool // the exchange ended; guarded by exchange.mu
}

// watch starts the watcher if there is none.
func (x *exchange) watch(body *http1.Body) {
	if x.watcher != nil {
		return
	}
	w := &watcher{x: x, body: body, over: make(chan struct{}), done: make(chan struct{})}
	x.watcher = w
	go w.run()
}

// stopWatch ends the watcher and waits for it. The client's connection can be
// read by others after it.
func (x *exchange) stopWatch() {
	w := x.watcher
	if w == nil {
		return
	}
	x.mu.Lock()
	w.quit = true
	_ = x.client.conn.SetReadDeadline(longAgo)
	x.mu.Unlock()
	<-w.done
	_ = x.client.conn.SetReadDeadline(time.Time{})
	x.watcher = nil
}

// sent waits a little for the body to be all with the dyno.
func (w *watcher) sent(patience time.Duration) bool {
	if w.body == nil {
		return true
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-w.over:
		return w.body.Done()
	case <-timer.C:
		return false
	}
}

func (w *watcher) run() {
	defer close(w.done)
	f := w.send()
	close(w.over)
	if f != nil {
		w.x.stop(f)
		return
	}
	if !w.deadline(time.Time{}) {
		return
	}
	// The next request, which waits its turn, or the client's end.
	if _, err := w.x.client.br.Peek(1); err != nil && w.deadline(time.Time{}) {
		w.x.stop(h27)
	}
}

// deadline sets the client's read deadline unless the exchange has ended.
func (w *watcher) deadline(t time.Time) bool {
	w.x.mu.Lock()
	defer w.x.mu.Unlock()
	if !w.quit {
		_ = w.x.client.conn.SetReadDeadline(t)
	}
	return !w.quit
}

// send relays the body to the dyno.
func (w *watcher) send() *failure {
	x := w.x
	if w.body == nil {
		return nil
	}
	idle := x.srv.cfg.Timeouts.Idle
	buf := buffers.Get().(*[bufferBytes]byte)
	defer buffers.Put(buf)
	var frame []byte
	for {
		if !w.deadline(time.Now().Add(idle)) {
			return nil
		}
		n, err := w.body.Read(buf[:])
		out := buf[:n]
		if x.req.Length == http1.Chunked {
			frame = frame[:0]
			if n > 0 {
				frame = append(append(http1.AppendChunk(frame, n), out...), '\r', '\n')
			}
			if err == io.EOF {
				frame = http1.AppendEnd(frame, w.body.Trailers())
			}
			out = frame
		}
		if len(out) > 0 {
			_ = x.conn.SetWriteDeadline(time.Now().Add(idle))
			if _, err := x.conn.Conn.Write(out); timedOut(err) {
				return h12 // it does not take the request
			} else if err != nil {
				return nil // it may have answered all the same
			}
		}
		switch {
		case err == io.EOF || err == nil && w.body.Done():
			x.sent()
			return nil
		case err == nil:
		case !w.deadline(time.Time{}):
			return nil
		case timedOut(err):
			return h28
		case errors.Is(err, http1.ErrChunk):
			return h26chunk
		default:
			return h27
		}
	}
}

// sent starts the time for the first byte of the answer.
func (x *exchange) sent() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.sending, x.sentAt = false, time.Now()
	if !x.answered && x.abort == nil {
		_ = x.conn.SetReadDeadline(x.sentAt.Add(x.srv.cfg.Timeouts.FirstByte))
	}
}

// stop ends the exchange from outside its goroutine.
func (x *exchange) stop(f *failure) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.abort != nil {
		return
	}
	x.abort = f
	if x.aborted != nil {
		close(x.aborted)
	}
	if x.conn != nil {
		_ = x.conn.SetReadDeadline(longAgo)
	}
}

// gone is closed when stop is called.
func (x *exchange) gone() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.aborted == nil {
		x.aborted = make(chan struct{})
		if x.abort != nil {
			close(x.aborted)
		}
	}
	return x.aborted
}

// why says what stop said, if it did.
func (x *exchange) why() *failure {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.abort
}

// readDyno reads what the dyno sends and keeps its time: FirstByte from when
// the request was handed over, then Idle between any two bytes.
func (x *exchange) readDyno(p []byte) (int, error) {
	conn := x.conn.Conn
	if x.watcher == nil {
		_ = conn.SetReadDeadline(time.Now().Add(glance))
		if n, err := conn.Read(p); n > 0 || !timedOut(err) {
			x.answered = x.answered || n > 0
			return n, err
		}
		x.watch(nil)
	}
	x.mu.Lock()
	switch t := &x.srv.cfg.Timeouts; {
	case x.abort != nil:
		_ = conn.SetReadDeadline(longAgo)
	case x.answered:
		_ = conn.SetReadDeadline(time.Now().Add(t.Idle))
	case x.sending:
		_ = conn.SetReadDeadline(time.Time{})
	default:
		_ = conn.SetReadDeadline(x.sentAt.Add(t.FirstByte))
	}
	x.mu.Unlock()
	n, err := conn.Read(p)
	if n > 0 {
		x.mu.Lock()
		x.answered = true
		x.mu.Unlock()
	}
	return n, err
}

const bufferBytes = 32 << 10

var buffers = sync.Pool{New: func() any { return new([bufferBytes]byte) }}
