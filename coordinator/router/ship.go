package router

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"manifold"
)

// How much waits for the coordinator, in bytes of text and what a line costs
// beside it. Lines beyond it are dropped; their numbers are used all the same,
// so the coordinator says how many. JSON can make six bytes of one, and a
// batch must still fit into manifold.MaxWireBody.
const (
	maxQueuedOfApp = 2 << 20
	maxQueued      = 16 << 20
	maxBatch       = 2 << 20
	lineCost       = 100
	batchEvery     = 100 * time.Millisecond
	streamForget   = time.Hour
	lastWords      = 5 * time.Second // for a coordinator to take them when the router ends
)

// shipper sends the apps' log lines to the coordinator. A request only ever
// waits for its mutex.
type shipper struct {
	log  *slog.Logger
	wake chan struct{} // 1: there are lines

	mu      sync.Mutex
	streams map[string]*stream // by app
	queued  int                // cost of all lines
}

// stream is one app's lines. Its id tells one start of the router, and of the
// stream, from the other, since numbers start anew with it.
type stream struct {
	app   string
	start string
	seq   uint64
	lines []manifold.LogLine
	cost  int // of lines
	last  time.Time
}

func cost(l manifold.LogLine) int { return len(l.Text) + lineCost }

func newShipper(log *slog.Logger) *shipper {
	return &shipper{log: log, wake: make(chan struct{}, 1), streams: map[string]*stream{}}
}

func (s *shipper) add(app string, now time.Time, text string) {
	s.mu.Lock()
	st := s.streams[app]
	if st == nil {
		st = &stream{app: app, start: strconv.FormatInt(now.UnixNano(), 36)}
		s.streams[app] = st
	}
	st.seq++
	st.last = now
	line := manifold.LogLine{Seq: st.seq, Time: now, Text: text}
	if c := cost(line); s.queued+c <= maxQueued && st.cost+c <= maxQueuedOfApp {
		st.lines = append(st.lines, line)
		st.cost += c
		s.queued += c
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// batch takes some lines of each stream. They stay queued until sent.
func (s *shipper) batch(router string) (batch manifold.LogBatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	room := maxBatch
	for app, st := range s.streams { // in an order that changes, so each gets its turn
		n := 0
		for n < len(st.lines) && room > 0 {
			room -= cost(st.lines[n])
			n++
		}
		if n == 0 {
			if len(st.lines) == 0 && now.Sub(st.last) > streamForget {
				delete(s.streams, app)
			}
			continue
		}
		batch.Streams = append(batch.Streams, manifold.LogStream{
			ID: router + "/" + app + "/" + st.start, App: app,
			Source: manifold.SourceHeroku, Process: "router", Lines: st.lines[:n:n],
		})
	}
	return batch
}

// sent removes what batch gave.
func (s *shipper) sent(batch manifold.LogBatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range batch.Streams {
		st := s.streams[b.App]
		for _, l := range b.Lines {
			st.cost -= cost(l)
			s.queued -= cost(l)
		}
		st.lines = append([]manifold.LogLine(nil), st.lines[len(b.Lines):]...)
	}
}

// run sends lines as router until ctx ends, then once more.
func (s *shipper) run(ctx context.Context, link *manifold.Link, router string) {
	for pause := time.Duration(0); ; {
		select {
		case <-s.wake:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
			defer cancel()
			for s.send(last, link, router) == nil && s.waiting() {
			}
			return
		}
		sleep(ctx, max(pause, batchEvery))
		err := s.send(ctx, link, router)
		if pause = 0; err != nil {
			pause = 2 * time.Second
			s.log.Debug("log lines wait for the coordinator", "err", err)
		}
		if s.waiting() {
			select {
			case s.wake <- struct{}{}:
			default:
			}
		}
	}
}

func (s *shipper) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queued > 0
}

func (s *shipper) send(ctx context.Context, link *manifold.Link, router string) error {
	batch := s.batch(router)
	if len(batch.Streams) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	err := link.Post(ctx, "/fleet/v1/logs", batch)
	var answer *manifold.StatusError
	if errors.As(err, &answer) && (answer.Status == 400 || answer.Status == 413 || answer.Status == 422) {
		s.log.Error("dropped log lines that the coordinator does not take", "err", err)
		err = nil // sending them again would not mend it
	}
	if err == nil {
		s.sent(batch)
	}
	return err
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
