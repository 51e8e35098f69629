package store

import (
	"context"
	"fmt"

	"manifold"
)

// ReleasePhase is a release whose command has not ended: a pending one. An app has
// one at most.
//
//	Deploy, AddRelease ──▶ pending ──BeginPhase──▶ pending, Begun ──EndPhase──▶ succeeded, failed
type ReleasePhase struct {
	App     string `json:"app"`
	Release string `json:"release"` // its ID, which is that of its command's assignment too
	Version int    `json:"version"`
	Begun   bool   `json:"begun,omitempty"` // its command was placed, and never is again
}

func phaseKey(app string) string { return key("phases", app) }

// ReleasePhases lists the release phases of all apps.
func (s *Store) ReleasePhases(ctx context.Context) ([]ReleasePhase, error) {
	return list[ReleasePhase](ctx, s.engine, phaseKey(""))
}

// BeginPhase places the command of a release phase, in one step with the note
// that it was placed, so that it never runs twice. ErrNotFound: the phase has
// begun or ended, or its app is gone.
func (s *Store) BeginPhase(ctx context.Context, phase ReleasePhase, p Placement) error {
	return s.transact(ctx, phase.App, func(t *tx) error {
		now, err := t.phase(phase)
		if err == nil && now.Begun {
			err = fmt.Errorf("release phase of v%d that has not begun: %w", phase.Version, ErrNotFound)
		}
		if err != nil {
			return err
		}
		now.Begun = true
		if err := t.put(phaseKey(phase.App), now); err != nil {
			return err
		}
		return s.putPlacement(t, p)
	})
}

// EndPhase gives a pending release its status for ever. With succeeded it is
// what the app's dynos run from now on, and the formation follows its slug.
// Without, the formation stays; one that is empty gets the type release, by
// which clients know that there is a command to try again.
// ErrNotFound: it has one already, or its app is gone.
func (s *Store) EndPhase(ctx context.Context, phase ReleasePhase, succeeded bool) error {
	return s.transact(ctx, phase.App, func(t *tx) error {
		if _, err := t.phase(phase); err != nil {
			return err
		}
		app, err := t.app(phase.App)
		if err != nil {
			return err
		}
		r, err := t.releaseAt(phase.App, phase.Version)
		if err != nil {
			return err
		}
		pending := r.Release
		r.Status = manifold.ReleaseFailed
		if succeeded {
			r.Status = manifold.ReleaseSucceeded
			err = s.serveAfterPhase(t, &app, r.Release)
		} else {
			err = s.showCommand(t, phase.App)
		}
		if err != nil {
			return err
		}
		if err := s.releaseEvent(t, app, r.Release, &pending); err != nil {
			return err
		}
		t.remove(phaseKey(phase.App))
		if err := t.put(versionKey("releases", phase.App, phase.Version), r.stored()); err != nil {
			return err
		}
		return t.put(key("apps", phase.App), app)
	})
}

// showCommand has an app's formation, if empty, name the release command.
func (s *Store) showCommand(t *tx, app string) error {
	formation, err := t.formation(app)
	if err != nil || len(formation) > 0 {
		return err
	}
	return s.putFormation(t, app, nil, []manifold.Formation{{Type: manifold.TypeRelease}})
}

func (s *Store) serveAfterPhase(t *tx, app *appRecord, r manifold.Release) error {
	before, err := s.release(t, app.ID, app.serving())
	if err != nil {
		return err
	}
	slug, err := t.slugOf(app.ID, r.Slug)
	if err != nil {
		return err
	}
	return s.serve(t, app, r, slug, r.Slug != before.Slug)
}

// phase reads the app's phase, which must still be this one.
func (t *tx) phase(want ReleasePhase) (ReleasePhase, error) {
	var now ReleasePhase
	found, err := t.get(phaseKey(want.App), &now)
	if err == nil && (!found || now.Release != want.Release) {
		err = fmt.Errorf("release phase of v%d: %w", want.Version, ErrNotFound)
	}
	return now, err
}

// Placement finds the placement of an assignment.
func (s *Store) Placement(ctx context.Context, id string) (Placement, error) {
	r, err := find[placementRecord](s.begin(ctx), placementKey(id), "placement "+clip(id))
	if err != nil {
		return Placement{}, err
	}
	return s.unsealPlacement(r)
}
