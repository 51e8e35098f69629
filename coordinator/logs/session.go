package logs

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	sessionUnused = 5 * time.Minute  // after which a session is forgotten
	maxSessions   = 10_000           // past it the one unused for longest goes
	heartbeat     = 20 * time.Second // node's fetch gives up after 300 s of silence
	stuckReader   = time.Minute      // a write that takes longer ends the stream

	// After the end of a stream the heroku CLI's reader keeps the process
	// alive for the time after which it would come back: 3 s, unless told
	// otherwise. Where nothing follows nobody shall wait for that; one that
	// does come back is to come no faster than this.
	comeBack = "retry: 100\n\n"
)

// session is what a log session's token stands for.
type session struct {
	app    string
	user   string          // who asked for it
	ended  context.Context // when they may not read it any more
	end    context.CancelFunc
	lines  int
	tail   bool
	filter Filter
	used   time.Time
	open   int // streams being served
}

type sessions struct {
	mu      sync.Mutex
	byToken map[string]*session
}

// NewSession makes a log session of one app and returns its token, for the
// URL /streams/{token}: whoever has it may read these lines, with no other
// credential. It is good until it was not used for five minutes, so that a
// tail can be taken up again, or until its user's (User.ID) access is revoked.
// Lines is how much of the past is shown, at most Keep.Lines.
func (h *Hub) NewSession(app, user string, lines int, tail bool, source, dyno string) (token string) {
	token = rand.Text()
	ended, end := context.WithCancel(context.Background())
	h.sessions.add(token, &session{app: app, user: user, ended: ended, end: end, lines: lines, tail: tail, filter: Filter{Source: source, Dyno: dyno}, used: time.Now()})
	return token
}

func (s *sessions) add(token string, x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byToken == nil {
		s.byToken = map[string]*session{}
	}
	if len(s.byToken) >= maxSessions {
		s.expire(x.used)
	}
	s.byToken[token] = x
}

// use finds a session and counts one more stream of it.
func (s *sessions) use(token string, now time.Time) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.byToken[token]
	if found == nil || found.expired(now) {
		return nil
	}
	found.open++
	found.used = now
	return found
}

func (s *sessions) release(done *session, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done.open--
	done.used = now
}

func (s *session) expired(now time.Time) bool { return s.open == 0 && now.Sub(s.used) > sessionUnused }

// expire removes what expired, and if there are still too many the one that
// was unused longest. The caller holds mu.
func (s *sessions) expire(now time.Time) {
	var oldest string
	for token, x := range s.byToken {
		switch {
		case x.expired(now):
			delete(s.byToken, token)
		case x.open == 0 && (oldest == "" || x.used.Before(s.byToken[oldest].used)):
			oldest = token
		}
	}
	if len(s.byToken) >= maxSessions {
		delete(s.byToken, oldest)
	}
}

func (s *sessions) forget(app string) {
	s.drop(func(x *session) bool { return x.app == app })
}

func (s *sessions) drop(which func(*session) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token, x := range s.byToken {
		if which(x) {
			x.end()
			delete(s.byToken, token)
		}
	}
}

// Revoke ends the sessions of a user who may not read an app's log any more,
// and the streams that are open by them; of all apps where app is "".
func (h *Hub) Revoke(app, user string) {
	h.sessions.drop(func(x *session) bool { return x.user == user && (app == "" || x.app == app) })
}

// ServeHTTP answers GET /streams/{token} with the session's lines as server
// sent events, one event a line, its id the line's (WHATWG HTML, 9.2). A
// session without tail ends with its last line; one with tail goes on until
// either side leaves. A reader that comes back with Last-Event-ID gets what
// it did not see.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token := strings.TrimPrefix(r.URL.Path, "/streams/")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "A log stream can only be read.", http.StatusMethodNotAllowed)
		return
	}
	s := h.sessions.use(token, time.Now())
	if s == nil {
		http.Error(w, "This log session does not exist or has expired. Make a new one with: heroku logs", http.StatusNotFound)
		return
	}
	defer func() { h.sessions.release(s, time.Now()) }()
	after, _ := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64) // anything else: as if it were not there
	lines, tail, err := h.backlog(s.app, s.filter, s.lines, after)
	if errors.Is(err, ErrForgotten) {
		http.Error(w, "The app of this log session was deleted.", http.StatusNotFound)
		return
	}
	if err != nil {
		http.Error(w, "The log lines cannot be read now. Try again.", http.StatusServiceUnavailable)
		return
	}
	defer tail.Close()
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	if r.Method == http.MethodHead {
		return
	}
	e := events{w: w, flush: http.NewResponseController(w), stuck: h.stuck, ended: s.ended}
	if !s.tail {
		e.buf.WriteString(comeBack)
	}
	if err := e.send(lines); err != nil {
		return
	}
	if after > 0 && !s.tail {
		_ = e.rest(tail)
	}
	reading, stop := context.WithCancel(r.Context())
	defer stop()
	defer context.AfterFunc(s.ended, stop)()
	for s.tail {
		ctx, cancel := context.WithTimeout(reading, heartbeat)
		lines, err := tail.Next(ctx)
		cancel()
		switch {
		case reading.Err() != nil, errors.Is(err, io.EOF):
			return
		case errors.Is(err, context.DeadlineExceeded):
			err = e.beat()
		case err == nil:
			err = e.send(lines)
		}
		if err != nil {
			return
		}
	}
}

// events writes lines as server-sent events. No line can end or fake one:
// clean left no line end in its text.
type events struct {
	w     io.Writer
	flush *http.ResponseController
	stuck time.Duration
	ended context.Context // the session's
	buf   bytes.Buffer
}

// send asks whether the session goes on when it has the lines: one that was
// written after the session's end is not among those it sends.
func (e *events) send(lines []Line) error {
	if err := e.ended.Err(); err != nil {
		return err
	}
	for _, l := range lines {
		b := append(e.buf.AvailableBuffer(), "id: "...)
		b = strconv.AppendUint(b, l.ID, 10)
		b = append(b, "\ndata: "...)
		b = l.AppendTo(b)
		b = append(b, "\n\n"...)
		e.buf.Write(b)
	}
	defer e.buf.Reset()
	return e.write(e.buf.Bytes())
}

func (e *events) beat() error { return e.write([]byte(": hb\n\n")) }

// rest sends what is there behind the tail's place now.
func (e *events) rest(t *Tail) error {
	for more := true; more; {
		lines, m, err := t.read()
		if err != nil {
			return err
		}
		if more = m; len(lines) > 0 {
			if err := e.send(lines); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *events) write(b []byte) error {
	_ = e.flush.SetWriteDeadline(time.Now().Add(e.stuck)) // a writer without deadlines is a test's
	if _, err := e.w.Write(b); err != nil {
		return err
	}
	return e.flush.Flush()
}
