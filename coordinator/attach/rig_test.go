package attach

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/pki"
)

// patience is how long a test waits for what must happen: a machine may be busy
// with others' tests.
const patience = time.Minute

// unhurried are times within which a test keeps that has to wait for its turn.
// It waits for hold, or pause, itself where that is what ends its input.
func unhurried(c *Config) {
	c.hold, c.pause, c.brief, c.linger = 2*time.Second, 2*time.Second, patience, patience
}

// rig is a room that clients can reach.
type rig struct {
	*testing.T
	room *Room
	addr string
	pool *x509.CertPool
	stop func()
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	ca, err := pki.Open(func(_ string, make func() ([]byte, error)) ([]byte, error) { return make() })
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Server("localhost", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, room: New(cfg), addr: ln.Addr().String(), pool: ca.Pool()}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.room.Serve(ctx, ln) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-served:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(patience):
				t.Error("Serve does not end")
			}
		})
	}
	t.Cleanup(r.stop)
	return r
}

// user speaks as the CLI does.
type user struct {
	*testing.T
	*tls.Conn
}

func (r *rig) dial(line string) user {
	r.Helper()
	conn, err := tls.Dial("tcp", r.addr, &tls.Config{RootCAs: r.pool, DynamicRecordSizingDisabled: true})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		r.Fatal(err)
	}
	c := user{r.T, conn}
	c.say(line)
	return c
}

func (c user) say(text string) {
	c.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		c.Fatal(err)
	}
}

// piece is what one read returns: one TLS record.
func (c user) piece(want string) {
	c.Helper()
	buf := make([]byte, 64<<10)
	n, err := c.Read(buf)
	if err != nil || string(buf[:n]) != want {
		c.Fatalf("the client got %.100q, %v; want %.100q in one piece", buf[:n], err, want)
	}
}

// rest is all until the room closes the connection.
func (c user) rest() string {
	c.Helper()
	all, err := io.ReadAll(c.Conn)
	if err != nil {
		c.Fatalf("the connection did not end cleanly: %v after %.100q", err, all)
	}
	return string(all)
}

// agent is the other side of a session.
type agent struct {
	*testing.T
	net.Conn
	frames *bufio.Reader
	ended  chan struct{} // when Carry has returned
}

// join waits for the client as an agent does, and is let in.
func (r *rig) join(id string) agent {
	r.Helper()
	line, err := r.room.Wait(r.Context(), id, "host")
	if err != nil {
		r.Fatal(err)
	}
	return r.carry(line)
}

// carry is the agent's side of a session it was let into.
func (r *rig) carry(line *Line) agent {
	r.Helper()
	ours, theirs := socketPair(r.T)
	a := agent{r.T, ours, bufio.NewReader(ours), make(chan struct{})}
	go func() {
		defer close(a.ended)
		line.Carry(theirs, bufio.NewReader(theirs))
	}()
	if err := ours.SetReadDeadline(time.Now().Add(patience)); err != nil {
		r.Fatal(err)
	}
	return a
}

func socketPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func (a agent) send(kind manifold.FrameKind, payload string) {
	a.Helper()
	if err := manifold.WriteFrame(a, kind, []byte(payload)...); err != nil {
		a.Fatal(err)
	}
}

func (a agent) exit() { a.send(manifold.FrameExit, string(binary.BigEndian.AppendUint32(nil, 0))) }

func (a agent) want(kind manifold.FrameKind, payload string) {
	a.Helper()
	got, text, err := manifold.ReadFrame(a.frames, make([]byte, manifold.MaxFrame))
	if err != nil || got != kind || string(text) != payload {
		a.Fatalf("the agent got %c %.100q, %v; want %c %.100q", got, text, err, kind, payload)
	}
}

// gone waits for the room to hang up on the agent.
func (a agent) gone() {
	a.Helper()
	if _, err := a.frames.ReadByte(); err == nil {
		a.Error("the agent's line is open still")
	} else if errors.Is(err, context.DeadlineExceeded) {
		a.Error("the agent's line stays open")
	}
	<-a.ended
}

func open(r *rig, terminal bool, over func()) string {
	return r.room.Open(Session{ID: "run", Host: "host", Attach: manifold.Attach{Terminal: terminal}, Over: over})
}
