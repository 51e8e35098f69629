package agent

import (
	"cmp"
	"context"
	"slices"
	"time"

	"manifold"
	"manifold/supervisor"
)

const (
	observeEvery   = 5 * time.Second
	observeSettle  = 10 * time.Millisecond // changes within it are told together
	observeTimeout = 10 * time.Second
)

// notice says that there is something new to observe.
func (a *agent) notice() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// observe tells the coordinator what this host runs, at each change and every
// five seconds. Each message is the whole state, so a lost one does not
// matter.
func (a *agent) observe(ctx context.Context) {
	tick := time.NewTicker(observeEvery)
	defer tick.Stop()
	away := false
	defer a.pulse.end("observation")
	for {
		a.pulse.beat("observation")
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-a.changed:
			if !sleep(ctx, observeSettle) {
				return
			}
		}
		err := a.observeOnce(ctx)
		a.heard.Store(err == nil)
		if err == nil {
			away = false
		} else if ctx.Err() == nil {
			a.log.Log(ctx, firstTime(&away), "the coordinator does not hear from this host, trying again", "error", err)
			sleep(ctx, time.Second) // a change would else come at once
		}
	}
}

func (a *agent) observeOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	if _, err := a.uplink.wait(ctx); err != nil {
		return err
	}
	select {
	case a.telling <- struct{}{}:
		defer func() { <-a.telling }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return a.up.Post(ctx, "/fleet/v1/observed", a.observation())
}

// tell lets the coordinator know now, if it is there.
func (a *agent) tell(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return a.observeOnce(ctx)
}

func (a *agent) observation() manifold.Observation {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := manifold.Observation{Host: a.id.ID, Revision: a.applied, Draining: a.draining, Dynos: []manifold.Dyno{}}
	for _, d := range a.drivers {
		if view, state := d.look(); state != supervisor.Gone {
			o.Dynos = append(o.Dynos, view)
		}
	}
	slices.SortFunc(o.Dynos, func(a, b manifold.Dyno) int {
		return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Assignment, b.Assignment))
	})
	return o
}
