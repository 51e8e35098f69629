package logs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"manifold"
)

// Tail follows one app's lines. It holds a place in what is on disk and no
// lines of its own, so it costs Append nothing to have slow readers. A reader
// that falls behind what is kept gets a line L11 that says how many lines it
// missed. A Tail is for one goroutine.
type Tail struct {
	hub    *Hub
	buffer *buffer
	filter Filter
	wake   chan struct{} // 1: something was added since Next last looked
	since  time.Time     // of the last line looked at
	last   Line          // looked at: most have its source and process

	overflow string // the line that says how many lines were missed, and since when

	next   uint64 // id of the next line wanted
	file   *os.File
	first  uint64 // of the segment in file
	offset int64
}

// What a tail, and a drain, is told when lines went before it could read them.
const (
	tailOverflow  = "Error L11 (Tail buffer overflow) -> This tail session dropped %d messages since %s."
	drainOverflow = "Error L10 (output buffer overflow): %d messages dropped since %s."
)

// Overflow is the line by which a drain tells that lines were dropped. It takes
// the place of line id.
func Overflow(id uint64, dropped int, since time.Time) Line {
	return lost(id, drainOverflow, uint64(dropped), since)
}

func lost(id uint64, form string, n uint64, since time.Time) Line {
	return Line{
		ID: id, Time: time.Now(), Source: manifold.SourceHeroku, Process: "logplex",
		Text: fmt.Sprintf(form, n, since.UTC().Format(timeFormat)),
	}
}

// tail makes a tail that begins at a place; one past the end means the end.
func (b *buffer) tail(f Filter, from Place) (*Tail, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := cmp.Or(b.gone, b.load()); err != nil {
		return nil, err
	}
	t := &Tail{buffer: b, filter: f, overflow: tailOverflow, wake: make(chan struct{}, 1), since: from.Since, next: min(from.Next, b.next)}
	b.tails[t] = struct{}{}
	return t, nil
}

// Place is where the tail is: behind the lines it returned.
func (t *Tail) Place() Place { return Place{t.next, t.since} }

// chunkBytes is how much of a segment is read at once: more than the longest
// record, which is a line whose every byte became U+FFFD.
const chunkBytes = 128 << 10

var chunks = sync.Pool{New: func() any { return new([chunkBytes]byte) }}

// notify never blocks.
func (t *Tail) notify() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Next waits for lines that match and returns some of them in order. It
// returns io.EOF when the app was forgotten or the hub closed, and ctx's
// error when that ends first.
func (t *Tail) Next(ctx context.Context) ([]Line, error) {
	for {
		lines, more, err := t.read()
		if len(lines) > 0 || err != nil {
			return lines, err
		}
		if more {
			continue
		}
		select {
		case <-t.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Close ends the tail. It must not be used any more.
func (t *Tail) Close() {
	t.buffer.mu.Lock()
	delete(t.buffer.tails, t)
	t.buffer.mu.Unlock()
	if t.file != nil {
		t.file.Close()
	}
	t.hub.unpin(t.buffer)
}

// read takes the next chunk. More says that there may be lines behind it.
func (t *Tail) read() (lines []Line, more bool, err error) {
	missed, end, stop, err := t.seek()
	if err != nil {
		return nil, false, err
	}
	if missed > 0 {
		lines = append(lines, lost(t.next-1, t.overflow, missed, t.since))
	}
	if t.next >= end {
		return lines, false, nil
	}
	chunk := chunks.Get().(*[chunkBytes]byte)
	defer chunks.Put(chunk)
	n, err := t.file.ReadAt(chunk[:], t.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return lines, false, err
	}
	complete := bytes.LastIndexByte(chunk[:n], '\n') + 1
	if complete == 0 { // damaged: nothing to be had of this segment
		t.next = stop
		return lines, t.next < end, nil
	}
	for b := range bytes.Lines(chunk[:complete]) {
		r, ok := parse(b[:len(b)-1])
		if ok && r.kind == 'L' && r.id >= end {
			break // written after we looked; the next read has it
		}
		t.offset += int64(len(b))
		if !ok || r.kind != 'L' || r.id < t.next {
			continue
		}
		t.next, t.since = r.id+1, r.time()
		if t.filter.match(r.source, r.process) {
			t.last = r.line(t.last)
			lines = append(lines, t.last)
		}
	}
	return lines, t.next < end, nil
}

// seek opens the segment that holds the next line. Missed is how many lines
// were dropped before they were read, end the id after the last line there
// is, stop the id after the segment's last.
func (t *Tail) seek() (missed, end, stop uint64, err error) {
	b := t.buffer
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone != nil {
		return 0, 0, 0, io.EOF
	}
	end = b.next
	if t.next >= end || len(b.segments) == 0 {
		return 0, end, end, nil
	}
	if oldest := b.segments[0].first; t.next < oldest {
		missed, t.next = oldest-t.next, oldest
	}
	i := len(b.segments) - 1
	for i > 0 && b.segments[i].first > t.next {
		i--
	}
	stop = end
	if i+1 < len(b.segments) {
		stop = b.segments[i+1].first
	}
	if t.file != nil && t.first == b.segments[i].first {
		return missed, end, stop, nil
	}
	f, err := b.root.Open(b.path(b.segments[i].first))
	if err != nil {
		return missed, end, stop, err
	}
	if t.file != nil {
		t.file.Close()
	}
	t.file, t.first, t.offset = f, b.segments[i].first, 0
	return missed, end, stop, nil
}
