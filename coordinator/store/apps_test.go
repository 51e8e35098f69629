package store

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"manifold"
)

func TestCreateAppAndItsFirstReleases(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "first")
	if app.Owner != ada.ID || app.Stack != "cedar" || app.BuildStack != "cedar" || app.CreatedAt.IsZero() {
		t.Errorf("new app: %+v", app)
	}
	releases := must(s.Releases(t.Context(), app.ID))(t)
	for i, want := range []string{"Initial release", "Enable Logplex"} {
		r := releases[i]
		if r.Version != i+1 || r.Description != want || r.User != ada.Email || r.Status != manifold.ReleaseSucceeded || r.Slug != "" {
			t.Errorf("release %d of a new app: %+v, want %q", i+1, r, want)
		}
	}
	if len(releases) != 2 {
		t.Errorf("a new app has %d releases", len(releases))
	}
	if f := must(s.Formation(t.Context(), app.ID))(t); len(f) != 0 {
		t.Errorf("a new app has formation %v", f)
	}
	for _, by := range []string{app.ID, app.Name} {
		if got := must(s.App(t.Context(), by))(t); got.ID != app.ID {
			t.Errorf("App(%q) found %+v", by, got)
		}
	}
}

func TestAppNamesAreUniqueAndChecked(t *testing.T) {
	s := open(t, t.TempDir())
	newApp(t, s, "taken")
	_, err := s.CreateApp(t.Context(), manifold.App{Name: "taken"}, ada)
	wantErr(t, "second app of a name", err, ErrTaken)
	var invalid *manifold.InvalidError
	if _, err := s.CreateApp(t.Context(), manifold.App{Name: "../etc"}, ada); !errors.As(err, &invalid) {
		t.Errorf("app with a path for a name: error %v", err)
	}
	for _, nobody := range []string{"", "nobody", "../taken", "6f1b0a56-0f0c-4f0e-8f3a-2b8f6f0f7a11"} {
		_, err := s.App(t.Context(), nobody)
		wantErr(t, fmt.Sprintf("App(%q)", nobody), err, ErrNotFound)
	}

	// Of many who want one name at once, one gets it.
	var won, lost int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, err := s.CreateApp(t.Context(), manifold.App{Name: "wanted"}, ada)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if errors.Is(err, ErrTaken) {
				lost++
			}
		})
	}
	wg.Wait()
	if won != 1 || lost != 7 {
		t.Errorf("of 8 creators of one name %d won and %d were told that it is taken", won, lost)
	}
}

func TestGeneratedNames(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "")
	if strings.Count(app.Name, "-") != 2 {
		t.Errorf("generated name %q is not like quiet-river-1234", app.Name)
	}
	for _, a := range adjectives {
		for _, n := range nouns {
			if err := manifold.CheckAppName(a + "-" + n + "-0000"); err != nil {
				t.Fatalf("%s-%s: %v", a, n, err)
			}
		}
	}
}

func TestRename(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "before")
	newApp(t, s, "occupied")
	rename := func(to string) error {
		_, err := s.UpdateApp(t.Context(), app.ID, func(a *manifold.App) error {
			a.Name, a.ID = to, "an id cannot change"
			return nil
		})
		return err
	}
	wantErr(t, "rename to a name in use", rename("occupied"), ErrTaken)
	var invalid *manifold.InvalidError
	if err := rename("Not A Name"); !errors.As(err, &invalid) {
		t.Errorf("rename out of rule: %v", err)
	}
	if err := rename("after"); err != nil {
		t.Fatal(err)
	}
	_, err := s.App(t.Context(), "before")
	wantErr(t, "old name", err, ErrNotFound)
	if got := must(s.App(t.Context(), "after"))(t); got.ID != app.ID || got.Name != "after" {
		t.Errorf("renamed app: %+v", got)
	}
	newApp(t, s, "before") // free again
	refused := errors.New("no")
	_, err = s.UpdateApp(t.Context(), app.ID, func(a *manifold.App) error { a.Maintenance = true; return refused })
	wantErr(t, "change that fails", err, refused)
	if must(s.App(t.Context(), app.ID))(t).Maintenance {
		t.Error("a change that failed was kept")
	}
	if apps := must(s.Apps(t.Context()))(t); len(apps) != 3 || apps[0].Name != "after" || apps[2].Name != "occupied" {
		t.Errorf("apps by name: %v", apps)
	}
}

func TestDeleteAppRemovesAllButPlacements(t *testing.T) {
	s := open(t, t.TempDir())
	app, other := newApp(t, s, "doomed"), newApp(t, s, "other")
	web := map[string]string{"web": "run"}
	for i := range 150 { // more slugs than one transaction may remove
		must(s.Deploy(t.Context(), app.ID, manifold.Slug{ProcessTypes: web}, fmt.Sprint("Deploy ", i), ada))(t)
	}
	kept := must(s.Deploy(t.Context(), other.ID, manifold.Slug{ProcessTypes: web}, "Deploy", ada))(t)
	if err := s.PutPlacement(t.Context(), Placement{Assignment: manifold.Assignment{ID: "a1", App: app.ID}}); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteApp(t.Context(), app.ID); err != nil {
		t.Fatal(err)
	}
	_, err := s.App(t.Context(), "doomed")
	wantErr(t, "App", err, ErrNotFound)
	_, err = s.Releases(t.Context(), app.ID)
	wantErr(t, "Releases", err, ErrNotFound)
	_, err = s.CurrentRelease(t.Context(), app.ID)
	wantErr(t, "CurrentRelease", err, ErrNotFound)
	_, err = s.Formation(t.Context(), app.ID)
	wantErr(t, "Formation", err, ErrNotFound)
	_, err = s.AddRelease(t.Context(), app.ID, ada, func(*manifold.Release) error { return nil })
	wantErr(t, "AddRelease", err, ErrNotFound)
	_, err = s.UpdateFormation(t.Context(), app.ID, func(f []manifold.Formation) ([]manifold.Formation, error) { return f, nil })
	wantErr(t, "UpdateFormation", err, ErrNotFound)
	wantErr(t, "DeleteApp again", s.DeleteApp(t.Context(), app.ID), ErrNotFound)
	if slugs := must(s.Slugs(t.Context()))(t); len(slugs) != 1 || slugs[0].ID != kept.Slug {
		t.Errorf("%d slugs are left, want that of the other app", len(slugs))
	}
	if p := must(s.Placements(t.Context()))(t); len(p) != 1 || p[0].Assignment.App != app.ID {
		t.Errorf("placements of a deleted app: %v, want them kept for the scheduler", p)
	}
	newApp(t, s, "doomed") // the name is free
}

func TestDeletionCutShortIsFinished(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	app := newApp(t, s, "kept")
	must(s.Deploy(t.Context(), app.ID, manifold.Slug{ID: "kept"}, "Deploy", ada))(t)
	err := s.transact(t.Context(), "", func(t *tx) error { // as a kill after the first step leaves it
		return errors.Join(
			t.put(key("slugs", "left"), manifold.Slug{ID: "left", App: "gone"}),
			t.put(key("deleted", "gone"), []string{"left"}))
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, dir)
	if slugs := must(s.Slugs(t.Context()))(t); len(slugs) != 1 || slugs[0].ID != "kept" {
		t.Errorf("slugs after reopening: %v", slugs)
	}
	if left := must(s.engine.list(t.Context(), key("deleted", "")))(t); len(left) != 0 {
		t.Errorf("%d deletions are still open", len(left))
	}
}
