package store

import (
	"context"

	"manifold"
)

// Phase says how far a placement is on its way out.
type Phase string

// The phases, in order. A placement only moves forward.
const (
	Placed   Phase = ""         // desired, and routed when up
	Retiring Phase = "retiring" // out of the route table, still desired
	Stopping Phase = "stopping" // out of Desired
)

// Placement is one assignment on one host. Only the scheduler writes it.
type Placement struct {
	Host       string              `json:"host"`
	Assignment manifold.Assignment `json:"assignment"`
	Phase      Phase               `json:"phase,omitempty"`
	Replace    bool                `json:"replace,omitempty"` // someone asked for a restart
}

// Placements lists all placements by assignment id.
func (s *Store) Placements(ctx context.Context) ([]Placement, error) { return nil, errSkeleton }

// PutPlacement keeps a placement under its assignment's id.
func (s *Store) PutPlacement(ctx context.Context, p Placement) error { return errSkeleton }

// UpdatePlacement changes a placement.
func (s *Store) UpdatePlacement(ctx context.Context, id string, change func(*Placement) error) error {
	return errSkeleton
}

// DeletePlacement removes a placement; one that is gone already is no error.
func (s *Store) DeletePlacement(ctx context.Context, id string) error { return errSkeleton }
