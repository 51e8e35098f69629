package attach

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"manifold"
)

func TestSession(t *testing.T) {
	r := newRig(t, unhurried)
	over := make(chan struct{})
	secret := open(r, true, func() { close(over) })
	if len(secret) < 40 {
		t.Errorf("secret %q can be guessed", secret)
	}
	c := r.dial(secret + "?x=1\r\n")
	a := r.join("run")
	a.send(manifold.FrameStarted, "")
	a.send(manifold.FrameData, "$ ")
	c.piece("rendezvous\r\n")
	c.piece("$ ")
	c.say("ls\x04")
	a.want(manifold.FrameData, "ls\x04") // a terminal's Ctrl-D is the line discipline's
	c.say("\x03")
	a.want(manifold.FrameData, "\x03")
	c.say("never read")
	a.send(manifold.FrameData, "bye\r\n")
	a.exit()
	if got := c.rest(); got != "bye\r\n" {
		t.Errorf("the client got %q", got)
	}
	c.Close()
	<-a.ended
	select {
	case <-over:
	case <-time.After(patience / 2):
		t.Error("the session is not over when the client has closed")
	}
	if len(r.room.sessions)+len(r.room.secrets) != 0 {
		t.Error("the room keeps something of an old session")
	}
}

func TestSecretIsGoodOnceAndForAWhile(t *testing.T) {
	r := newRig(t, nil)
	refused := func(r *rig, line string) {
		t.Helper()
		c := r.dial(line)
		c.piece("rendezvous\r\n")
		c.piece("This session is over or was used before: run the command again.\r\n")
		c.rest()
	}
	secret := open(r, true, nil)
	first := r.dial(secret + "\r\n")
	a := r.join("run")
	a.send(manifold.FrameStarted, "")
	first.piece("rendezvous\r\n")
	for _, line := range []string{secret + "\r\n", "\r\n", "x\n", secret[:20] + "\r\n", "../../run\r\n"} {
		refused(r, line)
	}
	a.send(manifold.FrameData, "still mine")
	first.piece("still mine")

	const come = 2 * time.Second // the agent is to be there before
	strict, began := newRig(t, func(c *Config) { c.Come = come }), time.Now()
	late := open(strict, true, nil)
	if _, err := strict.room.Wait(t.Context(), "run", "host"); !errors.Is(err, ErrNoClient) || time.Since(began) < come {
		t.Errorf("a client that does not come: %v after %s", err, time.Since(began))
	}
	refused(strict, late+"\r\n")

	long := r.dial(strings.Repeat("x", 1000))
	if _, err := long.Read(make([]byte, 1)); err == nil {
		t.Error("a line without end is answered")
	}
}

func TestWhoMayJoin(t *testing.T) {
	r := newRig(t, nil)
	open(r, true, nil)
	for _, who := range [][2]string{{"run", "other-host"}, {"other", "host"}} {
		if _, err := r.room.Wait(t.Context(), who[0], who[1]); !errors.Is(err, ErrNoSession) {
			t.Errorf("Wait(%s, %s): %v", who[0], who[1], err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	waits := make(chan error)
	go func() { _, err := r.room.Wait(ctx, "run", "host"); waits <- err }()
	eventually(t, func() bool { r.room.mu.Lock(); defer r.room.mu.Unlock(); return r.room.sessions["run"].isWaited })
	if _, err := r.room.Wait(t.Context(), "run", "host"); !errors.Is(err, ErrNoSession) {
		t.Errorf("a second agent: %v", err)
	}
	cancel() // the agent is gone, and with it the session
	if err := <-waits; !errors.Is(err, context.Canceled) {
		t.Errorf("an agent that went away: %v", err)
	}
	if len(r.room.sessions) != 0 {
		t.Error("its session is still there")
	}
}

func TestCancelledSessionSendsTheClientAway(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial(open(r, true, nil) + "\r\n")
	eventually(t, func() bool { r.room.mu.Lock(); defer r.room.mu.Unlock(); return len(r.room.secrets) == 0 })
	r.room.Cancel("run")
	if got := c.rest(); got != "" {
		t.Errorf("the client got %q", got)
	}
	if _, err := r.room.Wait(t.Context(), "run", "host"); !errors.Is(err, ErrNoSession) {
		t.Errorf("a cancelled session can be joined: %v", err)
	}
	c = r.dial(open(r, true, nil) + "\r\n")
	a := r.join("run")
	a.send(manifold.FrameStarted, "")
	c.piece("rendezvous\r\n")
	r.room.Cancel("run") // too late: it is joined
	a.send(manifold.FrameData, "on")
	c.piece("on")
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come to be")
		}
	}
}

func TestEndOfPipedInput(t *testing.T) {
	r := newRig(t, unhurried)
	c := r.dial(open(r, false, nil) + "\r\n")
	a := r.join("run")
	a.send(manifold.FrameStarted, "")
	c.piece("rendezvous\r\n")
	c.say("one\x04")
	a.want(manifold.FrameData, "one")
	c.say("two") // that was none yet
	a.want(manifold.FrameData, "\x04two")
	c.say("a\x04b")
	a.want(manifold.FrameData, "a\x04b")
	c.say("three\n\x04")
	a.want(manifold.FrameData, "three\n")
	a.want(manifold.FrameEnd, "")
	a.send(manifold.FrameData, "got three")
	c.piece("got three")
	a.exit()
	c.rest()
}

// A client that still sends when its process has ended is not closed on.
func TestInputNobodyReads(t *testing.T) {
	r := newRig(t, unhurried)
	c := r.dial(open(r, false, nil) + "\r\n")
	a := r.join("run")
	a.send(manifold.FrameStarted, "")
	c.piece("rendezvous\r\n")
	a.send(manifold.FrameData, "done\n")
	a.exit()
	<-a.ended
	var fin = make(chan string, 1)
	go func() { fin <- c.rest() }()
	for range 10 {
		c.say(strings.Repeat("x", 10_000))
		select {
		case <-fin:
			t.Fatal("the connection was closed while the client sent")
		case <-time.After(50 * time.Millisecond):
		}
	}
	c.say("\x04")
	if got := <-fin; got != "done\n" {
		t.Errorf("the client got %q", got)
	}
}

// The CLI ends an empty input with a Ctrl-D also where the process has a
// terminal, and must not find the connection closed by then, on however busy a
// machine it is.
func TestBriefSession(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		r := newRig(t, unhurried)
		c := r.dial(open(r, terminal, nil) + "\r\n")
		a := r.join("run")
		a.send(manifold.FrameStarted, "")
		c.piece("rendezvous\r\n")
		a.send(manifold.FrameData, "done\r\n")
		began := time.Now()
		a.exit()
		if got := c.rest(); got != "done\r\n" {
			t.Errorf("the client got %q", got)
		}
		if waited := time.Since(began); waited < 2*endHold {
			t.Errorf("the connection of a client whose input had not ended was closed after %s", waited)
		}
	}
}

// A coordinator that stood still while input came does not take its silence for
// the client's.
func TestInputThatCameIsReadWhateverTheTime(t *testing.T) {
	r := newRig(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan *tls.Conn, 1)
	go func() {
		raw, err := ln.Accept()
		if err != nil {
			t.Error(err)
		}
		conn := tls.Server(raw, r.room.cfg.TLS)
		if err := conn.Handshake(); err != nil {
			t.Error(err)
		}
		accepted <- conn
	}()
	client, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: r.pool})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c := &rendezvous{Conn: <-accepted}
	defer c.Close()
	if _, err := io.WriteString(client, "on"); err != nil {
		t.Fatal(err)
	}
	input, buf := bufio.NewReader(c), make([]byte, 10)
	for range 100 { // the second look may be too late as well
		_ = c.SetReadDeadline(time.Now())
		n, err := c.read(input, buf)
		if err == nil && string(buf[:n]) == "on" {
			return
		}
	}
	t.Error("what the client had sent is not read when the time is over")
}

func TestEmptyInput(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial(open(r, false, nil) + "\r\n")
	a := r.join("run")
	a.send(manifold.FrameStarted, "")
	c.piece("rendezvous\r\n")
	c.say("\x04")
	a.want(manifold.FrameEnd, "")
	c.Close()
	a.gone()
}

// The line of the exit status comes in one piece, wherever the program's
// output was cut.
func TestExitStatusLineInOnePiece(t *testing.T) {
	line := sentinel + "42\r\n"
	for cut := range len(line) {
		var pieces []string
		o := &output{to: writerFunc(func(p []byte) { pieces = append(pieces, string(p)) })}
		for _, part := range []string{"out" + line[:cut], line[cut:], "after"} {
			if err := o.write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Join(pieces, "|"); !strings.HasSuffix(got, "|"+line+"|after") || strings.ReplaceAll(got, "|", "") != "out"+line+"after" {
			t.Errorf("cut at %d: %q", cut, got)
		}
	}
	r := newRig(t, nil)
	c := r.dial(open(r, true, nil) + "\r\n")
	a := r.join("run")
	a.send(manifold.FrameStarted, "")
	c.piece(greeting)
	a.send(manifold.FrameData, strings.Repeat("x", 30_000)+line[:10])
	a.send(manifold.FrameData, line[10:])
	a.exit()
	c.piece(strings.Repeat("x", record))
	c.piece(strings.Repeat("x", 30_000-record))
	c.piece(line)
	c.rest()
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

// Whatever a program writes reaches the client, whole and in order.
func FuzzOutput(f *testing.F) {
	f.Add([]byte("a"+sentinel+"1\nb"), 3)
	f.Add([]byte(strings.Repeat(sentinel, 20)), 7)
	f.Add([]byte("\xef\xef\xbf\xef\xbf\xbf x"), 1)
	f.Fuzz(func(t *testing.T, text []byte, size int) {
		if size <= 0 {
			size = 1
		}
		var got bytes.Buffer
		o := &output{to: writerFunc(func(p []byte) { got.Write(p) })}
		for rest := text; len(rest) > 0; {
			n := min(size, len(rest))
			if err := o.write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
			if len(o.held) > maxSentinel {
				t.Fatalf("%d bytes are held back", len(o.held))
			}
		}
		if err := o.flush(); err != nil || !bytes.Equal(got.Bytes(), text) {
			t.Fatalf("%q became %q", text, got.Bytes())
		}
	})
}

// What follows a stranger's first words is left for the process.
func FuzzIntroduce(f *testing.F) {
	f.Add([]byte("secret?x=1\r\nrest"))
	f.Add([]byte("GET /secret?y HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\n\r\nSSH-2.0"))
	f.Add([]byte("\n\n"))
	f.Add([]byte(strings.Repeat("x", 300)))
	f.Fuzz(func(t *testing.T, text []byte) {
		input := bufio.NewReader(bytes.NewReader(text))
		secret, overSSH, err := introduce(input)
		rest, _ := io.ReadAll(input)
		line, after, ended := bytes.Cut(text, []byte("\n"))
		switch {
		case err != nil && ended && len(line) < maxLine && !bytes.HasPrefix(line, []byte("GET /")):
			t.Fatalf("%q is refused: %v", line, err)
		case err == nil && !overSSH && (len(line) >= maxLine || !bytes.HasPrefix(line, []byte(secret)) || !bytes.Equal(rest, after)):
			t.Fatalf("%q gave %q and left %q", text, secret, rest)
		case err == nil && !bytes.HasSuffix(text, rest):
			t.Fatalf("%q left %q", text, rest)
		case err == nil && (len(secret) > maxLine || strings.ContainsAny(secret, "?\n")):
			t.Fatalf("secret %q", secret)
		}
	})
}

func TestLostClient(t *testing.T) {
	r := newRig(t, nil)
	for name, leave := range map[string]func(user){
		"closed":      func(c user) { c.Close() },
		"half-closed": func(c user) { c.CloseWrite() }, // SIGINT without a terminal
		"reset": func(c user) {
			_ = c.NetConn().(*net.TCPConn).SetLinger(0)
			c.NetConn().Close()
		},
	} {
		c := r.dial(open(r, true, nil) + "\r\n")
		a := r.join("run")
		a.send(manifold.FrameStarted, "")
		c.piece(greeting)
		leave(c)
		t.Log(name)
		a.gone()
	}
	// One that leaves before the process has started.
	c := r.dial(open(r, true, nil) + "\r\n")
	a := r.join("run")
	c.Close()
	a.gone()
}

func TestLostAgent(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial(open(r, true, nil) + "\r\n")
	a := r.join("run")
	a.send(manifold.FrameStarted, "")
	a.send(manifold.FrameData, "half")
	c.piece(greeting)
	c.piece("half")
	a.Close()
	if got := c.rest(); !strings.Contains(got, "connection to the dyno was lost") {
		t.Errorf("the client is told %q", got)
	}
	<-a.ended
	c = r.dial(open(r, true, nil) + "\r\n")
	a = r.join("run")
	a.send(manifold.FrameStarted, "")
	c.piece(greeting)
	if _, err := a.Write([]byte("D\xff\xffnonsense")); err != nil {
		t.Fatal(err)
	}
	if got := c.rest(); !strings.Contains(got, "lost") {
		t.Errorf("after a frame that is too long: %q", got)
	}
}

func TestIdleClientIsSentAway(t *testing.T) {
	const idle = 2500 * time.Millisecond // this test may have to wait for its turn
	r := newRig(t, func(c *Config) { c.Idle = idle })
	c := r.dial(open(r, true, nil) + "\r\n")
	a := r.join("run")
	a.send(manifold.FrameStarted, "")
	c.piece(greeting)
	var moved time.Time
	for began := time.Now(); time.Since(began) < idle+idle/4; { // not as long as something moves, either way
		moved = time.Now()
		c.say("x")
		a.want(manifold.FrameData, "x")
		a.send(manifold.FrameData, "y")
		c.piece("y")
		time.Sleep(50 * time.Millisecond)
	}
	c.rest()
	a.gone()
	if took := time.Since(moved); took < idle {
		t.Errorf("sent away after %s", took)
	}
}

// A client that does not read holds back its own process, not our memory.
func TestSlowClientHoldsItsProcessBack(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial(open(r, true, nil) + "\r\n")
	a := r.join("run")
	a.send(manifold.FrameStarted, "")
	c.piece(greeting)
	payload := strings.Repeat("z", manifold.MaxFrame)
	if err := a.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	sent := 0
	for ; sent < 10_000; sent++ {
		if err := manifold.WriteFrame(a.Conn, manifold.FrameData, []byte(payload)...); err != nil {
			break
		}
	}
	if sent == 10_000 {
		t.Error("327 MB went to a client that reads nothing")
	}
	t.Logf("%d KB were buffered on the way", sent*manifold.MaxFrame>>10)
	c.Close()
	<-a.ended
}

func TestServeEndsItsSessions(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial(open(r, true, nil) + "\r\n")
	a := r.join("run")
	a.send(manifold.FrameStarted, "")
	c.piece(greeting)
	stranger := r.dial("")
	r.stop()
	a.gone()
	for _, conn := range []user{c, stranger} {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a client is still connected")
		}
	}
}

// Many at once, and nothing mixed up. Run with -race.
func TestManySessions(t *testing.T) {
	r := newRig(t, nil)
	var all sync.WaitGroup
	for i := range 40 {
		id := fmt.Sprint("run-", i)
		secret := r.room.Open(Session{ID: id, Host: "host", Attach: manifold.Attach{Terminal: i%2 == 0}})
		all.Go(func() {
			c := r.dial(secret + "\r\n")
			a := r.join(id)
			a.send(manifold.FrameStarted, "")
			c.piece(greeting)
			c.say(id)
			a.want(manifold.FrameData, id)
			a.send(manifold.FrameData, id)
			a.exit()
			if got := c.rest(); got != id {
				t.Errorf("%s got %q", id, got)
			}
		})
	}
	all.Wait()
}
