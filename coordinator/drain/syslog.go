package drain

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"manifold/coordinator/logs"
	"manifold/coordinator/outbound"
)

// The limits of a connection to a syslog server.
const (
	writeTime  = 15 * time.Second // for a server that reads slowly
	settleTime = time.Second
)

// syslog is a connection to a syslog server, which never says what it has: TCP
// tells late that it broke, so that what was sent within the last moments
// before is sent again (settle).
type syslog struct {
	drain  *drain
	conn   net.Conn
	ctx    context.Context
	end    context.CancelCauseFunc
	done   chan struct{} // of the reader
	frames frames
}

func (d *drain) dialSyslog(ctx context.Context) (outlet, error) {
	dialing, cancel := context.WithTimeout(ctx, outbound.ConnectTime)
	defer cancel()
	conn, err := d.room.cfg.Guard.Dialer().DialContext(dialing, "tcp", d.url.Host)
	if err != nil {
		return nil, err
	}
	if d.url.Scheme == "syslog+tls" {
		secured := tls.Client(conn, &tls.Config{ServerName: d.url.Hostname(), RootCAs: d.room.cfg.Roots, MinVersion: tls.VersionTLS12})
		shaking, cancel := context.WithTimeout(ctx, outbound.ConnectTime)
		defer cancel()
		if err := secured.HandshakeContext(shaking); err != nil {
			conn.Close()
			return nil, err
		}
		conn = secured
	}
	s := &syslog{drain: d, conn: conn, done: make(chan struct{})}
	s.ctx, s.end = context.WithCancelCause(ctx)
	context.AfterFunc(s.ctx, func() { conn.Close() }) // a write may wait
	go s.watch()
	return s, nil
}

// watch learns that the server hung up. It says nothing otherwise.
func (s *syslog) watch() {
	defer close(s.done)
	_, err := io.Copy(io.Discard, s.conn)
	if err == nil {
		err = io.EOF
	}
	s.end(err)
}

func (s *syslog) send(lines []logs.Line) error {
	if err := context.Cause(s.ctx); err != nil {
		return err
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	_, err := s.conn.Write(s.frames.make(lines, s.drain.Token, " - - ", ""))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errors.New("the receiver does not read")
	}
	return err
}

func (s *syslog) alive() context.Context { return s.ctx }
func (s *syslog) settle() time.Duration  { return settleTime }
func (s *syslog) rest() time.Duration    { return 0 }

func (s *syslog) close() {
	s.end(nil)
	<-s.done
}
