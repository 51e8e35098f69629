package store

import (
	"cmp"
	"context"
	"slices"

	"github.com/google/uuid"

	"manifold"
)

func (t *tx) formation(app string) ([]manifold.Formation, error) {
	return find[[]manifold.Formation](t, key("formations", app), "app "+clip(app)) // every app has one, if empty
}

// Formation lists how many dynos of each type an app wants, by type. It is
// empty until the first deploy.
func (s *Store) Formation(ctx context.Context, app string) ([]manifold.Formation, error) {
	return s.begin(ctx).formation(app)
}

// UpdateFormation changes an app's formation as a whole, so that several
// entries change together or not at all. An entry without ID is new. Types must
// be unique, quantities and sizes within their bounds. It returns the new one.
func (s *Store) UpdateFormation(ctx context.Context, app string, change func([]manifold.Formation) ([]manifold.Formation, error)) ([]manifold.Formation, error) {
	var formation []manifold.Formation
	err := s.transact(ctx, app, func(t *tx) error {
		was, err := t.formation(app)
		if err != nil {
			return err
		}
		if formation, err = change(slices.Clone(was)); err != nil {
			return err
		}
		if err := s.putFormation(t, app, was, formation); err != nil {
			return err
		}
		return s.scaled(t, app, was, formation)
	})
	return formation, err
}

// putFormation completes, checks, sorts and writes a formation in place.
func (s *Store) putFormation(t *tx, app string, was, formation []manifold.Formation) error {
	now := s.stamp()
	for i := range formation {
		f := &formation[i]
		if err := manifold.CheckProcessType(f.Type); err != nil {
			return err
		}
		if _, err := (manifold.Quantity{N: f.Quantity}).Of(0); err != nil {
			return err
		}
		if f.Type == manifold.TypeRelease && f.Quantity > 0 {
			return &manifold.InvalidError{What: "Process type release", Why: "cannot be scaled: its command runs once with every release"}
		}
		size, err := manifold.ParseSize(cmp.Or(f.Size, manifold.DefaultSize))
		if err != nil {
			return err
		}
		f.App, f.Size = app, size.Name
		if f.ID == "" {
			f.ID, f.CreatedAt, f.UpdatedAt = uuid.NewString(), now, now
		} else if !slices.Contains(was, *f) {
			f.UpdatedAt = now
		}
	}
	slices.SortFunc(formation, func(a, b manifold.Formation) int { return cmp.Compare(a.Type, b.Type) })
	for i := 1; i < len(formation); i++ {
		if formation[i].Type == formation[i-1].Type {
			return &manifold.InvalidError{What: "Formation", Why: "names process type " + formation[i].Type + " twice"}
		}
	}
	if formation == nil {
		formation = []manifold.Formation{}
	}
	return t.put(key("formations", app), formation)
}

// fitFormation makes an app's formation follow what its new slug can run.
func (s *Store) fitFormation(t *tx, app string, types map[string]string) error {
	was, err := t.formation(app)
	if err != nil {
		return err
	}
	var formation []manifold.Formation
	known := map[string]bool{}
	for _, f := range was {
		if f.Type == manifold.TypeRelease {
			f.Quantity = 0
		}
		if _, stays := types[f.Type]; stays {
			formation = append(formation, f)
			known[f.Type] = true
		}
	}
	for typ := range types {
		if known[typ] {
			continue
		}
		f := manifold.Formation{Type: typ}
		if typ == "web" {
			f.Quantity = 1
		}
		formation = append(formation, f)
	}
	return s.putFormation(t, app, was, formation)
}
