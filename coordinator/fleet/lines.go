package fleet

import (
	"context"
	"fmt"
	"sync"
	"time"

	"manifold"
)

// maxQueued bounds the bytes of lines that wait for a slow reader of a job's
// log (a git client, in the end). Beyond it lines are dropped and counted: a
// host's other logs must not wait for one reader.
const maxQueued = 8 << 20

// lineOverhead is what a line takes besides its text, so that empty ones are
// bounded too.
const lineOverhead = 64

// lineQueue parts the host that sends a job's lines from whoever reads them.
type lineQueue struct {
	each func(manifold.LogLine)
	idle chan struct{} // closed when the pump has ended

	mu      sync.Mutex
	wake    *sync.Cond
	arrived chan struct{} // closed and renewed when last grows
	queue   []manifold.LogLine
	bytes   int
	dropped int
	last    uint64 // highest number that arrived
	closed  bool
}

func newLineQueue(each func(manifold.LogLine)) *lineQueue {
	q := &lineQueue{each: each, idle: make(chan struct{}), arrived: make(chan struct{})}
	q.wake = sync.NewCond(&q.mu)
	go q.pump()
	return q
}

// put takes the lines that are new: a host sends lines again when it did not
// see our answer.
func (q *lineQueue) put(lines []manifold.LogLine) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, line := range lines {
		if line.Seq <= q.last || q.closed {
			continue
		}
		q.last = line.Seq
		size := len(line.Text) + lineOverhead
		if q.bytes+size > maxQueued {
			q.dropped++
			continue
		}
		q.queue, q.bytes = append(q.queue, line), q.bytes+size
	}
	close(q.arrived)
	q.arrived = make(chan struct{})
	q.wake.Signal()
}

// pump gives the lines to each until the queue is closed and empty.
func (q *lineQueue) pump() {
	defer close(q.idle)
	for {
		q.mu.Lock()
		for len(q.queue) == 0 && q.dropped == 0 && !q.closed {
			q.wake.Wait()
		}
		lines, size, dropped := q.queue, q.bytes, q.dropped
		q.queue, q.dropped = nil, 0
		q.mu.Unlock()
		if len(lines) == 0 && dropped == 0 {
			return
		}
		q.give(lines, dropped)
		q.mu.Lock()
		q.bytes -= size // only now: what is being read still takes its room
		q.mu.Unlock()
	}
}

func (q *lineQueue) give(lines []manifold.LogLine, dropped int) {
	if q.each == nil {
		return
	}
	for _, line := range lines {
		q.each(line)
	}
	if dropped > 0 {
		q.each(manifold.LogLine{Time: time.Now(), Text: fmt.Sprintf("(%d lines were dropped here: they came faster than they could be read)", dropped)})
	}
}

// wait returns when line seq, or a later one, has arrived.
func (q *lineQueue) wait(ctx context.Context, seq uint64) error {
	for {
		q.mu.Lock()
		last, arrived := q.last, q.arrived
		q.mu.Unlock()
		if last >= seq {
			return nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// close takes no more lines and waits until those that are here were given out.
func (q *lineQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.wake.Signal()
	q.mu.Unlock()
	<-q.idle
}
