package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"manifold"
)

// Bounds of one batch of log lines and of what is kept for a coordinator
// that is away.
const (
	batchLines  = 1000
	batchBytes  = 512 << 10
	readLines   = 100 // at a time from one stream, so that a loud one waits its turn
	batchWait   = 50 * time.Millisecond
	postTimeout = 30 * time.Second
	sweepEvery  = 5 * time.Second // looks at every stream, whatever inotify said
	saveEvery   = time.Second     // the place in a stream is written down at most so often

	// What is shipped of one run in a second, after a second's worth at once: a
	// line counts as one, and as one more for each paceBytes of it. What a
	// louder one writes waits in its segments, and pushes its own oldest lines
	// out of them; else agent and coordinator would spend on it the time of all
	// its neighbours' requests.
	paceLines = 20_000
	paceBytes = 200

	keepLogsFor   = 7 * 24 * time.Hour // of runs that ended
	keepLogsBytes = 1 << 30
)

// shipper brings the runs' log lines to the coordinator, in order, at least
// once. Its disk is the queue: a coordinator that is away costs no memory,
// and no writer ever waits.
type shipper struct {
	shelf shelf
	up    coordinator
	tail  *tail // nil: only the sweep and say find lines
	log   *slog.Logger
	pulse *pulse

	mu      sync.Mutex
	runs    map[string]*runLog // by run id
	dirty   map[string]bool
	wake    chan struct{}
	dropped uint64 // runs given up with lines not shipped

	pending []part // read but not yet safe; run's own
}

func newShipper(s shelf, up coordinator, log *slog.Logger) *shipper {
	return &shipper{shelf: s, up: up, log: log, pulse: newPulse(), runs: map[string]*runLog{}, dirty: map[string]bool{}, wake: make(chan struct{}, 1)}
}

// open makes a run known, so that lines can be said of it and its log is
// shipped. Known ones are returned as they are. Without create, a run whose
// log is no longer there (all shipped) is nil.
func (s *shipper) open(a manifold.Assignment, run string, create bool) (*runLog, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.runs[run]; l != nil {
		return l, nil
	}
	dir := s.shelf.runDir(a.ID, run)
	if _, err := os.Stat(dir); err != nil && !create {
		return nil, nil
	}
	l, err := openRunLog(dir, runMeta{App: a.App, Assignment: a.ID, Process: a.Dyno, Run: run})
	if err != nil {
		return nil, err
	}
	s.add(l)
	return l, nil
}

// add is called with mu held.
func (s *shipper) add(l *runLog) {
	s.runs[l.meta.Run] = l
	s.touchLocked(l.meta.Run)
}

// recover finds the logs of runs that no record names any more and ships
// what is left of them.
func (s *shipper) recover(named map[string]bool, now time.Time) error {
	dirs, err := filepath.Glob(filepath.Join(s.shelf.dir, "*", "runs", "*"))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, dir := range dirs {
		run := filepath.Base(dir)
		if named[run] || uuid.Validate(run) != nil {
			continue
		}
		meta, err := readMeta(dir)
		if err == nil && (meta.Run != run || uuid.Validate(meta.Assignment) != nil || s.shelf.runDir(meta.Assignment, run) != dir) {
			err = errors.New("it does not fit its place")
		}
		var l *runLog
		if err == nil {
			l, err = openRunLog(dir, meta)
		}
		if err != nil {
			s.log.Error("an ended run's log cannot be shipped and is dropped", "dir", dir, "error", err)
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			continue
		}
		l.finish(now)
		s.add(l)
	}
	return nil
}

// attach follows the app's segments in a box.
func (s *shipper) attach(l *runLog, appDir string) {
	l.attach(appDir)
	if s.tail != nil {
		if err := s.tail.watch(appDir, l.meta.Run); err != nil {
			s.log.Warn("a log is followed by polling only", "run", l.meta.Run, "error", err)
		}
	}
	s.touch(l.meta.Run)
}

func (s *shipper) say(l *runLog, seq uint64, at time.Time, text string) {
	l.say(seq, at, text)
	s.touch(l.meta.Run)
}

// finish lets a run's log go once it is shipped.
func (s *shipper) finish(l *runLog, at time.Time) {
	l.finish(at)
	s.touch(l.meta.Run)
}

func (s *shipper) touch(run string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touchLocked(run)
}

func (s *shipper) touchLocked(run string) {
	s.dirty[run] = true
	s.wakeUp()
}

func (s *shipper) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *shipper) touchAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for run := range s.runs {
		s.touchLocked(run)
	}
}

// run ships until ctx ends.
func (s *shipper) run(ctx context.Context) {
	defer s.closeAll()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	pause := backoff{first: 500 * time.Millisecond, last: 10 * time.Second}
	defer s.pulse.end("log shipping")
	for {
		s.pulse.beat("log shipping")
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
			s.save(saveEvery)
			s.touchAll()
		case <-s.wake:
			if !sleep(ctx, batchWait) {
				return
			}
		}
		for s.ship(ctx) {
			s.pulse.beat("log shipping")
			pause.reset()
		}
		s.enforceBounds(time.Now())
		if len(s.pending) > 0 && !pause.wait(ctx) {
			return
		}
	}
}

// ship sends one batch. It is false when there was none, and when it could
// not be sent: then it stays pending, since the readers are behind it.
func (s *shipper) ship(ctx context.Context) bool {
	if len(s.pending) == 0 {
		var drained []*runLog
		s.pending, drained = s.gather()
		for _, l := range drained {
			s.drop(l)
		}
	}
	if len(s.pending) == 0 {
		return false
	}
	if err := s.post(ctx, s.pending); err != nil {
		s.log.Debug("log lines wait for the coordinator", "error", err)
		s.wakeUp()
		return false
	}
	s.ack(s.pending)
	s.pending = nil
	return true
}

// ack notes how far the coordinator has the streams. It is saved now and then:
// an agent that is killed sends the lines since again, and the coordinator
// drops what it has.
func (s *shipper) ack(parts []part) {
	for _, p := range parts {
		p.log.meta.Acked[p.stream.Source] = p.stream.Lines[len(p.stream.Lines)-1].Seq
		p.log.unsaved = true
	}
	s.save(saveEvery)
}

// save writes down the places that moved, where that was not done for a while.
func (s *shipper) save(after time.Duration) {
	now := time.Now()
	var logs []*runLog
	s.mu.Lock()
	for _, l := range s.runs {
		if l.unsaved && now.Sub(l.savedAt) >= after {
			logs = append(logs, l)
		}
	}
	s.mu.Unlock() // the disk may be slow
	for _, l := range logs {
		l.unsaved, l.savedAt = false, now
		if err := l.save(); err != nil { // lines may go twice, none is lost
			s.log.Warn("the place in a log could not be saved", "run", l.meta.Run, "error", err)
		}
	}
}

// part is some lines of one stream in a batch.
type part struct {
	log    *runLog
	stream manifold.LogStream
}

// gather reads a batch off the streams that were written to, a piece of each
// in turn. drained are the runs that are over and have nothing left to ship.
func (s *shipper) gather() (parts []part, drained []*runLog) {
	lines, bytes := 0, 0
	index := map[string]int{} // of a stream in parts
	for queue := s.takeDirty(); len(queue) > 0; queue = queue[1:] {
		l := queue[0]
		if lines >= batchLines || bytes >= batchBytes {
			s.touch(l.meta.Run)
			continue
		}
		if l.pace.Tokens() < 0 {
			time.AfterFunc(batchWait, func() { s.touch(l.meta.Run) })
			continue
		}
		over, _, _ := l.state() // asked before reading
		more, broken := false, false
		for _, source := range []string{manifold.SourceHeroku, manifold.SourceApp} {
			got, err := l.read(source, readLines)
			if err != nil {
				s.log.Warn("a log could not be read, will try again", "run", l.meta.Run, "source", source, "error", err)
				broken = true // the sweep comes by again
			}
			if len(got) == 0 {
				continue
			}
			more = true
			size := sizeOf(got)
			lines, bytes = lines+len(got), bytes+size
			l.pace.ReserveN(time.Now(), len(got)+size/paceBytes)
			id := l.meta.Run + "/" + source
			i, ok := index[id]
			if !ok {
				i = len(parts)
				index[id] = i
				parts = append(parts, part{l, manifold.LogStream{
					ID: id, App: l.meta.App, Assignment: l.meta.Assignment, Source: source, Process: l.meta.Process,
				}})
			}
			parts[i].stream.Lines = append(parts[i].stream.Lines, got...)
		}
		switch {
		case more:
			queue = append(queue, l)
		case over && slices.ContainsFunc(parts, func(p part) bool { return p.log == l }):
			s.touch(l.meta.Run) // not before this batch is safe
		case over && !broken:
			drained = append(drained, l)
		}
	}
	return parts, drained
}

func sizeOf(lines []manifold.LogLine) (bytes int) {
	for _, line := range lines {
		bytes += len(line.Text)
	}
	return bytes
}

func (s *shipper) takeDirty() []*runLog {
	s.mu.Lock()
	defer s.mu.Unlock()
	var logs []*runLog
	for run := range s.dirty {
		if l := s.runs[run]; l != nil {
			logs = append(logs, l)
		}
	}
	clear(s.dirty)
	return logs
}

// post sends a batch. No error means that it is safe with the coordinator,
// or that it never will be.
func (s *shipper) post(ctx context.Context, parts []part) error {
	batch := manifold.LogBatch{Streams: make([]manifold.LogStream, len(parts))}
	for i, p := range parts {
		batch.Streams[i] = p.stream
	}
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	err := s.up.Post(ctx, "/fleet/v1/logs", batch)
	var status *manifold.StatusError
	if errors.As(err, &status) && (status.Status == http.StatusBadRequest || status.Status == http.StatusRequestEntityTooLarge) {
		s.log.Error("the coordinator refuses log lines for good: dropped", "streams", len(parts), "error", err)
		return nil
	}
	return err
}

// drop forgets a run and removes its log.
func (s *shipper) drop(l *runLog) {
	s.mu.Lock()
	delete(s.runs, l.meta.Run)
	delete(s.dirty, l.meta.Run)
	s.mu.Unlock()
	l.close()
	// What says where the lines are goes last: after a kill the next agent finds
	// nothing left to ship, not lines that it knows nothing of.
	err := errors.Join(os.RemoveAll(filepath.Join(l.dir, manifold.SourceApp)), os.RemoveAll(filepath.Join(l.dir, manifold.SourceHeroku)), os.RemoveAll(l.dir))
	if err != nil {
		s.log.Warn("a shipped log could not be removed", "dir", l.dir, "error", err)
	}
	s.mu.Lock() // the dyno's next run may be making its directory: open
	defer s.mu.Unlock()
	s.shelf.tidy(l.meta.Assignment)
}

// enforceBounds gives up the oldest ended runs whose lines nobody took.
func (s *shipper) enforceBounds(now time.Time) {
	type ended struct {
		log   *runLog
		at    time.Time
		bytes int64
	}
	var list []ended
	var sum int64
	s.mu.Lock()
	for _, l := range s.runs {
		if over, at, bytes := l.state(); over {
			list = append(list, ended{l, at, bytes})
			sum += bytes
		}
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b ended) int { return a.at.Compare(b.at) })
	for _, e := range list {
		if sum <= keepLogsBytes && now.Sub(e.at) < keepLogsFor {
			return
		}
		sum -= e.bytes
		s.mu.Lock()
		s.dropped++
		s.mu.Unlock()
		s.log.Warn("an ended run's log is dropped unshipped: the coordinator did not take it in time",
			"run", e.log.meta.Run, "dyno", e.log.meta.Process, "bytes", e.bytes, "acked", e.log.meta.Acked)
		s.drop(e.log)
	}
}

// idle is true when every run's log is with the coordinator.
func (s *shipper) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.runs {
		if over, _, _ := l.state(); over {
			return false
		}
	}
	return true
}

// logsDropped counts the runs whose logs were given up unshipped.
func (s *shipper) logsDropped() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped
}

func (s *shipper) closeAll() {
	s.save(0)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.runs {
		l.close()
	}
}
