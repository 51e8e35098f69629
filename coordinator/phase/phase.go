// Package phase runs release commands: before a release whose slug has a
// process type "release" serves, that command runs once, with the new slug and
// config, as a one-off dyno release.N. Until it has succeeded the old release
// serves; if it fails, it goes on to.
//
//	store: pending ──▶ begin: place release.N ──▶ wait for its end ──▶ succeeded or failed ──▶ scheduler
//	                      output ──▶ pusher, releases:output
//
// The room works on what the store says is pending and on nothing else, so
// that a coordinator that was killed finds its phases again and ends them. A
// command is never run twice. This room must never make a release, and never
// write a config var anywhere.
package phase

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"manifold"
	"manifold/coordinator/logs"
	"manifold/coordinator/outputs"
	"manifold/coordinator/scheduler"
	"manifold/coordinator/store"
)

// Limit is how long a release command may run.
const Limit = time.Hour

// Store is the coordinator's memory. *store.Store is one.
type Store interface {
	Changes(ctx context.Context) <-chan struct{}
	ReleasePhases(ctx context.Context) ([]store.ReleasePhase, error)
	BeginPhase(ctx context.Context, phase store.ReleasePhase, p store.Placement) error
	EndPhase(ctx context.Context, phase store.ReleasePhase, succeeded bool) error
	Placement(ctx context.Context, id string) (store.Placement, error)
	Release(ctx context.Context, app string, version int) (manifold.Release, error)
	Slug(ctx context.Context, id string) (manifold.Slug, error)
}

// Dynos runs one-off dynos. *scheduler.Scheduler is one.
type Dynos interface {
	Start(ctx context.Context, o scheduler.OneOff) (scheduler.Dyno, string, error)
	Await(ctx context.Context, id string) (scheduler.Ended, error)
}

// Config is what a Room is made of.
type Config struct {
	Store   Store
	Dynos   Dynos
	Logs    *logs.Hub
	Outputs *outputs.Room
	Log     *slog.Logger
}

// Room runs release commands while Run runs.
type Room struct {
	cfg     Config
	working sync.WaitGroup
	running map[string]bool // releases whose phases have a goroutine; Run's own
	ended   chan string     // of those releases
}

// New makes a room; Run makes it work.
func New(cfg Config) *Room {
	return &Room{cfg: cfg, running: map[string]bool{}, ended: make(chan string)}
}

// retry is how soon what the store refused is tried again.
const retry = 2 * time.Second

// Run sees to every pending release until ctx ends. Commands go on then, and
// the next Run finds them.
func (r *Room) Run(ctx context.Context) error {
	defer r.working.Wait()
	changes := r.cfg.Store.Changes(ctx)
	for {
		again := time.NewTimer(time.Minute)
		phases, err := r.cfg.Store.ReleasePhases(ctx)
		if err != nil && ctx.Err() == nil {
			r.cfg.Log.Error("could not list the release phases; trying again", "err", err)
			again.Reset(retry)
		}
		for _, p := range phases {
			if r.running[p.Release] {
				continue
			}
			r.running[p.Release] = true
			r.working.Go(func() {
				r.see(ctx, p)
				select {
				case r.ended <- p.Release:
				case <-ctx.Done():
				}
			})
		}
		select {
		case _, open := <-changes:
			if !open {
				changes = nil
			}
		case id := <-r.ended:
			delete(r.running, id)
		case <-again.C:
		case <-ctx.Done():
			return nil
		}
		again.Stop()
	}
}

// see brings one phase to its end, unless ctx ends before.
func (r *Room) see(ctx context.Context, p store.ReleasePhase) {
	log := r.cfg.Log.With("app", p.App, "version", p.Version)
	release, err := r.cfg.Store.Release(ctx, p.App, p.Version)
	if err != nil {
		if !errors.Is(err, store.ErrNotFound) && ctx.Err() == nil {
			log.Error("could not read a pending release", "err", err)
			r.pause(ctx)
		}
		return
	}
	out, err := r.cfg.Outputs.Create(release.Output)
	if err != nil {
		log.Error("the output of a release command is not kept", "err", err)
		out = nil
	} else {
		defer out.Close()
	}
	c := &command{Room: r, phase: p, release: release, out: io.Discard}
	if out != nil {
		c.out = out
	}
	failure := c.run(ctx)
	if ctx.Err() != nil {
		return // the next coordinator goes on
	}
	// Whoever follows it reads all of it before the status they wait for.
	if failure != nil {
		_, _ = fmt.Fprintf(c.out, " !     Release command failed: it %s.\n", failure)
	}
	if out != nil {
		_ = out.Close()
	}
	for {
		err := r.cfg.Store.EndPhase(ctx, p, failure == nil)
		if err == nil {
			c.tell(failure)
			log.Info("release phase ended", "failure", failure)
			return
		}
		if errors.Is(err, store.ErrNotFound) || ctx.Err() != nil {
			return // with its app
		}
		log.Error("could not write down how a release phase ended; trying again", "err", err)
		r.pause(ctx)
	}
}

func (r *Room) pause(ctx context.Context) {
	select {
	case <-time.After(retry):
	case <-ctx.Done():
	}
}

// Follow writes what a pending release's command prints to w, until the phase
// has ended, and returns the release as it is then. A writer that fails does
// not end it.
func (r *Room) Follow(ctx context.Context, pending manifold.Release, w io.Writer) (manifold.Release, error) {
	ctx, cancel := context.WithCancel(ctx)
	copied := make(chan struct{})
	go func() { defer close(copied); r.copy(ctx, pending.Output, w) }()
	defer func() {
		late := time.AfterFunc(retry, cancel) // an output that could not be kept has no end
		<-copied
		late.Stop()
		cancel()
	}()
	changes := r.cfg.Store.Changes(ctx)
	for {
		now, err := r.cfg.Store.Release(ctx, pending.App, pending.Version)
		if err != nil {
			return pending, fmt.Errorf("wait for release v%d: %w", pending.Version, err)
		}
		if now.Status != manifold.ReleasePending {
			return now, nil
		}
		select {
		case <-changes:
		case <-time.After(5 * time.Second):
		case <-ctx.Done():
			return pending, fmt.Errorf("wait for release v%d: %w", pending.Version, ctx.Err())
		}
	}
}

// copy waits for an output that is about to begin, and copies it. When ctx has
// ended it looks a last time.
func (r *Room) copy(ctx context.Context, name string, w io.Writer) {
	for errors.Is(r.cfg.Outputs.Copy(ctx, name, w), fs.ErrNotExist) && ctx.Err() == nil {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}
