// Package logs keeps every app's last log lines and gives them to whoever may
// read them: what Logplex is to Heroku. Lines come from agents and routers in
// numbered streams (Append) and from the coordinator itself (Write); they go
// out as a backlog (Recent), a tail (Subscribe), a log session for the heroku
// CLI (NewSession, ServeHTTP) or to a drain (Drain).
//
// Lines live on disk, at most about a week and 10 MiB of each app, and are
// read from there: memory does not grow with apps, lines or slow readers.
// This room must never let a reader slow a writer, and never let what an app
// wrote pass for a line, or an event, that it is not.
package logs

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"manifold"
)

// maxLoaded bounds the apps whose state and file are held at once; others are
// on disk only.
const maxLoaded = 1024

// Hub holds the log lines of every app. It is safe for concurrent use.
type Hub struct {
	root     *os.Root
	keep     Keep
	stuck    time.Duration // stuckReader, but in tests
	sessions sessions
	stop     context.CancelFunc
	done     chan struct{}

	mu        sync.Mutex
	closed    bool
	buffers   map[string]*list.Element // by app, of *buffer
	used      list.List                // the same, most recently used first
	forgotten map[string]time.Time     // apps that were deleted, and when
}

// ErrClosed is returned by a hub that was closed.
var ErrClosed = errors.New("the log hub is closed")

// Open is OpenKeeping of DefaultKeep.
func Open(dir string) (*Hub, error) { return OpenKeeping(dir, DefaultKeep) }

// OpenKeeping opens the log store in dir, which it makes if need be. The
// directory must have one user only. What keep leaves out is as in DefaultKeep.
func OpenKeeping(dir string, keep Keep) (*Hub, error) {
	keep = Keep{Lines: cmp.Or(keep.Lines, DefaultKeep.Lines), Time: cmp.Or(keep.Time, DefaultKeep.Time)}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open log store: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open log store: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	h := &Hub{
		root: root, keep: keep, stuck: stuckReader, stop: stop, done: make(chan struct{}),
		buffers: map[string]*list.Element{}, forgotten: map[string]time.Time{},
	}
	go h.sweep(ctx)
	return h, nil
}

// Append adds lines that came over the wire, in the order of each stream. It
// returns nil only when they survive a kill -9 of this process; after an
// error send all of them again. Lines whose number a stream already reached
// are dropped, also after a restart; numbers that were left out become one
// line that says how many. Lines of an app that was forgotten are dropped.
func (h *Hub) Append(ctx context.Context, streams []manifold.LogStream) error {
	var failed error
	for _, s := range streams {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := checkStream(s); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		err := h.with(s.App, func(b *buffer) error { return b.append(s, time.Now()) })
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("keep log lines of app %s: %w", s.App, err))
		}
	}
	return failed
}

// checkStream refuses what would break the form on disk.
func checkStream(s manifold.LogStream) error {
	if len(s.ID) == 0 || len(s.ID) > 256 || strings.ContainsFunc(s.ID, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return fmt.Errorf("log stream id %.64q must be 1 to 256 printable ASCII characters", s.ID)
	}
	return nil
}

// Reached is the highest number of a stream (LogStream.ID, as it came) that
// Append has kept: 0 for one it does not know.
func (h *Hub) Reached(app, stream string) (seq uint64) {
	_ = h.with(app, func(b *buffer) error {
		if s := b.streams[stream]; s != nil {
			seq = s.seq
		}
		return nil
	})
	return seq
}

// Write adds the coordinator's own lines, one for each line of text. If they
// cannot be written they are counted, and the count is written when lines can
// be again.
func (h *Hub) Write(app, source, process, text string) {
	var lines []string
	for l := range strings.Lines(text) {
		lines = slices.AppendSeq(lines, pieces(l))
	}
	if len(lines) == 0 {
		return
	}
	_ = h.with(app, func(b *buffer) error { return b.note(source, process, lines, time.Now()) })
}

// Recent returns the last n lines that match among those kept, oldest first.
func (h *Hub) Recent(app string, f Filter, n int) ([]Line, error) {
	lines, tail, err := h.backlog(app, f, n, 0)
	if err != nil {
		return nil, err
	}
	tail.Close()
	return lines, nil
}

// Subscribe follows an app's lines from now on. The caller must Close it.
func (h *Hub) Subscribe(app string, f Filter) (*Tail, error) { return h.tail(app, f, End()) }

// Follow is Recent, of all lines that match and are kept, and Subscribe in
// one: no line is missed or given twice. The caller must Close the tail.
func (h *Hub) Follow(app string, f Filter) ([]Line, *Tail, error) {
	return h.backlog(app, f, h.keep.Lines, 0)
}

// Place is where a reader stands in an app's lines.
type Place struct {
	Next  uint64    // id of the next line it wants
	Since time.Time // of the last line before
}

// End is the place behind the last line there is.
func End() Place { return Place{Next: ^uint64(0), Since: time.Now()} }

// Drain is a tail for a drain, which remembers its place and comes back to it:
// a place past the end means the end. What was dropped before it came is told
// as L10. The caller must Close it.
func (h *Hub) Drain(app string, from Place) (*Tail, error) {
	t, err := h.tail(app, Filter{}, from)
	if err == nil {
		t.overflow = drainOverflow
	}
	return t, err
}

func (h *Hub) tail(id string, f Filter, from Place) (*Tail, error) {
	b, err := h.pin(id)
	if err != nil {
		return nil, err
	}
	t, err := b.tail(f, from)
	if err != nil {
		h.unpin(b) // not under b's lock: it takes the hub's, and may unload b
		return nil, err
	}
	t.hub = h
	return t, nil
}

// backlog returns the last n lines that match among those that are promised to
// be kept, and a tail that goes on behind them. After is the last line the
// reader already has: if it is one of ours, only lines behind it are given.
func (h *Hub) backlog(app string, f Filter, n int, after uint64) ([]Line, *Tail, error) {
	t, err := h.Subscribe(app, f)
	if err != nil {
		return nil, nil, err
	}
	end := t.next
	if after > 0 && after < end {
		t.next = after + 1
		return nil, t, nil
	}
	n = max(min(n, h.keep.Lines), 0)
	reach := uint64(h.keep.Lines)
	if n == 0 || f == (Filter{}) {
		reach = uint64(n)
	}
	t.next = end - min(end-1, reach)
	oldest := time.Now().Add(-h.keep.Time)
	var kept []Line
	for t.next < end {
		lines, _, err := t.read()
		if err != nil {
			t.Close()
			return nil, nil, err
		}
		for _, l := range lines {
			if l.Time.After(oldest) {
				kept = append(kept, l)
			}
		}
	}
	return kept[max(0, len(kept)-n):], t, nil
}
