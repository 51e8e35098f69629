package router

import (
	"io"
	"net"
	"sync/atomic"
	"time"

	"manifold/coordinator/router/http1"
)

// relay passes the answer on as it comes: what is there is sent before more
// is awaited.
func (x *exchange) relay() *failure {
	res, out := x.res, x.client.bw
	how := none
	switch {
	case x.req.Method == "HEAD" || res.Status == 204 || res.Status == 304:
	case res.Length >= 0:
		how = asLength
	case x.req.Minor == 1:
		how = asChunks
	default:
		how, x.last = toClose, true
	}
	x.headSent, x.status = true, res.Status
	body := res.Body(x.conn.br)
	x.client.room = x.appendResponse(x.client.room[:0], res, how)
	if _, err := out.Write(x.client.room); err != nil {
		return h27
	}
	if how != none {
		if f := x.relayBody(body, how); f != nil {
			return f
		}
	}
	if err := out.Flush(); err != nil {
		return h27
	}
	return nil
}

func (x *exchange) relayBody(body *http1.Body, how framing) *failure {
	out := x.client.bw
	buf := buffers.Get().(*[bufferBytes]byte)
	defer buffers.Put(buf)
	var frame [24]byte
	for !body.Done() {
		if body.Buffered() == 0 && out.Buffered() > 0 {
			if err := out.Flush(); err != nil {
				return h27
			}
		}
		n, err := body.Read(buf[:])
		x.bytes += int64(n)
		if n > 0 && how == asChunks {
			_, _ = out.Write(http1.AppendChunk(frame[:0], n)) // an error stays with out
		}
		if n > 0 {
			_, werr := out.Write(buf[:n])
			if how == asChunks {
				_, werr = out.WriteString("\r\n")
			}
			if werr != nil {
				return h27
			}
		}
		if err != nil && err != io.EOF {
			_ = out.Flush() // what came before the end is the client's
			return x.blame(err)
		}
	}
	if how == asChunks {
		_, _ = out.Write(http1.AppendEnd(nil, body.Trailers()))
	}
	return nil
}

// upgrade passes the 101 on and becomes a pipe for bytes, until one side ends
// it or both are silent for Timeouts.Idle.
func (x *exchange) upgrade() *failure {
	if x.req.Upgrade == "" {
		return h17 // nobody asked for it
	}
	if x.res.Upgrade == "" {
		x.res.Upgrade = x.req.Upgrade
	}
	x.stopWatch()
	if f := x.why(); f != nil {
		return f
	}
	x.headSent, x.status, x.last = true, 101, true
	_, _ = x.client.bw.Write(x.appendResponse(nil, x.res, none))
	if err := x.client.bw.Flush(); err != nil {
		return h27
	}
	p := pipe{idle: x.srv.cfg.Timeouts.Idle, began: time.Now()}
	up := make(chan struct{})
	go func() {
		defer close(up)
		p.copy(x.conn.Conn, x.client.conn, io.LimitReader(x.client.br, int64(x.client.br.Buffered())), nil)
	}()
	p.copy(x.client.conn, x.conn.Conn, io.LimitReader(x.conn.br, int64(x.conn.br.Buffered())), &x.bytes)
	<-up
	if f := x.why(); f != nil {
		return f
	}
	if p.silent.Load() {
		return h15
	}
	return nil
}

// pipe is a connection that was upgraded, in both directions.
type pipe struct {
	idle   time.Duration
	began  time.Time
	last   atomic.Int64 // when a byte last went either way, nanoseconds since began: the host's clock may be set
	ended  atomic.Bool  // one side has sent its end
	silent atomic.Bool  // it was ended because both were silent
}

func (p *pipe) touch() { p.last.Store(int64(time.Since(p.began))) }

// end is when both will have been silent for too long.
func (p *pipe) end() time.Time { return p.began.Add(time.Duration(p.last.Load()) + p.idle) }

// copy moves bytes from src, those already read first, until src ends.
func (p *pipe) copy(dst, src net.Conn, first io.Reader, count *int64) {
	buf := buffers.Get().(*[bufferBytes]byte)
	defer buffers.Put(buf)
	in := first
	for {
		if in == src {
			_ = src.SetReadDeadline(p.end())
		}
		n, err := in.Read(buf[:])
		if n > 0 {
			p.touch()
			_ = dst.SetWriteDeadline(time.Now().Add(p.idle))
			if _, werr := dst.Write(buf[:n]); werr != nil {
				break
			}
			if count != nil {
				*count += int64(n)
			}
		}
		switch {
		case err == nil:
		case in != src:
			in = src // the first bytes are through
		case timedOut(err) && time.Now().Before(p.end()):
		case timedOut(err):
			p.silent.Store(!p.ended.Load())
			src.Close()
			dst.Close()
			return
		case err == io.EOF:
			p.ended.Store(true)
			closeWrite(dst)
			return
		default:
			p.ended.Store(true)
			src.Close()
			dst.Close()
			return
		}
	}
	p.ended.Store(true)
	src.Close()
	dst.Close()
}

func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
