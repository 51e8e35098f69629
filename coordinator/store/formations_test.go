package store

import (
	"errors"
	"sync"
	"testing"

	"manifold"
)

func TestFormationUnderCrowd(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "busy")
	must(s.Deploy(t.Context(), app.ID, manifold.Slug{ProcessTypes: map[string]string{"worker": "w"}}, "Deploy", ada))(t)
	const writers, each = 8, 12 // below manifold.MaxQuantity together
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				_, err := s.UpdateFormation(t.Context(), app.ID, func(f []manifold.Formation) ([]manifold.Formation, error) {
					f[0].Quantity++
					return f, nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	f := must(s.Formation(t.Context(), app.ID))(t)
	if f[0].Quantity != writers*each {
		t.Errorf("worker=%d after %d times worker+1", f[0].Quantity, writers*each)
	}
}

func TestFormationBounds(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "app")
	for what, f := range map[string][]manifold.Formation{
		"negative":     {{Type: "web", Quantity: -1}},
		"huge":         {{Type: "web", Quantity: manifold.MaxQuantity + 1}},
		"unknown size": {{Type: "web", Size: "galactic"}},
		"bad type":     {{Type: "web.1"}},
		"twice":        {{Type: "web"}, {Type: "worker"}, {Type: "web"}},
	} {
		var invalid *manifold.InvalidError
		_, err := s.UpdateFormation(t.Context(), app.ID, func([]manifold.Formation) ([]manifold.Formation, error) { return f, nil })
		if !errors.As(err, &invalid) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	if f := must(s.Formation(t.Context(), app.ID))(t); len(f) != 0 {
		t.Errorf("refused formations were kept: %v", f)
	}
}

func TestCrowdThatNeverYieldsIsAConflict(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "app")
	// Another process writes the same record each time, and the commit is overtaken.
	_, err := s.UpdateApp(t.Context(), app.ID, func(*manifold.App) error {
		r, err := s.engine.get(t.Context(), key("apps", app.ID))
		must(s.engine.commit(t.Context(), nil, []write{{key: r.key, value: r.value}}))(t)
		return err
	})
	wantErr(t, "endless contention", err, ErrConflict)
}
