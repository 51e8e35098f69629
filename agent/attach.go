package agent

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"manifold"
	"manifold/supervisor"
)

// A client's line to a process of a dyno (manifold.AttachProtocol). Bytes are
// copied here and queued nowhere: a process that writes faster than its client
// reads waits, as it would for a terminal.

// stream is *isolation.Stream.
type stream interface {
	io.ReadWriteCloser
	CloseWrite() error
	Resize(rows, cols uint16) error
	SetReadDeadline(t time.Time) error
}

// errNoClient is R13.
var errNoClient = errors.New("no client came to attach")

// clientTime bounds the wait for a coordinator that is away: its client would
// be gone by then, too.
const clientTime = 30 * time.Second

// meet joins a session and returns when its client is there, with what that is.
func (a *agent) meet(ctx context.Context, session string) (io.ReadWriteCloser, manifold.Attach, error) {
	pause := backoff{first: 50 * time.Millisecond, last: 2 * time.Second}
	for began := time.Now(); ; {
		line, is, err := a.up.Attach(ctx, session)
		var status *manifold.StatusError
		switch {
		case err == nil:
			return line, is, nil
		case ctx.Err() != nil:
			return nil, is, ctx.Err()
		case errors.As(err, &status) && (status.Status == http.StatusNotFound || status.Status == http.StatusGone),
			time.Since(began) > clientTime:
			return nil, is, fmt.Errorf("%w: %w", errNoClient, err)
		}
		pause.wait(ctx)
	}
}

// visit is a client that is awaited while its dyno is made ready.
type visit struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when the rest is set
	line   io.ReadWriteCloser
	attach manifold.Attach
	err    error
}

func (d *driver) await(ctx context.Context) *visit {
	ctx, cancel := context.WithCancel(ctx)
	v := &visit{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(v.done)
		v.line, v.attach, v.err = d.a.meet(ctx, d.assignment.ID)
	}()
	return v
}

// end ends a visit that comes to nothing, and tells the client why.
func (v *visit) end(why error) {
	v.cancel()
	<-v.done
	if v.line != nil {
		turnAway(v.line, why)
	}
}

// launchFor gets a run going for a client.
func (d *driver) launchFor(ctx context.Context, dyno supervisor.Dyno) message {
	client := d.await(ctx)
	b, err := d.build(ctx, dyno, client)
	if err != nil {
		client.end(err)
		return failed(err)
	}
	return message{event: supervisor.Event{Kind: supervisor.Launched}, box: b, line: client.line}
}

// turnAway tells a client that there is no process for it.
func turnAway(line io.ReadWriteCloser, why error) {
	defer line.Close()
	defer time.AfterFunc(closeTime, func() { line.Close() }).Stop() // also of a line that takes nothing
	if manifold.WriteFrame(line, manifold.FrameStarted) != nil {
		return
	}
	text := fmt.Sprintf("\r\n !    %v\r\n", why)
	if manifold.WriteFrame(line, manifold.FrameData, []byte(text)[:min(len(text), manifold.MaxFrame)]...) != nil || writeExit(line, 126) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, line) // as in carry
}

func writeExit(line io.Writer, status int) error {
	return manifold.WriteFrame(line, manifold.FrameExit, binary.BigEndian.AppendUint32(nil, uint32(status))...)
}

// attend carries a run's streams once it is up. A run that was adopted has
// none: its client was lost with the agent that had it.
func (d *driver) attend(ctx context.Context, b box, line io.ReadWriteCloser) {
	run := d.rec.Dyno.Run
	lost := message{event: supervisor.Event{Kind: supervisor.ClientLost, Run: run}}
	if line == nil {
		d.step(ctx, lost.event)
		return
	}
	// The agent's, not the driver's: a dyno is gone before a slow client has
	// read all that it wrote.
	d.a.work.Go(func() {
		status := func() int {
			exit, err := b.Exit()
			if err != nil {
				return 128 + 9
			}
			return exit.Status
		}
		if !carry(d.a.ctx, line, b.Attached(), b.Done(), status) {
			return
		}
		lost.event.At = time.Now()
		select {
		case d.mail <- lost:
		case <-d.done:
		case <-d.a.ctx.Done():
		}
	})
}

// lastWords is the silence after which nothing more is expected of a process
// that has ended; another one may still hold its streams.
const lastWords = 200 * time.Millisecond

// carry carries bytes between a client and a process until the process has
// ended and all that it wrote is with the coordinator, or the client is lost,
// or ctx ends. It closes both. status is asked after ended.
func carry(ctx context.Context, line io.ReadWriteCloser, s stream, ended <-chan struct{}, status func() int) (lost bool) {
	var over, hungUp atomic.Bool
	hangUp := sync.OnceFunc(func() {
		hungUp.Store(!over.Load())
		s.Close()
		line.Close()
	})
	var parts sync.WaitGroup
	inputEnded, stop := make(chan struct{}), make(chan struct{})
	defer func() {
		close(stop)
		hangUp()
		parts.Wait()
		lost = hungUp.Load()
	}()
	if manifold.WriteFrame(line, manifold.FrameStarted) != nil {
		return
	}
	parts.Go(func() {
		takeInput(line, s)
		close(inputEnded)
		hangUp()
	})
	parts.Go(func() {
		select {
		case <-ended:
			_ = s.SetReadDeadline(time.Now()) // a read that waits shall look again
		case <-stop:
		}
	})
	defer context.AfterFunc(ctx, hangUp)()
	if sendOutput(line, s, ended) != nil {
		return
	}
	select {
	case <-ended:
	case <-inputEnded:
		return
	}
	over.Store(true)
	s.Close()
	if writeExit(line, status()) == nil {
		select { // the coordinator closes first: we might else reset what it has not read yet
		case <-inputEnded:
		case <-time.After(closeTime):
		}
	}
	return
}

// closeTime is for the coordinator to close a line after its last frame.
const closeTime = 5 * time.Second

// takeInput gives the process what its client sends, until the line ends.
func takeInput(line io.Reader, s stream) {
	from, buf := bufio.NewReader(line), make([]byte, manifold.MaxFrame)
	for {
		kind, payload, err := manifold.ReadFrame(from, buf)
		if err != nil {
			return
		}
		switch kind {
		case manifold.FrameData:
			_, _ = s.Write(payload) // a process that has closed its input does not want it
		case manifold.FrameEnd:
			_ = s.CloseWrite()
		case manifold.FrameWindow:
			if rows, cols, ok := manifold.Window(payload); ok {
				_ = s.Resize(rows, cols)
			}
		}
	}
}

// sendOutput sends what the process writes, until its streams end, or it has
// ended and is silent. Its error is the line's.
func sendOutput(line io.Writer, s stream, ended <-chan struct{}) error {
	buf := make([]byte, manifold.MaxFrame)
	last := false // the process has ended: what is there already is read
	for {
		if last {
			_ = s.SetReadDeadline(time.Now().Add(lastWords))
		}
		n, err := s.Read(buf)
		if n > 0 {
			if err := manifold.WriteFrame(line, manifold.FrameData, buf[:n]...); err != nil {
				return err
			}
		}
		if err == nil {
			continue
		}
		if last || !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		<-ended // only its end sets a deadline
		last = true
	}
}
