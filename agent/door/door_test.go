package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"manifold"
	"manifold/agent/why"
)

// fakeAgent is an agent with two apps' dynos.
type fakeAgent struct {
	Acts      // nil: no other act is asked for
	teardowns atomic.Int32
	tearing   func() // called while it is torn down
}

func (*fakeAgent) Alive(context.Context) error { return nil }
func (*fakeAgent) Health() Health              { return Health{Status: "ok", Host: "host"} }
func (*fakeAgent) Use(string) *Use             { return &Use{Memory: 1 << 20} }
func (*fakeAgent) LogPlace(string) LogPlace    { return LogPlace{} }
func (*fakeAgent) Change(string, int) *why.Change {
	return &why.Change{Release: 3, Since: 2, Changed: []string{"GREETING"}}
}
func (*fakeAgent) Inspect(assignment string) *Inspection {
	return &Inspection{Status: Status{Dyno: manifold.Dyno{Assignment: assignment}}}
}

func (*fakeAgent) Ended(most int, keep func(why.Run) bool) ([]why.Run, error) {
	r := why.Run{AppName: "one", Dyno: "web.1", Run: "r0", Release: 3, Result: manifold.Result{Cause: manifold.CauseExit, Status: 1}}
	r.Lines = []why.Line{{Source: manifold.SourceApp, Text: "boom"}}
	if keep(r) {
		return []why.Run{r}, nil
	}
	return nil, nil
}

func (*fakeAgent) Statuses() []Status {
	return []Status{
		{Dyno: manifold.Dyno{Name: "web.1", Assignment: "a1", Run: "r1"}, AppName: "one"},
		{Dyno: manifold.Dyno{Name: "web.1", Assignment: "a2", Run: "r2"}, AppName: "two"},
	}
}

func (f *fakeAgent) Teardown(_ context.Context, now bool) error {
	f.teardowns.Add(1)
	if f.tearing != nil {
		f.tearing()
	}
	if !now {
		return fmt.Errorf("it does not end")
	}
	return nil
}

// rig is a door with its socket.
type rig struct {
	*http.Client
	agent  *fakeAgent
	door   *Door
	dir    string
	served chan bool
	end    context.CancelFunc // the agent's end
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{agent: &fakeAgent{}, dir: t.TempDir(), served: make(chan bool, 1)}
	l, err := Listen(r.dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	events, err := OpenEvents(filepath.Join(r.dir, "events.log"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(Config{Agent: r.agent, Dir: r.dir, Events: events, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r.door = d
	ctx, cancel := context.WithCancel(context.Background())
	r.end = cancel
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.served <- d.Serve(ctx, l)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		d.Close()
		events.Close()
	})
	r.Client = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", SocketPath(r.dir))
		},
	}}
	return r
}

// ask returns an answer's status and body.
func (r *rig) ask(t *testing.T, method, path string) (int, string) {
	t.Helper()
	status, body, err := r.tryToAsk(t, method, path)
	if err != nil {
		t.Fatal(err)
	}
	return status, body
}

func (r *rig) tryToAsk(t *testing.T, method, path string) (status int, body string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://agent"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

func TestAnswersAndErrorsAreJSON(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		method, path string
		status       int
		says         string
	}{
		{"GET", "/healthz", 200, `"status":"ok"`},
		{"GET", "/v1/ps", 200, `"run":"r2"`},
		{"GET", "/v1/dynos/two:web.1", 200, `"assignment":"a2"`},
		{"GET", "/v1/dynos/r1", 200, `"assignment":"a1"`},
		{"GET", "/v1/dynos/one:web.1/why", 200, `exit 1: the app ended by itself; its last line: \"boom\"`},
		{"GET", "/v1/dynos/r0/why", 200, `"changed":["GREETING"]`},
		{"GET", "/v1/dynos/r2/why", 200, `nothing has ended it`},
		{"GET", "/v1/dynos/web.1/why", 409, `two:web.1`},
		{"GET", "/v1/dynos/web.9/why", 404, `none that ended lately`},
		{"GET", "/v1/dynos/r0/logs", 200, `"text":"boom"`},
		{"GET", "/v1/events?last=x", 400, `is no number`},
		{"GET", "/v1/dynos/web.9", 404, `"id":"not_found"`},
		{"GET", "/nowhere", 404, `"id":"not_found"`},
		{"POST", "/v1/teardown", 500, `it does not end`},
	} {
		status, body := r.ask(t, c.method, c.path)
		if status != c.status || !strings.Contains(body, c.says) || !json.Valid([]byte(body)) {
			t.Errorf("%s %s: %d %s", c.method, c.path, status, body)
		}
	}
}

func TestTeardownIsAnsweredBeforeTheDoorEnds(t *testing.T) {
	r := newRig(t)
	r.agent.tearing = r.door.audit.mu.Lock // its request hangs on its way out, as on a host that stands still
	status, body, err := r.tryToAsk(t, "POST", "/v1/teardown?now=true")
	r.door.audit.mu.Unlock()
	if err != nil || status != 200 {
		t.Errorf("a teardown that was done is answered %d %q, %v", status, body, err)
	}
}

func TestTeardownEndsTheDoorAfterItsAnswer(t *testing.T) {
	r := newRig(t)
	if status, body := r.ask(t, "POST", "/v1/teardown?now=true"); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if !<-r.served {
		t.Error("Serve does not say that the host was torn down")
	}
}

// An act that the agent's own end cut short is not answered as one that was
// done.
func TestTeardownThatTheAgentsEndCutShort(t *testing.T) {
	r := newRig(t)
	r.agent.tearing = r.end
	if status, body := r.ask(t, "POST", "/v1/teardown"); status != 500 || !strings.Contains(body, "teardown_failed") {
		t.Errorf("it is answered %d %q", status, body)
	}
}

func TestEveryCallerIsWrittenDown(t *testing.T) {
	r := newRig(t)
	for range 3 {
		r.ask(t, "GET", "/v1/ps")
		r.ask(t, "POST", "/v1/teardown?now=false")
	}
	text, err := os.ReadFile(filepath.Join(r.dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	var looks, acts, ends int
	for line := range strings.Lines(string(text)) {
		var e Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if e.Caller.UID != os.Getuid() || e.Caller.PID != os.Getpid() || e.Caller.Command == "" || time.Since(e.At) > time.Minute {
			t.Errorf("entry %+v", e)
		}
		switch {
		case e.What == "GET /v1/ps":
			looks++
		case e.Status == 0:
			acts++
		case e.Status == 500:
			ends++
		}
	}
	if looks != 1 || acts != 3 || ends != 3 {
		t.Errorf("%d looks, %d acts, %d ends of acts:\n%s", looks, acts, ends, text)
	}
	if info, err := os.Stat(filepath.Join(r.dir, "audit.log")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode: %v, %v", info.Mode(), err)
	}
}

func TestAuditLogIsBounded(t *testing.T) {
	dir := t.TempDir()
	a, err := openAudit(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	entry := Entry{What: strings.Repeat("x", maxWhat)}
	for range 3 * journalLimit / maxWhat {
		a.note(entry)
	}
	var sum int64
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		sum += info.Size()
	}
	if len(files) != 2 || sum > 2*journalLimit {
		t.Errorf("%d bytes in %q", sum, files)
	}
}

func TestSocketOfAnotherIsNotTaken(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(SocketPath(dir)); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	if _, err := Listen(dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another agent answers") {
		t.Errorf("a second listener got %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if l, err = Listen(dir, slog.New(slog.DiscardHandler)); err != nil { // a dead agent's socket
		t.Fatal(err)
	}
	l.Close()
	if err := os.WriteFile(SocketPath(dir), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("a file in its place: %v", err)
	}
}

// TestAThousandClients: whoever holds a thousand connections open gets words,
// and root gets in all the same.
func TestAThousandClients(t *testing.T) {
	r := newRig(t)
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for range 1000 {
		c, err := net.DialTimeout("unix", SocketPath(r.dir), 30*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	told := 0
	for _, c := range held[maxClients+maxRootClients:] { // all at once: most are only hung up on
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = io.WriteString(c, "GET /v1/ps HTTP/1.1\r\nHost: agent\r\n\r\n")
		text, err := io.ReadAll(c)
		if len(text) > 0 && !strings.Contains(string(text), "too many clients") || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%q, %v", text, err)
		}
		told += min(len(text), 1)
		c.Close()
	}
	t.Logf("%d were told", told)
	// Who comes later is told in HTTP, unless those before are still being told.
	await := func(want int, words string) {
		t.Helper()
		until := time.Now().Add(30 * time.Second)
		for {
			status, body, err := r.tryToAsk(t, "GET", "/v1/ps")
			if status == want && strings.Contains(body, words) {
				return
			}
			if time.Now().After(until) {
				t.Fatalf("%d %s, %v", status, body, err)
			}
		}
	}
	await(http.StatusServiceUnavailable, "too many clients")
	early, err := net.DialTimeout("unix", SocketPath(r.dir), 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_ = early.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, _ := early.Read(make([]byte, 1)); n > 0 {
		t.Error("a client was answered before it had asked")
	}
	early.Close()
	for _, c := range held[:maxRootClients] {
		c.Close()
	}
	await(http.StatusOK, "")
}

// A journal whose file somebody took away, or whose last turn failed half-way,
// begins a new one.
func TestJournalThatWasTakenAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	j, err := openJournal(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { j.close() }()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", journalLimit/4)
	for range 8 {
		j.write(line)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > journalLimit {
		t.Errorf("its file: %v, %v", info, err)
	}
}

// TestJournalOnAFullDisk: what the disk took of a line, and what a power cut
// left of one, spoil no other.
func TestJournalOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatalf("mount a small tmpfs (this test needs root): %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}()
	path, filler := filepath.Join(dir, "audit.log"), filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	reopen := func() *journal {
		t.Helper()
		j, err := openJournal(path, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := reopen()
	for range 300 { // of a thousand bytes each
		j.write(strings.Repeat("x", 998))
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	j.write("room again")
	j.close()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.WriteString(`"a power cut ca`)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	j = reopen()
	j.write("back again")
	j.close()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"\n\"room again\"\n", "\n\"back again\"\n"} {
		if !strings.Contains(string(text), line) {
			t.Errorf("%q is no line of its own", line)
		}
	}
}
