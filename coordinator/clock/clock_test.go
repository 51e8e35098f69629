package clock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/scheduler"
	"manifold/coordinator/store"
	"manifold/test/bubble"
)

var (
	_ Store = (*store.Store)(nil)
	_ Dynos = (*scheduler.Scheduler)(nil)
)

// world is the store and the scheduler, in memory. synctest's time begins at
// midnight UTC of 2000-01-01.
type world struct {
	mu      sync.Mutex
	jobs    map[string]manifold.ScheduledJob
	changes chan struct{}
	ran     []string // "job at time"
	said    []string
	fail    error         // of Start
	full    error         // of ClaimJob
	asked   int           // times of Start
	slow    time.Duration // of Start
}

func newWorld(jobs ...manifold.ScheduledJob) *world {
	w := &world{jobs: map[string]manifold.ScheduledJob{}, changes: make(chan struct{}, 1)}
	for _, j := range jobs {
		j.App, j.Size, j.Due = "app", "Eco", j.Schedule.Last(time.Now())
		w.jobs[j.ID] = j
	}
	return w
}

func (w *world) Changes(context.Context) <-chan struct{} { return w.changes }

func (w *world) Jobs(context.Context, string) ([]manifold.ScheduledJob, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []manifold.ScheduledJob
	for _, j := range w.jobs {
		all = append(all, j)
	}
	return all, nil
}

func (w *world) ClaimJob(_ context.Context, job manifold.ScheduledJob, due time.Time, p *store.Placement) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.full != nil {
		return w.full
	}
	now := w.jobs[job.ID]
	if !now.Due.Equal(job.Due) {
		return store.ErrNotFound
	}
	now.Due = due
	w.jobs[job.ID] = now
	if p != nil {
		w.ran = append(w.ran, fmt.Sprintf("%s %s", job.Command, time.Now().UTC().Format("02T15:04")))
	}
	return nil
}

func (w *world) Start(ctx context.Context, o scheduler.OneOff) (scheduler.Dyno, string, error) {
	w.mu.Lock()
	w.asked++
	w.mu.Unlock()
	select {
	case <-time.After(w.slow):
	case <-ctx.Done():
		return scheduler.Dyno{}, "", ctx.Err()
	}
	if w.fail != nil {
		return scheduler.Dyno{}, "", w.fail
	}
	return scheduler.Dyno{}, "", o.Keep(ctx, store.Placement{Assignment: manifold.Assignment{App: o.App, Dyno: Type + ".1"}})
}

// run lets a coordinator live for d.
func (w *world) run(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	room := New(Config{Store: w, Dynos: w, Log: slog.New(slog.DiscardHandler), Say: func(_, text string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.said = append(w.said, text)
	}})
	if err := room.Run(ctx); err != nil {
		t.Error(err)
	}
}

func (w *world) want(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(w.ran)
	slices.Sort(want)
	if !slices.Equal(w.ran, want) {
		t.Errorf("ran %q, want %q", w.ran, want)
	}
	w.ran = nil
}

func job(id, every, at string) manifold.ScheduledJob {
	s, err := manifold.ParseSchedule(every, at)
	if err != nil {
		panic(err)
	}
	return manifold.ScheduledJob{ID: id, Command: id, Schedule: s}
}

func TestEachMomentOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(job("ten", "10m", ""), job("hourly", "hour", ":05"), job("daily", "day", "01:05"))
		w.run(t, 85*time.Minute+time.Second)
		w.want(t, "ten 01T00:10", "ten 01T00:20", "ten 01T00:30", "ten 01T00:40", "ten 01T00:50", "ten 01T01:00", "ten 01T01:10", "ten 01T01:20",
			"hourly 01T00:05", "hourly 01T01:05", "daily 01T01:05")
	})
}

// After a downtime only the last moment is made up for, and restarts in
// between run nothing twice.
func TestMissedMoments(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(job("ten", "10m", ""), job("daily", "day", "12:00"))
		w.run(t, 11*time.Minute)
		w.want(t, "ten 01T00:10")
		time.Sleep(60 * time.Hour) // now the 3rd, 12:11
		for range 3 {
			w.run(t, time.Minute)
		}
		w.want(t, "daily 03T12:11", "ten 03T12:11")
	})
}

// A host whose clock was years ahead has claimed moments far away. When it is put
// right, jobs have their next moment, and none that was before.
func TestClockThatWasAhead(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(job("ten", "10m", ""), job("daily", "day", "00:05"))
		time.Sleep(3 * time.Minute)
		for id, j := range w.jobs {
			j.Due = j.Schedule.Last(time.Now().AddDate(5, 0, 0))
			w.jobs[id] = j
		}
		w.run(t, 18*time.Minute)
		w.want(t, "daily 01T00:05", "ten 01T00:10", "ten 01T00:20")
	})
}

// Two coordinators, or one that is killed between any two steps: the claim
// decides.
func TestTwoClocksRunAJobOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(job("ten", "10m", ""))
		w.slow = 3 * time.Second
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { w.run(t, 21*time.Minute) })
		}
		both.Wait()
		w.want(t, "ten 01T00:10", "ten 01T00:20")
	})
}

// One that cannot be started says why, once, and has its next moment.
func TestWhatCannotBeStarted(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(job("ten", "10m", ""))
		w.fail = errors.New("no host")
		w.run(t, 25*time.Minute)
		w.want(t)
		if len(w.said) != 2 || w.said[0] != "Scheduled job `ten` was not started: no host" {
			t.Errorf("said %q", w.said)
		}
		// One that is cut off by the coordinator's end is not lost.
		w.fail, w.slow = nil, 20*time.Second
		time.Sleep(5 * time.Minute)
		w.run(t, 10*time.Second)
		w.want(t)
		w.run(t, time.Minute)
		w.want(t, "ten 01T00:30")
	})
}

// A store that takes no writes, or a job whose code is gone, is tried again at
// times, and fills no app's log.
func TestWhatCannotBeClaimed(t *testing.T) {
	for name, fault := range map[string]struct{ start, claim error }{
		"the store is full": {errors.New("no host"), errors.New("no space")},
		"its code is gone":  {store.ErrNotFound, nil},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				w := newWorld(job("ten", "10m", ""))
				w.fail, w.full, w.slow = fault.start, fault.claim, time.Millisecond
				w.run(t, 11*time.Minute)
				if w.asked > 13 || w.asked < 2 {
					t.Errorf("tried %d times within a minute", w.asked)
				}
				if len(w.said) > 0 {
					t.Errorf("said %d lines, %q first", len(w.said), w.said[0])
				}
			})
		})
	}
}
