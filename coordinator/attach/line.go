package attach

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"time"

	"manifold"
)

// Line is a session that an agent has joined.
type Line struct{ *session }

// Attach is what the client is.
func (l *Line) Attach() manifold.Attach { return l.session.Attach }

// Drop ends a session that cannot be carried.
func (l *Line) Drop() { l.end() }

// Carry carries frames between the agent and the client until the session is
// over for the agent, and closes the agent's connection. from reads from it.
func (l *Line) Carry(agent io.WriteCloser, from *bufio.Reader) {
	defer agent.Close()
	if !l.start(agent) {
		return
	}
	out := &output{to: &moving{l.session}}
	buf := make([]byte, manifold.MaxFrame)
	started := false
	for {
		kind, payload, err := manifold.ReadFrame(from, buf)
		switch {
		case err != nil:
			l.lost(out)
			return
		case kind == manifold.FrameStarted && !started:
			started = true
			if err = l.client.begin(); err == nil {
				close(l.started)
			}
		case kind == manifold.FrameData && started:
			err = out.write(payload)
		case kind == manifold.FrameExit:
			if err = out.flush(); err == nil {
				l.finish(exitStatus(payload))
				return
			}
		}
		if err != nil {
			l.end()
			return
		}
	}
}

// lost tells the client's user that the dyno's end of the line broke.
func (l *Line) lost(out *output) {
	_ = l.client.SetDeadline(time.Now().Add(l.room.cfg.linger))
	if out.flush() == nil {
		_, _ = io.WriteString(out.to, "\r\n !    The connection to the dyno was lost.\r\n")
	}
	l.finish(255)
}

func exitStatus(payload []byte) int {
	if len(payload) != 4 {
		return 255
	}
	return int(binary.BigEndian.Uint32(payload))
}

// moving writes to the client and counts that as movement.
type moving struct{ *session }

func (m *moving) Write(p []byte) (int, error) {
	m.move()
	return m.client.Write(p)
}

// sentinel begins the line by which the CLI learns a command's exit status
// (`heroku run -x`). It looks for that line in each piece it reads, so that it
// must come whole and in one piece.
const sentinel = "\uFFFF heroku-command-exit-status: "

// maxSentinel bounds that line: sentinel, digits, "\r\n".
const maxSentinel = len(sentinel) + 20

// output writes to a client. It holds back the beginning of what may become a
// sentinel line until that is whole, and nothing else.
type output struct {
	to   io.Writer
	held []byte
}

func (o *output) write(p []byte) error {
	if len(o.held) > 0 {
		p = append(o.held, p...)
		o.held = nil
	}
	for len(p) > 0 {
		i := indexSentinel(p)
		if i > 0 {
			if _, err := o.to.Write(p[:i]); err != nil {
				return err
			}
			p = p[i:]
			continue
		}
		end := bytes.IndexByte(p, '\n') + 1
		if end == 0 && len(p) < maxSentinel {
			o.held = append([]byte(nil), p...)
			return nil
		}
		if end == 0 {
			end = len(p) // too long to be one
		}
		if _, err := o.to.Write(p[:end]); err != nil {
			return err
		}
		p = p[end:]
	}
	return nil
}

// indexSentinel is where in p the sentinel, or at p's end the beginning of one,
// starts; len(p) if nowhere.
func indexSentinel(p []byte) int {
	for at := 0; ; at++ {
		i := bytes.IndexByte(p[at:], sentinel[0])
		if i < 0 {
			return len(p)
		}
		at += i
		n := min(len(sentinel), len(p)-at)
		if string(p[at:at+n]) == sentinel[:n] {
			return at
		}
	}
}

func (o *output) flush() error {
	if len(o.held) == 0 {
		return nil
	}
	_, err := o.to.Write(o.held)
	o.held = nil
	return err
}
