// Package drain sends the log lines of apps on to where their owners want them:
// to syslog servers (RFC 5424 over TCP or TLS) and to HTTP servers that speak
// Logplex's application/logplex-1.
//
// A drain is a reader of the log hub, which keeps lines on disk: a drain holds
// its place there and one batch, nothing else. So one that is slow or dead
// costs nobody anything. It comes back to its place, after restarts of either
// side too; what the hub has dropped by then it tells the receiver as L10.
// Lines arrive in order, and at least once: after a break some come again.
//
//	hub ──Tail──▶ drain (a goroutine each) ──▶ outlet ──▶ receiver
//	                 │▲ place: what is delivered, saved once a second
//	                 └┴──── pause, 1 s to 1 min, and again from the place
//
// This room must never connect to where its guard forbids, follow a
// redirect, tell a URL's secrets to a log, or trust a receiver with more than
// an HTTP status.
package drain

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"manifold"
	"manifold/coordinator/logs"
	"manifold/coordinator/outbound"
)

// Store knows the drains there are. Its changes are as store.Store's.
type Store interface {
	Drains(ctx context.Context, app string) ([]manifold.Drain, error)
	DrainChanges(ctx context.Context) <-chan struct{}
}

// Logs is the log hub.
type Logs interface {
	Drain(app string, from logs.Place) (*logs.Tail, error)
	Write(app, source, process, text string)
}

// Config is what a room works with.
type Config struct {
	Store Store
	Logs  Logs
	Dir   string // for the drains' places; made if need be
	Guard outbound.Guard
	Roots *x509.CertPool // receivers' certificates come from these; nil: the host's
	Pause time.Duration  // after the first failure; then twice as long, up to a minute. 0: 1 s
	Log   *slog.Logger
}

// Room runs the drains.
type Room struct {
	cfg     Config
	root    *os.Root
	running map[string]context.CancelCauseFunc // by Drain.ID
	work    sync.WaitGroup
}

// Run delivers until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("open log drains: %w", err)
	}
	root, err := os.OpenRoot(cfg.Dir)
	if err != nil {
		return fmt.Errorf("open log drains: %w", err)
	}
	defer root.Close()
	cfg.Pause = cmp.Or(cfg.Pause, time.Second)
	r := &Room{cfg: cfg, root: root, running: map[string]context.CancelCauseFunc{}}
	if err := r.forget(ctx); err != nil {
		return err
	}
	defer r.work.Wait()
	r.run(ctx)
	return nil
}

// readAgain is when the list of drains is read again after an error.
const readAgain = 5 * time.Second

func (r *Room) run(ctx context.Context) {
	changes := r.cfg.Store.DrainChanges(ctx)
	var again <-chan time.Time
	for {
		select {
		case _, open := <-changes:
			if !open { // with ctx, or the store
				<-ctx.Done()
				return
			}
		case <-again:
		case <-ctx.Done():
			return
		}
		again = nil
		if err := r.sync(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.Error("could not read the log drains", "err", err)
			again = time.After(readAgain)
		}
	}
}

// errRemoved ends a drain that is not wanted any more.
var errRemoved = errors.New("the drain was removed")

// sync starts the drains that are new and ends those that are gone.
func (r *Room) sync(ctx context.Context) error {
	drains, err := r.cfg.Store.Drains(ctx, "")
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, d := range drains {
		wanted[d.ID] = true
		if r.running[d.ID] != nil {
			continue
		}
		ctx, cancel := context.WithCancelCause(ctx)
		r.running[d.ID] = cancel
		r.work.Go(func() {
			defer cancel(nil)
			newDrain(r, d).run(ctx)
		})
	}
	for id, cancel := range r.running {
		if !wanted[id] {
			cancel(errRemoved)
			_ = r.root.Remove(id) // it may have ended before, with its app
			delete(r.running, id)
		}
	}
	return nil
}

// forget removes the places of drains that were removed while nobody ran them.
func (r *Room) forget(ctx context.Context) error {
	drains, err := r.cfg.Store.Drains(ctx, "")
	if err != nil {
		return fmt.Errorf("open log drains: %w", err)
	}
	known := map[string]bool{}
	for _, d := range drains {
		known[d.ID] = true
	}
	places, err := fs.ReadDir(r.root.FS(), ".")
	for _, place := range places {
		if !known[place.Name()] {
			err = errors.Join(err, r.root.Remove(place.Name()))
		}
	}
	return err
}
