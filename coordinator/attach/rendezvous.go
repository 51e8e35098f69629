package attach

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"os"
	"time"

	"manifold"
)

// The rendezvous protocol: behind the secret's line the connection is the
// process's streams, without frames. Input has no end of its own: for pipes the
// CLI sends a Ctrl-D and keeps the connection open.

const (
	greeting = "rendezvous\r\n"
	ctrlD    = 0x04

	// endHold is how long a Ctrl-D at the end of a piece must be followed by
	// nothing to be the end of a piped input and not a byte of it.
	endHold = 200 * time.Millisecond

	// briefTime is that of a session that may be over before the CLI has come to the end of
	// an input that is empty. The CLI sends a Ctrl-D there, whether the process
	// has a terminal or not, and dies of an error if the connection has been
	// closed.
	briefTime = time.Second

	// pauseTime is how long a client may be silent in the middle of an input that
	// the process did not wait for: its machine may be busy.
	pauseTime = time.Second
)

// rendezvous is a client of this protocol.
type rendezvous struct {
	*tls.Conn
	session *session

	// Guarded by the room's lock.
	began      time.Time
	inputEnded bool
}

func serveRendezvous(s *session, conn *tls.Conn, input *bufio.Reader) error {
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	c := &rendezvous{Conn: conn, session: s}
	if !s.come(c, s.Attach) {
		return errOver
	}
	c.pump(input)
	return nil
}

// begin sends the greeting in a piece of its own: the CLI throws the first
// piece away.
func (c *rendezvous) begin() error {
	c.session.step(func() { c.began = time.Now() })
	_, err := io.WriteString(c, greeting)
	return err
}

// finish has pump close the connection in order, so that the client gets all
// that was written: to close over input that nobody read would reset it.
func (c *rendezvous) finish(int) {
	c.session.step(func() {
		cfg := &c.session.room.cfg
		wait := cfg.pause
		switch is := c.session.Attach; {
		case c.inputEnded, is.Terminal && time.Since(c.began) > cfg.brief:
			wait = 0
		case is.Terminal && is.Rows > 0: // its user has one, too, and most likely types on it
			wait = cfg.hold
		}
		_ = c.SetReadDeadline(time.Now().Add(wait))
	})
}

// until sets the time to which a read may wait, zero is for ever; finish has
// the last word.
func (c *rendezvous) until(t time.Time) {
	c.session.step(func() {
		if !c.session.isEnding {
			_ = c.SetReadDeadline(t)
		}
	})
}

// read reads what the client sends. When the time for that is over it looks once
// more: a coordinator that stood still all the while finds it over whatever came.
func (c *rendezvous) read(input *bufio.Reader, buf []byte) (int, error) {
	n, err := input.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = c.SetReadDeadline(time.Now().Add(endHold / 20))
		n, err = input.Read(buf)
	}
	return n, err
}

// pump carries the client's input to the agent until either is gone. The end
// of the client's connection is the loss of the client.
func (c *rendezvous) pump(input *bufio.Reader) {
	s := c.session
	held := false // a Ctrl-D that may be the end of input
	buf := make([]byte, 1+record)
	buf[0] = ctrlD
	for !s.ending() {
		n, err := c.read(input, buf[1:])
		data := buf[1 : 1+n]
		if held && n > 0 {
			held, data = false, buf[:1+n] // it was a byte of the input
			c.until(time.Time{})
		}
		switch ends := n > 0 && data[len(data)-1] == ctrlD; {
		case s.Attach.Terminal && n > 0:
			s.step(func() { c.inputEnded = ends })
		case ends:
			held, data = true, data[:len(data)-1]
			c.until(time.Now().Add(s.room.cfg.hold))
		}
		if len(data) > 0 {
			s.send(manifold.FrameData, data...)
		}
		switch {
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return
		case held:
			held = false
			s.step(func() { c.inputEnded = true })
			s.send(manifold.FrameEnd)
			c.until(time.Time{})
		}
	}
	c.drain(input)
}

// drain takes what the client is still sending, which nobody wants any more,
// until it pauses, and then lets it close the connection. Some clients take it
// for an error to be closed on while they send.
func (c *rendezvous) drain(input *bufio.Reader) {
	cfg := &c.session.room.cfg
	for buf := make([]byte, record); ; {
		n, err := c.read(input, buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			_ = c.SetReadDeadline(time.Time{}) // the session's timer ends it
			if c.CloseWrite() == nil {
				_, _ = io.Copy(io.Discard, input)
			}
			return
		case err != nil:
			return
		}
		wait := cfg.pause
		if n > 0 && buf[n-1] == ctrlD {
			wait = cfg.hold
		}
		_ = c.SetReadDeadline(time.Now().Add(wait))
	}
}
