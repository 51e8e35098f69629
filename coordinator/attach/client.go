package attach

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"manifold"
)

const (
	maxSecretLine = 256
	greeting      = "rendezvous\r\n"

	// record is the most a TLS record carries (RFC 8446, 5.1). A read of that
	// size returns what the client sent as one piece.
	record = 16 << 10

	// endHold is how long a Ctrl-D at the end of a piece must be followed by
	// nothing to be the end of a piped input and not a byte of it.
	endHold = 200 * time.Millisecond

	// lingerTime is for a client to close after us.
	lingerTime = 5 * time.Second
)

// receive is a client's goroutine: handshake, secret, then its input, until
// the client or the session is gone.
func (r *Room) receive(ctx context.Context, raw net.Conn, known func()) {
	conn := tls.Server(raw, r.cfg.TLS)
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	input := bufio.NewReaderSize(conn, record)
	s, err := r.introduce(conn, input)
	if err != nil {
		known()
		r.cfg.Log.Debug("a client could not show a secret", "client", raw.RemoteAddr().String(), "err", err)
		return
	}
	if s == nil || !s.come(conn) {
		r.cfg.Log.Info("a client showed a secret that is good for nothing", "client", raw.RemoteAddr().String())
		turnAway(conn)
		known()
		return
	}
	known()
	s.pump(conn, input)
}

// introduce reads the secret's line.
func (r *Room) introduce(conn *tls.Conn, input *bufio.Reader) (*session, error) {
	if err := conn.SetDeadline(time.Now().Add(strangerTime)); err != nil {
		return nil, err
	}
	secret, err := readSecret(input)
	if err != nil {
		return nil, err
	}
	return r.claim(secret), conn.SetDeadline(time.Time{})
}

// readSecret reads a stranger's first line: the secret, and maybe a query.
func readSecret(input *bufio.Reader) (string, error) {
	line := make([]byte, 0, maxSecretLine)
	for {
		b, err := input.ReadByte()
		if err != nil {
			return "", err
		}
		if b == '\n' {
			secret, _, _ := strings.Cut(strings.TrimSuffix(string(line), "\r"), "?")
			return secret, nil
		}
		if line = append(line, b); len(line) == maxSecretLine {
			return "", fmt.Errorf("its first line is over %d bytes long", maxSecretLine)
		}
	}
}

// turnAway tells a person why there is no terminal.
func turnAway(conn *tls.Conn) {
	_ = conn.SetDeadline(time.Now().Add(strangerTime))
	if _, err := io.WriteString(conn, greeting); err != nil { // of a first piece the CLI shows nothing
		return
	}
	_, _ = io.WriteString(conn, "This session is over or was used before: run the command again.\r\n")
	if conn.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
}

// pump carries the client's input to the agent until either is gone. The end
// of the client's connection is the loss of the client.
func (s *session) pump(conn *tls.Conn, input *bufio.Reader) {
	defer s.end()
	held := false // a Ctrl-D that may be the end of input
	buf := make([]byte, 1+record)
	buf[0] = ctrlD
	for !s.ending() {
		n, err := input.Read(buf[1:])
		data := buf[1 : 1+n]
		if held && n > 0 {
			held, data = false, buf[:1+n] // it was a byte of the input
			s.until(time.Time{})
		}
		if !s.Terminal && n > 0 && data[len(data)-1] == ctrlD {
			held, data = true, data[:len(data)-1]
			s.until(time.Now().Add(endHold))
		}
		if len(data) > 0 {
			s.send(manifold.FrameData, data)
		}
		switch {
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return
		case held:
			held = false
			s.step(func() { s.inputEnded = true })
			s.send(manifold.FrameEnd, nil)
			s.until(time.Time{})
		}
	}
	drain(conn, input)
}

// drain takes what the client is still sending, which nobody wants any more,
// until it pauses, and then lets it close the connection. Some clients take it
// for an error to be closed on while they send.
func drain(conn *tls.Conn, input *bufio.Reader) {
	for buf := make([]byte, record); ; {
		_, err := input.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			_ = conn.SetReadDeadline(time.Time{}) // the session's timer ends it
			if conn.CloseWrite() == nil {
				_, _ = io.Copy(io.Discard, input)
			}
			return
		case err != nil:
			return
		}
		_ = conn.SetReadDeadline(time.Now().Add(endHold))
	}
}

const ctrlD = 0x04

// send writes a frame to the agent, once the process has started. What cannot
// be sent is dropped: the agent's own end of the line says that it is gone, or
// the process has ended and what the client still says does not matter.
func (s *session) send(kind manifold.FrameKind, data []byte) {
	select {
	case <-s.started:
		s.move()
		_ = manifold.WriteFrame(s.agent, kind, data...)
	case <-s.over:
	}
}
