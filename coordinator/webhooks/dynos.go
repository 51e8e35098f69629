package webhooks

import (
	"context"
	"log/slog"

	"manifold"
	"manifold/coordinator/scheduler"
)

// Dynos knows all dynos. *scheduler.Scheduler does.
type Dynos interface {
	All() (dynos []scheduler.Dyno, changed <-chan struct{})
}

// Teller writes down what webhooks shall be told. *store.Store is one.
type Teller interface {
	DynoEvent(ctx context.Context, app string, was, now *manifold.WebhookDyno) error
}

// Follow has webhooks told of every dyno that comes, changes its state or
// goes, until ctx ends. What dynos do is in nobody's memory but their hosts',
// so that what changes while no coordinator runs is not told.
func Follow(ctx context.Context, dynos Dynos, teller Teller, log *slog.Logger) error {
	var last map[string]scheduler.Dyno // by assignment; nil: nothing is known yet
	for {
		all, changed := dynos.All()
		if all != nil {
			now := make(map[string]scheduler.Dyno, len(all))
			for _, d := range all {
				now[d.Assignment] = d
			}
			if last != nil {
				tellChanges(ctx, teller, log, last, now)
			}
			last = now
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func tellChanges(ctx context.Context, teller Teller, log *slog.Logger, last, now map[string]scheduler.Dyno) {
	tell := func(app string, was, is *manifold.WebhookDyno) {
		if err := teller.DynoEvent(ctx, app, was, is); err != nil && ctx.Err() == nil {
			log.Error("what a dyno did is not told to webhooks", "app", app, "err", err)
		}
	}
	for id, d := range now {
		was, known := last[id]
		switch is := told(d); {
		case !known:
			tell(d.App, nil, is)
		case was.State.Shown() != d.State.Shown():
			tell(d.App, told(was), is)
		}
	}
	for id, d := range last {
		if _, stays := now[id]; !stays {
			tell(d.App, told(d), nil)
		}
	}
}

func told(d scheduler.Dyno) *manifold.WebhookDyno {
	return &manifold.WebhookDyno{
		ID: d.Assignment, Name: d.Name, Type: d.Type, Command: d.Command, Size: d.Size, State: d.State.Shown(),
		Release: d.Release, CreatedAt: d.CreatedAt, UpdatedAt: d.Since,
	}
}
