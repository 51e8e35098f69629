package logs

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"manifold"
)

// Keep is how much is promised to be kept of one app: what is beyond either
// bound is not shown any more.
type Keep struct {
	Lines int
	Time  time.Duration
}

// DefaultKeep is Logplex's.
var DefaultKeep = Keep{Lines: 1500, Time: 7 * 24 * time.Hour}

// Bytes give a reader of a busy app, and its drains, some seconds to catch up
// before lines are dropped in front of them.
const (
	keepBytes    = 8 << 20
	segmentBytes = 2 << 20
	segmentTime  = 24 * time.Hour
	writeBytes   = 512 << 10
	maxStreams   = 1024 // remembered of one app; the longest silent is forgotten first
)

// buffer is one app's lines. What is in memory is where its streams stand and
// which segments there are; the lines themselves stay on disk, where the
// kernel caches those that somebody reads.
type buffer struct {
	root *os.Root // the hub's directory
	app  string
	keep Keep

	pins int // guarded by Hub.mu: users of this value; 0 may be unloaded

	mu       sync.Mutex
	loaded   bool
	gone     error // ErrForgotten or ErrClosed: nothing may be done any more
	file     *os.File
	segments []segment // oldest first; file is the last
	next     uint64    // id of the next line
	streams  map[string]*stream
	refs     uint64 // highest ref given in the last segment
	tails    map[*Tail]struct{}
	lost     uint64 // lines of Write that could not be written
}

type segment struct {
	first uint64 // id of its first line; also its name
	size  int64
	born  time.Time
}

type stream struct {
	ref uint64
	seq uint64 // highest number received
	at  time.Time
}

func (b *buffer) path(first uint64) string { return fmt.Sprintf("%s/%020d.log", b.app, first) }

// load reads the app's state from disk if that was not done yet.
func (b *buffer) load() error {
	if b.loaded {
		return nil
	}
	b.segments, b.next, b.streams = nil, 1, map[string]*stream{}
	entries, err := fs.ReadDir(b.root.FS(), b.app)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, e := range entries {
		first, err := strconv.ParseUint(strings.TrimSuffix(e.Name(), ".log"), 10, 64)
		info, err2 := e.Info()
		if err != nil || err2 != nil || !info.Mode().IsRegular() || first == 0 {
			continue
		}
		b.segments = append(b.segments, segment{first: first, size: info.Size(), born: info.ModTime()})
	}
	slices.SortFunc(b.segments, func(x, y segment) int { return cmp.Compare(x.first, y.first) })
	if len(b.segments) > 0 {
		if err := b.resume(); err != nil {
			return err
		}
	}
	b.loaded = true
	return nil
}

// resume opens the last segment for writing and learns from it where things
// stand.
func (b *buffer) resume() error {
	last := &b.segments[len(b.segments)-1]
	f, err := b.root.OpenFile(b.path(last.first), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	content, err := io.ReadAll(io.LimitReader(f, last.size))
	if err != nil {
		f.Close()
		return err
	}
	content = content[:bytes.LastIndexByte(content, '\n')+1]
	if err := f.Truncate(int64(len(content))); err != nil {
		f.Close()
		return err
	}
	b.file, last.size, b.next, b.refs = f, int64(len(content)), last.first, 0
	byRef := map[uint64]*stream{}
	for rec := range bytes.Lines(content) {
		r, ok := parse(rec[:len(rec)-1])
		switch {
		case !ok:
		case r.kind == 'P':
			s := &stream{ref: r.ref, seq: r.seq, at: r.time()}
			byRef[r.ref], b.streams[string(r.text)] = s, s
			b.refs = max(b.refs, r.ref)
		default:
			b.next = max(b.next, r.id+1)
			if s := byRef[r.ref]; s != nil {
				s.seq, s.at = max(s.seq, r.seq), r.time()
			}
		}
	}
	return nil
}

// rooms are lent to whoever makes records, so that no app keeps one.
var rooms = sync.Pool{New: func() any { return new([]byte) }}

// append adds what is new in s.
func (b *buffer) append(s manifold.LogStream, now time.Time) error {
	p := b.streams[s.ID]
	if p == nil {
		p = &stream{}
	}
	source, process := word(s.Source), word(s.Process)
	seq, since := p.seq, p.at
	room := rooms.Get().(*[]byte)
	defer rooms.Put(room)
	for lines := s.Lines; len(lines) > 0; {
		if err := b.roll(now); err != nil {
			return err
		}
		id, ref, rec := b.next, p.ref, (*room)[:0]
		if ref == 0 {
			ref = b.refs + 1
			rec = appendStream(rec, ref, p.seq, now, s.ID)
		}
		start := len(rec)
		for len(lines) > 0 && len(rec) < writeBytes {
			l := lines[0]
			lines = lines[1:]
			if l.Seq <= seq {
				continue
			}
			at := sane(l.Time, now)
			if missing := l.Seq - 1 - seq; missing > 0 {
				rec = appendLine(rec, id, at, ref, l.Seq-1, manifold.SourceHeroku, "logplex", overflow(missing, since, at))
				id++
			}
			for piece := range pieces(l.Text) {
				rec = appendLine(rec, id, at, ref, l.Seq, source, process, piece)
				id++
			}
			seq, since = l.Seq, at
		}
		*room = rec
		if len(rec) == start {
			return nil // all of it was here already
		}
		if err := b.write(rec, id); err != nil {
			return err
		}
		b.streams[s.ID] = p
		p.ref, p.seq, p.at = ref, seq, now
		b.refs = max(b.refs, ref)
	}
	return nil
}

// note adds lines that have no stream and so are never sent again.
func (b *buffer) note(source, process string, lines []string, now time.Time) error {
	if err := b.roll(now); err != nil {
		b.lost += uint64(len(lines))
		return err
	}
	id, rec := b.next, []byte(nil)
	if b.lost > 0 {
		rec = appendLine(rec, id, now, 0, 0, manifold.SourceHeroku, "logplex", overflow(b.lost, time.Time{}, now))
		id++
	}
	for _, l := range lines {
		rec = appendLine(rec, id, now, 0, 0, word(source), word(process), l)
		id++
	}
	if err := b.write(rec, id); err != nil {
		b.lost += uint64(len(lines))
		return err
	}
	b.lost = 0
	return nil
}

// overflow is the line for what was lost before it came here.
func overflow(n uint64, since, now time.Time) string {
	if since.IsZero() {
		since = now
	}
	return fmt.Sprintf("Error L12: %d messages dropped since %s.", n, since.UTC().Format(timeFormat))
}

// write puts whole records behind the last segment's end; next is the id
// after them. On an error nothing was added.
func (b *buffer) write(rec []byte, next uint64) error {
	last := &b.segments[len(b.segments)-1]
	if _, err := b.file.WriteAt(rec, last.size); err != nil {
		_ = b.file.Truncate(last.size) // else load would read the torn part; it copes with that too
		return fmt.Errorf("write log lines: %w", err)
	}
	last.size += int64(len(rec))
	b.next = next
	for t := range b.tails {
		t.notify()
	}
	return nil
}

// sane replaces a time that cannot be a line's: clocks of hosts differ, but
// not by this much, and the format on disk knows no time before 1970.
func sane(t, now time.Time) time.Time {
	if t.Unix() <= 0 || t.After(now.Add(time.Hour)) {
		return now
	}
	return t
}
