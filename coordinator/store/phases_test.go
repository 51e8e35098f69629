package store

import (
	"fmt"
	"slices"
	"testing"

	"manifold"
)

// deployWithCommand makes a pending release.
func deployWithCommand(t *testing.T, s *Store, app string) (manifold.Release, ReleasePhase) {
	t.Helper()
	slug := manifold.Slug{Stack: "cedar-2", ProcessTypes: map[string]string{"web": "serve", "release": "migrate"}}
	r := must(s.Deploy(t.Context(), app, slug, "Deploy 1234abcd", ada))(t)
	phases := must(s.ReleasePhases(t.Context()))(t)
	if r.Status != manifold.ReleasePending || r.Output == "" || len(phases) != 1 || phases[0].Release != r.ID || phases[0].Version != r.Version {
		t.Fatalf("release %+v, phases %+v", r, phases)
	}
	return r, phases[0]
}

func TestReleasePhaseSucceeds(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "app")
	r, phase := deployWithCommand(t, s, app.ID)
	if now := must(s.CurrentRelease(t.Context(), app.ID))(t); now.Version != 2 {
		t.Errorf("v%d serves while the command of v3 runs", now.Version)
	}
	if f := must(s.Formation(t.Context(), app.ID))(t); len(f) != 0 {
		t.Errorf("the formation follows a release that does not serve: %v", f)
	}
	_, err := s.AddRelease(t.Context(), app.ID, ada, setVar("A", "1"))
	wantErr(t, "a release meanwhile", err, ErrReleasing)

	p := Placement{Assignment: manifold.Assignment{ID: r.ID, App: app.ID, Dyno: "release.1", Env: map[string]string{"SECRET": "x"}}}
	must(0, s.BeginPhase(t.Context(), phase, p))(t)
	wantErr(t, "a second beginning", s.BeginPhase(t.Context(), phase, p), ErrNotFound)
	if got := must(s.Placement(t.Context(), r.ID))(t); got.Assignment.Dyno != "release.1" || got.Assignment.Env["SECRET"] != "x" {
		t.Errorf("placement %+v", got)
	}
	must(0, s.EndPhase(t.Context(), phase, true))(t)
	wantErr(t, "a second end", s.EndPhase(t.Context(), phase, false), ErrNotFound)
	now := must(s.CurrentRelease(t.Context(), app.ID))(t)
	if now.ID != r.ID || now.Status != manifold.ReleaseSucceeded {
		t.Errorf("serves %+v", now)
	}
	if f := must(s.Formation(t.Context(), app.ID))(t); len(f) != 2 {
		t.Errorf("formation %v", f)
	}
	if a := must(s.App(t.Context(), app.ID))(t); a.Stack != "cedar-2" || a.ReleasedAt.IsZero() {
		t.Errorf("app %+v", a)
	}
}

// Where nothing serves yet, the code whose command failed is what the next
// release runs, and the formation says that there is a command.
func TestFirstReleasePhaseFails(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "app")
	first, phase := deployWithCommand(t, s, app.ID)
	must(0, s.EndPhase(t.Context(), phase, false))(t)
	formation := must(s.Formation(t.Context(), app.ID))(t)
	if len(formation) != 1 || formation[0].Type != manifold.TypeRelease || formation[0].Quantity != 0 {
		t.Errorf("formation %+v", formation)
	}
	for _, succeeds := range []bool{false, true} {
		next := must(s.AddRelease(t.Context(), app.ID, ada, setVar("A", fmt.Sprint(succeeds))))(t)
		if next.Slug != first.Slug || next.Status != manifold.ReleasePending {
			t.Errorf("after a change of config vars %+v", next)
		}
		phase = must(s.ReleasePhases(t.Context()))(t)[0]
		must(0, s.EndPhase(t.Context(), phase, succeeds))(t)
	}
	serves := must(s.CurrentRelease(t.Context(), app.ID))(t)
	formation = must(s.Formation(t.Context(), app.ID))(t)
	web := slices.IndexFunc(formation, func(f manifold.Formation) bool { return f.Type == "web" && f.Quantity == 1 })
	if serves.Slug != first.Slug || serves.Config["A"] != "true" || web < 0 {
		t.Errorf("serves %+v with %+v", serves, formation)
	}
}

// The old release serves on; config vars that were changed stay so.
func TestReleasePhaseFails(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "app")
	_, phase := deployWithCommand(t, s, app.ID)
	must(0, s.EndPhase(t.Context(), phase, true))(t)
	good := must(s.CurrentRelease(t.Context(), app.ID))(t)

	must(s.AddRelease(t.Context(), app.ID, ada, setVar("A", "1")))(t)
	phase = must(s.ReleasePhases(t.Context()))(t)[0]
	must(0, s.EndPhase(t.Context(), phase, false))(t)
	failed := must(s.NewestRelease(t.Context(), app.ID))(t)
	if failed.Version != 4 || failed.Status != manifold.ReleaseFailed || failed.Config["A"] != "1" {
		t.Errorf("newest %+v", failed)
	}
	if now := must(s.CurrentRelease(t.Context(), app.ID))(t); now.ID != good.ID || len(now.Config) != 0 {
		t.Errorf("serves %+v", now)
	}

	// A deploy that failed is not what the next release is made from.
	bad, phase := deployWithCommand(t, s, app.ID)
	must(0, s.EndPhase(t.Context(), phase, false))(t)
	next := must(s.AddRelease(t.Context(), app.ID, ada, setVar("B", "2")))(t)
	if next.Version != 6 || next.Slug != good.Slug || next.Slug == bad.Slug || next.Config["A"] != "1" || next.Config["B"] != "2" {
		t.Errorf("next %+v", next)
	}
	_, err := s.UpdateApp(t.Context(), app.ID, func(a *manifold.App) error { a.Maintenance = true; return nil })
	if now := must(s.CurrentRelease(t.Context(), app.ID))(t); err != nil || now.ID != good.ID {
		t.Errorf("after a change of the app: serves %+v, %v", now, err)
	}

	must(0, s.DeleteApp(t.Context(), app.ID))(t)
	if left := must(s.ReleasePhases(t.Context()))(t); len(left) != 0 {
		t.Errorf("a deleted app left %+v", left)
	}
	phase.Version = 6
	wantErr(t, "the end of a phase whose app is gone", s.EndPhase(t.Context(), phase, true), ErrNotFound)
}
