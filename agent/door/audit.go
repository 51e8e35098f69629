package door

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Caller is who is at the other end of the socket, in the kernel's word when
// it connected (unix(7), SO_PEERCRED).
type Caller struct {
	PID     int    `json:"pid"`
	UID     int    `json:"uid"`
	GID     int    `json:"gid"`
	Command string `json:"command,omitempty"` // its own word (/proc/pid/comm), for people only
}

// peer asks the kernel who connected.
func peer(c net.Conn) (Caller, error) {
	if inner, ok := c.(*counted); ok {
		c = inner.Conn
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return Caller{}, errors.New("no unix socket")
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, credErr); err != nil {
		return Caller{}, err
	}
	who := Caller{PID: int(cred.Pid), UID: int(cred.Uid), GID: int(cred.Gid)}
	if comm, err := os.ReadFile("/proc/" + strconv.Itoa(who.PID) + "/comm"); err == nil {
		who.Command = strings.TrimSpace(string(comm))
	}
	return who, nil
}

type callerKey struct{}

func withCaller(ctx context.Context, c net.Conn) context.Context {
	who, err := peer(c)
	if err != nil {
		who = Caller{UID: -1, GID: -1}
	}
	return context.WithValue(ctx, callerKey{}, who)
}

// callerOf is who sent a request.
func callerOf(r *http.Request) Caller {
	who, _ := r.Context().Value(callerKey{}).(Caller)
	return who
}

// Entry is a line of the audit log.
type Entry struct {
	At     time.Time `json:"at"`
	Caller Caller    `json:"caller"`
	What   string    `json:"what"`             // "POST /v1/teardown?now=true"
	Status int       `json:"status,omitempty"` // 0: it begins; else it ended so
}

const (
	readAgain  = 10 * time.Minute
	maxReaders = 1000
	maxWhat    = 500 // bytes
)

// audit is the log of who came and what they did: $MANIFOLD_HOME/agent/audit.log.
// What changes something is written before it is done, and how it ended; what
// only looks is written once in ten minutes for each user, so that a scraper
// does not push the acts out.
type audit struct {
	*journal
	reading sync.Mutex
	reads   map[string]time.Time
}

func openAudit(dir string, log *slog.Logger) (*audit, error) {
	j, err := openJournal(filepath.Join(dir, "audit.log"), log)
	if err != nil {
		return nil, err
	}
	return &audit{journal: j, reads: map[string]time.Time{}}, nil
}

// note writes an entry.
func (a *audit) note(e Entry) {
	e.At = time.Now().UTC()
	a.write(e)
}

// firstRead says whether a look is to be written.
func (a *audit) firstRead(who Caller, what string, now time.Time) bool {
	key := strconv.Itoa(who.UID) + " " + what
	a.reading.Lock()
	defer a.reading.Unlock()
	if at, known := a.reads[key]; known && now.Sub(at) < readAgain {
		return false
	}
	if len(a.reads) >= maxReaders {
		clear(a.reads)
	}
	a.reads[key] = now
	return true
}

// audited writes down every request.
func (d *Door) audited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, what := callerOf(r), r.Method+" "+r.URL.RequestURI()
		if len(what) > maxWhat {
			what = strings.ToValidUTF8(what[:maxWhat], "") + "…"
		}
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			if d.audit.firstRead(who, what, time.Now()) {
				d.audit.note(Entry{Caller: who, What: what})
			}
			next.ServeHTTP(w, r)
			return
		}
		d.audit.note(Entry{Caller: who, What: what})
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() { d.audit.note(Entry{Caller: who, What: what, Status: seen.status}) }()
		next.ServeHTTP(seen, r)
	})
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach what is below: Hijack, Flush.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
