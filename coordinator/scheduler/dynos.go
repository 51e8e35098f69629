package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"manifold"
	"manifold/coordinator/store"
)

// Dyno is one dyno as `ps` shows it: what its host last said of it, and what
// it was placed as. A dyno no host spoke of yet is starting.
type Dyno struct {
	manifold.Dyno
	AppName   string
	Host      string
	Kind      manifold.Kind
	Type      string // "web"
	Command   string
	Size      string // Size.Name
	Release   int    // version
	CreatedAt time.Time
}

// Dynos lists an app's dynos (App.ID), by type and number: of every slot the
// newest, and one-off dynos; builds are not among them.
func (s *Scheduler) Dynos(app string) []Dyno {
	st, _ := s.watch()
	if st == nil {
		return nil
	}
	newest := map[string]store.Placement{}
	for _, p := range st.stored.placements {
		a := p.Assignment
		if a.App != app || a.Job != nil || p.Phase != store.Placed {
			continue
		}
		if last, ok := newest[a.Dyno]; !ok || newer(a, last.Assignment) {
			newest[a.Dyno] = p
		}
	}
	dynos := make([]Dyno, 0, len(newest))
	for _, p := range newest {
		dynos = append(dynos, st.show(p))
	}
	slices.SortFunc(dynos, func(a, b Dyno) int {
		_, m, _ := manifold.SplitDynoName(a.Name) // a name of ours
		_, n, _ := manifold.SplitDynoName(b.Name)
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(m, n))
	})
	return dynos
}

// All lists the dynos of all apps, those that are being replaced too, and
// returns a channel that is closed when that may have changed. It is nil as
// long as nothing is known.
func (s *Scheduler) All() (dynos []Dyno, changed <-chan struct{}) {
	st, changed := s.watch()
	if st == nil {
		return nil, changed
	}
	dynos = make([]Dyno, 0, len(st.stored.placements))
	for _, p := range st.stored.placements {
		if p.Assignment.Job == nil {
			dynos = append(dynos, st.show(p))
		}
	}
	return dynos, changed
}

func (st *state) show(p store.Placement) Dyno {
	a := p.Assignment
	d := Dyno{
		Dyno: st.dyno(p), AppName: a.AppName, Host: p.Host, Kind: a.Kind,
		Command: a.Command, Size: a.Size.Name, Release: a.Release, CreatedAt: a.CreatedAt,
	}
	d.Assignment, d.App, d.Name = a.ID, a.App, a.Dyno
	d.Type, _, _ = manifold.SplitDynoName(a.Dyno)
	return d
}

// Restart replaces the dynos of an app (App.ID) whose name matches. A crashed
// one that waits for its next try is replaced at once; one that is up goes
// when its replacement is up. One-off dynos are left alone.
func (s *Scheduler) Restart(ctx context.Context, app string, match func(dyno string) bool) error {
	placements, err := s.cfg.Store.Placements(ctx)
	if err != nil {
		return fmt.Errorf("restart dynos: %w", err)
	}
	for _, p := range placements {
		a := p.Assignment
		if a.App != app || a.Kind != manifold.KindFormation || p.Phase != store.Placed || p.Replace || !match(a.Dyno) {
			continue
		}
		err := s.cfg.Store.UpdatePlacement(ctx, a.ID, func(p *store.Placement) error {
			p.Replace = true
			return nil
		})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("restart %s: %w", a.Dyno, err)
		}
	}
	return nil
}
