// Package clock runs scheduled jobs when their time comes, each as a one-off
// dyno scheduler.N.
//
// What is due is read from the store, and a moment of a job is claimed there in
// the same step that places its dyno: it runs once, whoever is killed when. Of
// the moments that passed while no coordinator ran only the last is made up
// for. One that was claimed by a clock far ahead holds nothing up when that is
// put right. This room must never keep state of its own that matters.
package clock

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"manifold"
	"manifold/coordinator/scheduler"
	"manifold/coordinator/store"
)

// Type is the first part of the dynos' names.
const Type = "scheduler"

// Store is the coordinator's memory. *store.Store is one.
type Store interface {
	Changes(ctx context.Context) <-chan struct{}
	Jobs(ctx context.Context, app string) ([]manifold.ScheduledJob, error)
	ClaimJob(ctx context.Context, job manifold.ScheduledJob, due time.Time, p *store.Placement) error
}

// Dynos starts one-off dynos. *scheduler.Scheduler is one.
type Dynos interface {
	Start(ctx context.Context, o scheduler.OneOff) (scheduler.Dyno, string, error)
}

// Config is what a Room is made of.
type Config struct {
	Store Store
	Dynos Dynos
	Say   func(app, text string) // writes a line of the scheduler's into an app's log
	Log   *slog.Logger
}

// Room runs jobs while Run runs.
type Room struct {
	cfg     Config
	working sync.WaitGroup
	running map[string]bool // jobs that are being started; Run's own
	started chan string
}

// New makes a room; Run makes it work.
func New(cfg Config) *Room {
	return &Room{cfg: cfg, running: map[string]bool{}, started: make(chan string)}
}

const (
	longest = time.Minute     // sleep, so that a clock that was set is noticed
	retry   = 5 * time.Second // after the store failed
)

// Run starts what is due until ctx ends.
func (r *Room) Run(ctx context.Context) error {
	defer r.working.Wait()
	changes := r.cfg.Store.Changes(ctx)
	jobs, fresh := []manifold.ScheduledJob(nil), false
	for {
		wait := longest
		if !fresh {
			var err error
			if jobs, err = r.cfg.Store.Jobs(ctx, ""); err != nil {
				if ctx.Err() == nil {
					r.cfg.Log.Error("could not list the scheduled jobs; trying again", "err", err)
				}
				wait = retry
			}
			fresh = err == nil
		}
		now := time.Now()
		for _, job := range jobs {
			due, next := job.Schedule.Last(now), job.Schedule.Next(now)
			switch {
			case job.Due.Before(due):
				r.start(ctx, job, due)
			case job.Due.After(next): // claimed when the clock was ahead: without this it would not run until then
				if err := r.cfg.Store.ClaimJob(ctx, job, due, nil); err == nil {
					fresh, wait = false, 0
				} else if !errors.Is(err, store.ErrNotFound) && ctx.Err() == nil {
					r.cfg.Log.Error("could not write down when a scheduled job is due", "job", job.ID, "err", err)
				}
			}
			wait = min(wait, next.Sub(now))
		}
		timer := time.NewTimer(wait)
		select {
		case _, open := <-changes:
			if !open {
				changes = nil
			}
			fresh = false
		case id := <-r.started:
			delete(r.running, id)
			fresh = false
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		timer.Stop()
	}
}

// start runs a job once for its moment, in a goroutine of its own: a host that
// has to be waited for must not hold up other apps' jobs.
func (r *Room) start(ctx context.Context, job manifold.ScheduledJob, due time.Time) {
	if r.running[job.ID] {
		return
	}
	r.running[job.ID] = true
	r.working.Go(func() {
		r.run(ctx, job, due)
		select {
		case r.started <- job.ID:
		case <-ctx.Done():
		}
	})
}

func (r *Room) run(ctx context.Context, job manifold.ScheduledJob, due time.Time) {
	o, err := OneOff(job)
	if err == nil {
		o.Keep = func(ctx context.Context, p store.Placement) error { return r.cfg.Store.ClaimJob(ctx, job, due, &p) }
		_, _, err = r.cfg.Dynos.Start(ctx, o)
	}
	switch {
	case err == nil:
		r.cfg.Say(job.App, "Starting scheduled job `"+job.Command+"`")
		return
	case ctx.Err() != nil: // the next coordinator has its turn
		return
	case !errors.Is(err, store.ErrNotFound):
		r.cfg.Log.Warn("a scheduled job was not started", "app", job.App, "job", job.ID, "err", err)
		// Its moment has passed: it is not tried again until the next one.
		failed := r.cfg.Store.ClaimJob(ctx, job, due, nil)
		if failed == nil {
			r.cfg.Say(job.App, "Scheduled job `"+job.Command+"` was not started: "+err.Error())
			return
		}
		if !errors.Is(failed, store.ErrNotFound) {
			r.cfg.Log.Error("could not write down that a scheduled job was not started; trying again", "job", job.ID, "err", failed)
		}
	}
	// It is gone, is another's by now, or the store takes nothing. Until a later
	// look tells which it must not be tried over and over.
	select {
	case <-time.After(retry):
	case <-ctx.Done():
	}
}

// OneOff is the dyno of a job.
func OneOff(job manifold.ScheduledJob) (scheduler.OneOff, error) {
	size, err := manifold.ParseSize(job.Size)
	return scheduler.OneOff{App: job.App, Type: Type, Command: job.Command, Size: size}, err
}
