package logs

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"
)

// roll starts a new segment when there is none or the last is full or old,
// and drops the oldest that nothing needs any more.
func (b *buffer) roll(now time.Time) error {
	if n := len(b.segments); n > 0 && b.segments[n-1].size < segmentBytes && now.Sub(b.segments[n-1].born) < segmentTime {
		return nil
	}
	b.pruneStreams()
	ids := slices.Collect(maps.Keys(b.streams))
	rec := []byte(header)
	for i, id := range ids {
		rec = appendStream(rec, uint64(i+1), b.streams[id].seq, b.streams[id].at, id)
	}
	f, err := b.create(rec)
	if err != nil {
		return fmt.Errorf("start log segment: %w", err)
	}
	for i, id := range ids {
		b.streams[id].ref = uint64(i + 1)
	}
	if b.file != nil {
		b.file.Close()
	}
	// A last segment without a line had the name that the new one took.
	if n := len(b.segments); n > 0 && b.segments[n-1].first == b.next {
		b.segments = b.segments[:n-1]
	}
	b.file, b.refs = f, uint64(len(ids))
	b.segments = append(b.segments, segment{first: b.next, size: int64(len(rec)), born: now})
	b.drop(now)
	return nil
}

// create makes the segment that starts with line b.next. It is written aside
// and renamed, so a segment that is there is complete in what it says of the
// streams, whenever this process is killed.
func (b *buffer) create(head []byte) (*os.File, error) {
	if err := b.root.Mkdir(b.app, 0o700); err != nil && !os.IsExist(err) {
		return nil, err
	}
	aside := b.app + "/new"
	f, err := b.root.OpenFile(aside, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err = f.WriteAt(head, 0); err == nil {
		err = b.root.Rename(aside, b.path(b.next))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// drop removes the oldest segments while the rest hold all that is promised,
// and those that are too old.
func (b *buffer) drop(now time.Time) {
	var total int64
	for _, s := range b.segments {
		total += s.size
	}
	for len(b.segments) > 1 {
		oldest, second := b.segments[0], b.segments[1]
		enough := b.next-second.first >= uint64(b.keep.Lines) && total-oldest.size >= keepBytes
		if !enough && now.Sub(second.born) < b.keep.Time {
			return
		}
		_ = b.root.Remove(b.path(oldest.first)) // what stays behind is removed with the app
		total -= oldest.size
		b.segments = b.segments[1:]
	}
}

// pruneStreams forgets the streams that have been silent longest, so that
// what heads each segment stays small however many dynos came and went.
func (b *buffer) pruneStreams() {
	if len(b.streams) <= maxStreams {
		return
	}
	ids := slices.Collect(maps.Keys(b.streams))
	slices.SortFunc(ids, func(x, y string) int {
		return cmp.Or(b.streams[x].at.Compare(b.streams[y].at), cmp.Compare(x, y))
	})
	for _, id := range ids[:len(ids)-maxStreams/2] {
		b.streams[id].ref = 0 // it may be the one that is about to write
		delete(b.streams, id)
	}
}

// unload gives back what the app holds in memory; load brings it again.
func (b *buffer) unload() {
	if b.file != nil {
		b.file.Close()
	}
	b.file, b.segments, b.streams, b.loaded = nil, nil, nil, false
}

// expire removes what is past its time, the last segment too if nothing was
// written to it since and nobody watches.
func (b *buffer) expire(now time.Time) error {
	if len(b.segments) == 0 {
		return nil
	}
	b.drop(now)
	info, err := b.file.Stat()
	if err != nil || now.Sub(info.ModTime()) < b.keep.Time || len(b.tails) > 0 {
		return err
	}
	b.unload()
	return b.root.RemoveAll(b.app)
}

// end lets nobody use the buffer any more and wakes its tails to see it.
func (b *buffer) end(why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone = why
	b.unload()
	for t := range b.tails {
		t.notify()
	}
}
