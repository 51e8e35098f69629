package store

import (
	"context"
	"fmt"
	"maps"

	"manifold"
)

// Phase says how far a placement is on its way out.
type Phase string

// The phases, in order. The scheduler only moves a placement forward.
const (
	Placed   Phase = ""         // desired, and routed when up
	Retiring Phase = "retiring" // out of the route table, still desired
	Stopping Phase = "stopping" // out of Desired
)

// Placement is one assignment on one host. Only the scheduler writes it, but
// for Replace. It outlives its app until its dyno has stopped.
type Placement struct {
	Host       string              `json:"host"`
	Assignment manifold.Assignment `json:"assignment"`
	Phase      Phase               `json:"phase,omitempty"`
	Replace    bool                `json:"replace,omitempty"` // someone asked for a restart, or it is cycled
	Cycled     bool                `json:"cycled,omitempty"`  // Replace is for its age
}

// placementRecord is a placement as etcd sees it.
type placementRecord struct {
	Placement        // without Assignment.Env
	Sealed    []byte `json:"sealed,omitempty"`
}

func placementKey(id string) string { return key("placements", id) }

func (s *Store) putPlacement(t *tx, p Placement) error {
	k := placementKey(p.Assignment.ID)
	sealed, err := s.vault.sealVars(p.Assignment.Env, k)
	if err != nil {
		return err
	}
	p.Assignment.Env = nil
	return t.put(k, placementRecord{Placement: p, Sealed: sealed})
}

func (s *Store) unsealPlacement(r placementRecord) (Placement, error) {
	var err error
	r.Assignment.Env, err = s.vault.openVars(r.Sealed, placementKey(r.Assignment.ID))
	return r.Placement, err
}

// Placements lists all placements, by assignment id.
func (s *Store) Placements(ctx context.Context) ([]Placement, error) {
	records, err := list[placementRecord](ctx, s.engine, placementKey(""))
	if err != nil {
		return nil, err
	}
	placements := make([]Placement, len(records))
	for i, r := range records {
		if placements[i], err = s.unsealPlacement(r); err != nil {
			return nil, err
		}
	}
	return placements, nil
}

// PutPlacement keeps a placement under its assignment's id, whatever was there.
func (s *Store) PutPlacement(ctx context.Context, p Placement) error {
	if p.Assignment.ID == "" {
		return fmt.Errorf("put placement of %s: its assignment has no id", p.Assignment.Dyno)
	}
	return s.transact(ctx, p.Assignment.ID, func(t *tx) error { return s.putPlacement(t, p) })
}

// UpdatePlacement changes a placement; its assignment's id stays. An error of
// change ends it.
func (s *Store) UpdatePlacement(ctx context.Context, id string, change func(*Placement) error) error {
	return s.transact(ctx, id, func(t *tx) error {
		r, err := find[placementRecord](t, placementKey(id), "placement "+clip(id))
		if err != nil {
			return err
		}
		p, err := s.unsealPlacement(r)
		if err != nil {
			return err
		}
		p.Assignment.Env = maps.Clone(p.Assignment.Env)
		if err := change(&p); err != nil {
			return err
		}
		p.Assignment.ID = id
		return s.putPlacement(t, p)
	})
}

// DeletePlacement removes a placement; one that is gone already is no error.
func (s *Store) DeletePlacement(ctx context.Context, id string) error {
	return s.transact(ctx, id, func(t *tx) error {
		t.remove(placementKey(id))
		return nil
	})
}
