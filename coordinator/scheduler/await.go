package scheduler

import (
	"context"
	"errors"
	"fmt"

	"manifold"
	"manifold/coordinator/store"
)

// ErrStopped means that a one-off dyno was stopped before it ended by itself:
// by its owner, or with its app.
var ErrStopped = errors.New("it was stopped")

// Ended is how a one-off dyno ended.
type Ended struct {
	Result manifold.Result
	Stream string // of its own lines, as the log hub knows it
	Lines  uint64 // how many there are
}

// Await waits until the one-off dyno of a release phase (its assignment's id)
// has ended. It may be called for one that an earlier coordinator placed:
// nothing of it is in memory. ErrStopped: it is on its way out, or gone.
func (s *Scheduler) Await(ctx context.Context, id string) (Ended, error) {
	fail := func(err error) (Ended, error) { return Ended{}, fmt.Errorf("wait for a one-off dyno: %w", err) }
	for seen := false; ; {
		st, changed := s.watch()
		if st != nil {
			p, there := st.find(id)
			switch d := st.dyno(p); {
			case there && p.Phase != store.Placed, seen && !there:
				return fail(ErrStopped)
			case there && d.State == manifold.StateComplete:
				ended := Ended{Result: manifold.Result{Cause: manifold.CauseLost, At: d.Since}, Stream: p.Host + "/" + d.Run + "/" + manifold.SourceApp, Lines: d.OutputSeq}
				if d.Result != nil {
					ended.Result = *d.Result
				}
				return ended, nil
			case there && st.lost(p.Host):
				return Ended{Result: manifold.Result{Cause: manifold.CauseLost, At: st.now, Detail: "its host went away"}}, nil
			case !there:
				// The pass may be older than the placement.
				if _, err := s.cfg.Store.Placement(ctx, id); errors.Is(err, store.ErrNotFound) {
					return fail(ErrStopped)
				} // any other error says nothing: the next pass asks again
			}
			seen = seen || there
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fail(ctx.Err())
		}
	}
}
