package attach

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"manifold"
)

// client is a user's end of a session, in one of the two forms the CLI speaks.
type client interface {
	io.Writer                    // waits for a user who does not read
	begin() error                // the process has started: the user may send
	finish(status int)           // all that the process wrote is written: end in order
	SetDeadline(time.Time) error // of what is under way
	Close() error                // unblocks everything
}

const (
	maxLine    = 256     // of a client's first line
	maxHeaders = 8 << 10 // of the request that leads to SSH

	// record is the most a TLS record carries (RFC 8446, 5.1). A read of that
	// size returns what the client sent as one piece.
	record = 16 << 10

	// lingerTime is for a client to close after us.
	lingerTime = 5 * time.Second
)

// receive is a client's goroutine: handshake, secret, then its input, until
// the client or the session is gone.
func (r *Room) receive(ctx context.Context, raw net.Conn, known func()) {
	conn := tls.Server(raw, r.cfg.TLS)
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	_ = conn.SetDeadline(time.Now().Add(strangerTime)) // without one, the keep-alive of TCP remains
	input := bufio.NewReaderSize(conn, record)
	secret, overSSH, err := introduce(input)
	if err != nil {
		known()
		r.cfg.Log.Debug("a client could not show a secret", "client", raw.RemoteAddr().String(), "err", err)
		return
	}
	s := r.claim(secret)
	if s == nil {
		r.cfg.Log.Info("a client showed a secret that is good for nothing", "client", raw.RemoteAddr().String())
		turnAway(conn, overSSH)
		known()
		return
	}
	known()
	defer s.end()
	if overSSH {
		err = r.serveSSH(s, conn, input)
	} else {
		err = serveRendezvous(s, conn, input)
	}
	if err != nil {
		r.cfg.Log.Debug("a client's session failed", "client", raw.RemoteAddr().String(), "err", err)
	}
}

// introduce reads a stranger's first words: the secret as a line, or a request
// for it that leads to SSH.
func introduce(input *bufio.Reader) (secret string, overSSH bool, err error) {
	line, err := readLine(input, maxLine)
	if err != nil {
		return "", false, err
	}
	if path, ok := strings.CutPrefix(line, "GET /"); ok {
		for left := maxHeaders; line != ""; left -= len(line) {
			if line, err = readLine(input, left); err != nil {
				return "", false, err
			}
		}
		overSSH = true
		line, _, _ = strings.Cut(path, " ")
	}
	secret, _, _ = strings.Cut(line, "?")
	return secret, overSSH, nil
}

// readLine reads a line of less than limit bytes.
func readLine(input *bufio.Reader, limit int) (string, error) {
	var line []byte
	for len(line) < limit {
		b, err := input.ReadByte()
		if err != nil {
			return "", err
		}
		if b == '\n' {
			return strings.TrimSuffix(string(line), "\r"), nil
		}
		line = append(line, b)
	}
	return "", fmt.Errorf("its first words are over %d bytes long", limit)
}

// turnAway tells a person why there is no terminal.
func turnAway(conn *tls.Conn, overSSH bool) {
	const why = "This session is over or was used before: run the command again.\r\n"
	_ = conn.SetDeadline(time.Now().Add(strangerTime))
	if overSSH {
		fmt.Fprintf(conn, "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(why), why)
	} else if _, err := io.WriteString(conn, greeting); err == nil { // of a first piece the CLI shows nothing
		_, _ = io.WriteString(conn, why)
	}
	if conn.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
}

var errOver = errors.New("the session was over when its client came")

// send writes a frame to the agent, once the process has started. What cannot
// be sent is dropped: the agent's own end of the line says that it is gone, or
// the process has ended and what the client still says does not matter.
func (s *session) send(kind manifold.FrameKind, data ...byte) {
	select {
	case <-s.started:
		s.toAgent.Lock()
		defer s.toAgent.Unlock()
		s.move()
		_ = manifold.WriteFrame(s.agent, kind, data...)
	case <-s.over:
	}
}
