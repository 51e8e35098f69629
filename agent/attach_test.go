package agent

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/supervisor"
	"manifold/test/bubble"
)

// line is a client's end of a session, as the coordinator has it.
type line struct {
	t    testing.TB
	conn net.Conn
	from *bufio.Reader
	seen strings.Builder
}

// expect sets a client out for a session; it is there when the agent joins.
func (c *testCoordinator) expect(session string) chan *line {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clients == nil {
		c.clients = map[string]chan *line{}
	}
	c.clients[session] = make(chan *line, 1)
	return c.clients[session]
}

// attach is the room's door: 410 for a session whose client does not come.
func (c *testCoordinator) attach(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	session := r.PathValue("session")
	came := c.clients[session]
	delete(c.clients, session)
	var is manifold.Attach
	for _, as := range c.desired.Assignments {
		if as.ID == session {
			is = *as.Attach
		}
	}
	for _, x := range c.desired.Execs {
		if x.ID == session {
			is = x.Attach
		}
	}
	c.mu.Unlock()
	if came == nil {
		w.WriteHeader(http.StatusGone)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		c.t.Error(err)
		return
	}
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	text, _ := json.Marshal(is)
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %s\r\n\r\n", manifold.AttachProtocol, manifold.AttachHeader, text)
	came <- &line{t: c.t, conn: conn, from: buffered.Reader}
}

func (l *line) send(kind manifold.FrameKind, payload string) {
	l.t.Helper()
	if err := manifold.WriteFrame(l.conn, kind, []byte(payload)...); err != nil {
		l.t.Fatal(err)
	}
}

func (l *line) enter(text string) { l.t.Helper(); l.send(manifold.FrameData, text) }

// next reads a frame.
func (l *line) next() (manifold.FrameKind, string) {
	l.t.Helper()
	kind, payload, err := manifold.ReadFrame(l.from, make([]byte, manifold.MaxFrame))
	if err != nil {
		l.t.Fatalf("the line broke: %v; it said %q", err, l.seen.String())
	}
	return kind, string(payload)
}

// expect reads on until want has come.
func (l *line) expect(want string) {
	l.t.Helper()
	for {
		if _, after, ok := strings.Cut(l.seen.String(), want); ok {
			l.seen.Reset()
			l.seen.WriteString(after)
			return
		}
		kind, payload := l.next()
		if kind == manifold.FrameExit {
			l.t.Fatalf("the process ended before it said %q; it said %q", want, l.seen.String())
		}
		l.seen.WriteString(payload)
	}
}

// exit reads to the end and returns what came, and the status.
func (l *line) exit() (text string, status int) {
	l.t.Helper()
	for {
		kind, payload := l.next()
		if kind == manifold.FrameExit {
			l.conn.Close()
			return l.seen.String(), int(binary.BigEndian.Uint32([]byte(payload)))
		}
		l.seen.WriteString(payload)
	}
}

func (r *rig) oneOff(command string, attach *manifold.Attach) manifold.Assignment {
	a := r.assignment(command)
	a.Dyno, a.Kind, a.Attach, a.TTL = "run.4711", manifold.KindOneOff, attach, time.Minute
	return a
}

var window = &manifold.Attach{Terminal: true, Rows: 33, Cols: 101}

func (r *rig) attached(a manifold.Assignment) *line {
	r.t.Helper()
	came := r.expect(a.ID)
	r.want(a)
	return r.joined(came)
}

// joined waits for the agent to join a session.
func (r *rig) joined(came chan *line) *line {
	r.t.Helper()
	select {
	case l := <-came:
		return l
	case <-time.After(patience):
		r.t.Fatal("the agent does not join")
		return nil
	}
}

func TestAttachedDyno(t *testing.T) {
	r := newRig(t)
	a := r.oneOff(`exec bash`, window)
	a.Env = map[string]string{"TERM": "xterm", "PS1": "> "}
	l := r.attached(a)
	if kind, _ := l.next(); kind != manifold.FrameStarted {
		t.Errorf("the first frame is %c", kind)
	}
	d := r.awaitState(a.ID, manifold.StateUp)
	l.enter("tty; stty size; echo $TERM $DYNO\n")
	l.expect("/dev/pts/0\r\n33 101\r\nxterm run.4711\r\n")
	l.send(manifold.FrameWindow, string(manifold.WindowPayload(40, 120)))
	l.enter("stty size\n")
	l.expect("40 120\r\n")
	l.enter("cat /proc/sys/kernel/ostype -\n")
	l.expect("Linux\r\n") // cat has the terminal
	l.enter("\x03")
	l.expect("$ ") // what is typed before may go to whom the shell takes the terminal from
	l.enter("echo status $?\n")
	l.expect("status 130\r\n")
	l.enter("exit 9\n")
	if _, status := l.exit(); status != 9 {
		t.Errorf("status %d", status)
	}
	r.awaitState(a.ID, manifold.StateComplete)
	r.awaitLine(d.Run, "heroku", "State changed from up to complete")
	want := []string{
		"State changed from created to starting", "Awaiting client", "Starting process with command `exec bash`",
		"State changed from starting to up", "Process exited with status 9", "State changed from up to complete",
	}
	if got := strings.Join(r.lines(d.Run, "heroku"), "\n"); got != strings.Join(want, "\n") {
		t.Errorf("the platform said\n%s", got)
	}
	if got := r.lines(d.Run, "app"); len(got) != 0 {
		t.Errorf("what went to the terminal is in the log: %q", got)
	}
	r.want()
	r.awaitGone(a.ID)
}

func TestAttachedPipes(t *testing.T) {
	r := newRig(t)
	a := r.oneOff(`cat; echo err >&2; tty; exit 3`, &manifold.Attach{})
	l := r.attached(a)
	text := strings.Repeat("0123456789abcdef", 100_000)
	go func() {
		for part := range slices.Chunk([]byte(text), 10_000) {
			_ = manifold.WriteFrame(l.conn, manifold.FrameData, part...) // what is lost does not come back
		}
		_ = manifold.WriteFrame(l.conn, manifold.FrameEnd)
	}()
	got, status := l.exit()
	if want := text + "err\nnot a tty\n"; got != want || status != 3 {
		t.Errorf("%d bytes came back, want %d; status %d; the end is %q", len(got), len(want), status, got[max(0, len(got)-40):])
	}
}

func TestNobodyComesToAttach(t *testing.T) {
	r := newRig(t)
	a := r.oneOff(`touch /tmp/started`, window)
	r.want(a)
	d := r.awaitState(a.ID, manifold.StateComplete)
	if d.Result.Cause != manifold.CauseR13 {
		t.Errorf("result %+v", d.Result)
	}
	r.awaitLine(d.Run, "heroku", "Error R13 (Attach error) -> Failed to attach to process")
}

// A client that goes takes its process along, unless that ignores SIGHUP.
func TestClientGoes(t *testing.T) {
	r := newRig(t)
	for name, attach := range map[string]*manifold.Attach{"terminal": window, "pipes": {}} {
		a := r.oneOff(`sh -c 'trap "echo bye >/tmp/bye; exit 7" HUP; echo ready; while :; do sleep 0.1; done'`, attach)
		l := r.attached(a)
		l.expect("ready")
		l.conn.Close()
		d := r.awaitState(a.ID, manifold.StateComplete)
		if s := d.Result.Status; s != 7 && s != 129 && s != 141 { // its own, SIGHUP, SIGPIPE
			t.Errorf("%s: result %+v", name, d.Result)
		}
		r.awaitLine(d.Run, "heroku", "Client connection closed. Sending SIGHUP to all processes")
	}
	a := r.oneOff(`trap '' HUP; echo ready; sleep 1000`, window)
	l := r.attached(a)
	l.expect("ready")
	l.conn.Close()
	d := r.awaitState(a.ID, manifold.StateUp)
	r.awaitLine(d.Run, "heroku", "Error R16 (Detached) -> An attached process is not responding to SIGHUP")
	if d := r.awaitState(a.ID, manifold.StateUp); d.Result != nil {
		t.Errorf("result %+v", d.Result)
	}
	r.want()
	r.awaitGone(a.ID)
}

// The agent's death is the client's loss, and no more than that.
func TestAgentDiesAttached(t *testing.T) {
	r := newRig(t)
	gives := r.oneOff(`echo ready; sleep 1000`, window)
	stays := r.oneOff(`trap '' HUP; echo >/tmp/wait; echo ready; while [ -e /tmp/wait ]; do sleep 0.1; done; exit 4`, window)
	stays.Dyno = "run.4712"
	first, second := r.expect(gives.ID), r.expect(stays.ID)
	r.want(gives, stays)
	r.joined(first).expect("ready")
	r.joined(second).expect("ready")
	before := r.awaitState(stays.ID, manifold.StateUp)
	r.awaitState(gives.ID, manifold.StateUp)
	r.end(syscall.SIGKILL)
	r.start()
	r.awaitLine(before.Run, "heroku", "Client connection closed. Sending SIGHUP to all processes")
	if d := r.awaitState(gives.ID, manifold.StateComplete); d.Result.Status != 129 {
		t.Errorf("result %+v", d.Result)
	}
	r.letGo(before.Run)
	if d := r.awaitState(stays.ID, manifold.StateComplete); d.Result.Status != 4 || d.Run != before.Run {
		t.Errorf("one that ignores it: %+v", d)
	}
}

func TestAttachedDynoIsStopped(t *testing.T) {
	r := newRig(t)
	a := r.oneOff(`bash -i`, window)
	a.Grace = time.Minute
	l := r.attached(a)
	r.awaitState(a.ID, manifold.StateUp)
	r.want()
	if _, status := l.exit(); status != 129 && status != 143 { // SIGHUP, or SIGTERM before it was interactive
		t.Errorf("an interactive shell was stopped with status %d", status)
	}
	r.awaitGone(a.ID)
}

func (r *rig) exec(assignment, command string, attach manifold.Attach) *line {
	r.t.Helper()
	x := manifold.Exec{ID: uuid.NewString(), Assignment: assignment, Command: command, Env: map[string]string{"TERM": "xterm"}, Attach: attach}
	came := r.expect(x.ID)
	r.mu.Lock()
	r.desired.Revision++
	r.desired.Execs = append(r.desired.Execs, x)
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	return r.joined(came)
}

func TestExecInDyno(t *testing.T) {
	r := newRig(t)
	a := r.assignment(`echo here > /tmp/f; echo ready; while :; do sleep 0.1; done`)
	r.want(a)
	d := r.awaitState(a.ID, manifold.StateUp)
	r.awaitLine(d.Run, "app", "ready")
	l := r.exec(a.ID, `cat /tmp/f; echo $DYNO $GREETING $TERM; stty size; exit 5`, *window)
	if got, status := l.exit(); got != "here\r\nworker.1 hello from config xterm\r\n33 101\r\n" || status != 5 {
		t.Errorf("%q, status %d", got, status)
	}
	l = r.exec(a.ID, `cat; (sleep 1000) & echo over`, manifold.Attach{}) // what it leaves behind holds its output open
	l.enter("in")
	l.send(manifold.FrameEnd, "")
	if got, status := l.exit(); got != "inover\n" || status != 0 {
		t.Errorf("%q, status %d", got, status)
	}
	l = r.exec(uuid.NewString(), `true`, *window)
	if got, status := l.exit(); !strings.Contains(got, "not here any more") || status != 126 {
		t.Errorf("no such dyno: %q, status %d", got, status)
	}

	// An agent that comes after does not begin them again. (The dyno's own
	// sleeps come and go while cat looks at them.)
	r.end(syscall.SIGKILL)
	r.start()
	l = r.exec(a.ID, `cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -o 's[l]eep 1000' | wc -l`, manifold.Attach{})
	if got, _ := l.exit(); strings.TrimSpace(got) != "1" {
		t.Errorf("%s processes of an exec that was started once", got)
	}
	if now := r.awaitState(a.ID, manifold.StateUp); now.Run != d.Run {
		t.Errorf("the dyno is another: %+v", now)
	}
}

// end is one side of a made-up process's streams.
type end struct{ net.Conn }

func (e *end) CloseWrite() error           { return nil }
func (e *end) Resize(uint16, uint16) error { return nil }

// A process that has ended is heard out, and whoever it left behind with its
// streams is not waited for.
func TestCarryHearsOut(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		ours, process := net.Pipe()
		agentLine, coordLine := net.Pipe()
		ended := make(chan struct{})
		lost := make(chan bool, 1)
		go func() {
			lost <- carry(t.Context(), agentLine, &end{Conn: ours}, ended, func() int { return 6 })
		}()
		l := &line{t: t, conn: coordLine, from: bufio.NewReader(coordLine)}
		l.next()
		go func() {
			fmt.Fprint(process, "one ")
			close(ended)
			time.Sleep(100 * time.Millisecond)
			fmt.Fprint(process, "two ")
			time.Sleep(150 * time.Millisecond)
			fmt.Fprint(process, "three")
		}()
		defer process.Close() // its streams stay open all the time
		if text, status := l.exit(); text != "one two three" || status != 6 {
			t.Errorf("%q, status %d", text, status)
		}
		if <-lost {
			t.Error("the client counts as lost")
		}
	})
}

func TestCarryEndsWithItsContext(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		ours, process := net.Pipe()
		agentLine, coordLine := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			carry(ctx, agentLine, &end{Conn: ours}, make(chan struct{}), func() int { return 0 })
		}()
		go fmt.Fprint(process, "nobody reads this")
		l := &line{t: t, conn: coordLine, from: bufio.NewReader(coordLine)}
		l.next()
		synctest.Wait() // it waits for us to read
		cancel()
		<-done
		if _, err := process.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the process's streams are open still")
		}
		if _, err := coordLine.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the line is open still: %v", err)
		}
	})
}

// An adopted dyno whose client went with the agent before is hung up on, and
// again by the agent after this one: as often as the policy says in all.
func TestAdoptedAttachedDynoIsHungUpOn(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := fakeAssignment()
		a.Kind, a.Web, a.Dyno, a.Attach = manifold.KindOneOff, false, "run.1", nil
		w.start()
		w.want(a)
		time.Sleep(time.Second)
		b := w.host.only(t)
		w.stop()
		// As if it had been attached: a made-up kernel has no streams.
		rec, err := w.agent.shelf.read(a.ID)
		if err != nil {
			t.Fatal(err)
		}
		rec.Assignment.Attach = window
		if err := w.agent.shelf.put(rec); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			w.start()
			time.Sleep(4 * time.Second)
			w.stop()
		}
		w.start()
		time.Sleep(time.Minute)
		w.stop()
		b.mu.Lock()
		defer b.mu.Unlock()
		if want := supervisor.DefaultPolicy.Hangups; b.hangups < want || b.hangups > want+3 {
			t.Errorf("%d hangups, want %d and perhaps one more for each new agent", b.hangups, want)
		}
		said := strings.Join(w.up.heroku(), "\n")
		if strings.Count(said, "Client connection closed") != 1 || strings.Count(said, "R16 (Detached)") != 1 {
			t.Errorf("the platform said\n%s", said)
		}
	})
}
