package store

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"manifold"
)

func setVar(k, v string) func(*manifold.Release) error {
	return func(r *manifold.Release) error {
		r.Config[k] = v
		r.Description = "Set " + k + " config vars"
		return nil
	}
}

func TestAddReleaseCopiesTheCurrentOne(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "app")
	v3 := must(s.AddRelease(t.Context(), app.ID, ada, setVar("A", "1")))(t)
	v4 := must(s.AddRelease(t.Context(), app.ID, ada, func(r *manifold.Release) error {
		r.ID, r.App, r.Version, r.User, r.Status = "mine", "other", 99, "eve", "failed" // not the caller's to choose
		return setVar("B", "2")(r)
	}))(t)
	if v3.Version != 3 || v4.Version != 4 || v4.ID == "mine" || v4.App != app.ID || v4.User != ada.Email || v4.Status != manifold.ReleaseSucceeded {
		t.Errorf("releases %+v and %+v", v3, v4)
	}
	current := must(s.CurrentRelease(t.Context(), app.ID))(t)
	if want := map[string]string{"A": "1", "B": "2"}; !maps.Equal(current.Config, want) || current.ID != v4.ID || current.Description != "Set B config vars" {
		t.Errorf("current release %+v, want config %v", current, want)
	}
	releases := must(s.Releases(t.Context(), app.ID))(t)
	if !maps.Equal(releases[2].Config, map[string]string{"A": "1"}) {
		t.Errorf("config of v3 is now %v", releases[2].Config)
	}

	refused := errors.New("nothing changed")
	_, err := s.AddRelease(t.Context(), app.ID, ada, func(*manifold.Release) error { return refused })
	wantErr(t, "change that fails", err, refused)
	var invalid *manifold.InvalidError
	for k, v := range map[string]string{"BIG": strings.Repeat("x", manifold.MaxConfigBytes), "NUL": "a\x00b", "no good": "x"} {
		_, err = s.AddRelease(t.Context(), app.ID, ada, setVar(k, v))
		if !errors.As(err, &invalid) || len(err.Error()) > 500 {
			t.Errorf("config var %s: error %.100v", k, err)
		}
	}
	if n := must(s.CurrentRelease(t.Context(), app.ID))(t).Version; n != 4 {
		t.Errorf("refused changes used up release numbers: current is v%d", n)
	}
}

func TestReleaseNumbersHaveNoGapUnderCrowd(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "busy")
	const writers, each = 8, 15
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := s.AddRelease(t.Context(), app.ID, ada, setVar(fmt.Sprintf("W%d", w), fmt.Sprint(i))); err != nil {
					t.Errorf("writer %d: %v", w, err)
				}
			}
		})
	}
	wg.Wait()
	releases := must(s.Releases(t.Context(), app.ID))(t)
	if len(releases) != 2+writers*each {
		t.Fatalf("%d releases, want %d", len(releases), 2+writers*each)
	}
	for i, r := range releases {
		if r.Version != i+1 {
			t.Fatalf("release %d has number v%d", i+1, r.Version)
		}
	}
	last := releases[len(releases)-1].Config
	for w := range writers {
		if got := last[fmt.Sprintf("W%d", w)]; got != fmt.Sprint(each-1) {
			t.Errorf("writer %d's last var is %q: a change was lost", w, got)
		}
	}
}

func TestDeployFitsTheFormation(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "app")
	deploy := func(types ...string) manifold.Release {
		t.Helper()
		commands := map[string]string{}
		for _, typ := range types {
			commands[typ] = "run " + typ
		}
		return must(s.Deploy(t.Context(), app.ID, manifold.Slug{Stack: "cedar-2", ProcessTypes: commands}, "Deploy 1234abcd", ada))(t)
	}
	want := func(when, want string) {
		t.Helper()
		var got []string
		for _, f := range must(s.Formation(t.Context(), app.ID))(t) {
			got = append(got, fmt.Sprintf("%s=%d:%s", f.Type, f.Quantity, f.Size))
			if f.App != app.ID || f.ID == "" || f.CreatedAt.IsZero() {
				t.Errorf("%s: incomplete entry %+v", when, f)
			}
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("formation %s: %s, want %s", when, text, want)
		}
	}
	v3 := deploy("web", "worker")
	want("after the first deploy", "web=1:Standard-1X worker=0:Standard-1X")
	must(s.UpdateFormation(t.Context(), app.ID, func(f []manifold.Formation) ([]manifold.Formation, error) {
		f[0].Quantity, f[1].Quantity, f[1].Size = 0, 3, "standard-2x"
		return f, nil
	}))(t)
	deploy("web", "worker", "clock")
	want("keeps what was set", "clock=0:Standard-1X web=0:Standard-1X worker=3:Standard-2X")
	v5 := deploy("web")
	want("without the types that went", "web=0:Standard-1X")

	got := must(s.App(t.Context(), app.ID))(t)
	if got.Stack != "cedar-2" || got.BuildStack != "cedar" || !got.ReleasedAt.Equal(v5.CreatedAt) {
		t.Errorf("app after deploy: %+v", got)
	}
	slug := must(s.Slug(t.Context(), v3.Slug))(t)
	if slug.App != app.ID || slug.ProcessTypes["worker"] != "run worker" || v3.Description != "Deploy 1234abcd" {
		t.Errorf("slug %+v of release %+v", slug, v3)
	}
	must(s.AddRelease(t.Context(), app.ID, ada, func(r *manifold.Release) error { r.Slug = v3.Slug; return nil }))(t)
	want("after a rollback", "web=0:Standard-1X worker=0:Standard-1X")

	// A slug of another app, or of nobody, is not to be had.
	other := newApp(t, s, "other")
	for _, id := range []string{v3.Slug, "nobody's"} {
		_, err := s.AddRelease(t.Context(), other.ID, ada, func(r *manifold.Release) error { r.Slug = id; return nil })
		wantErr(t, "slug "+id, err, ErrNotFound)
	}
	_, err := s.Deploy(t.Context(), "nobody", manifold.Slug{ID: "stray"}, "Deploy", ada)
	wantErr(t, "deploy to no app", err, ErrNotFound)
	_, err = s.Slug(t.Context(), "stray")
	wantErr(t, "slug of a deploy that failed", err, ErrNotFound)
}

func TestDeployAThousandTypes(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "wide")
	types := map[string]string{}
	for i := range 1000 {
		types[fmt.Sprintf("type-%d", i)] = strings.Repeat("x", 200)
	}
	must(s.Deploy(t.Context(), app.ID, manifold.Slug{ProcessTypes: types}, "Deploy", ada))(t)
	if f := must(s.Formation(t.Context(), app.ID))(t); len(f) != 1000 {
		t.Errorf("%d entries", len(f))
	}
}

// Release and History tell the same as Releases, the latter without values.
func TestReleaseAndHistory(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "app")
	must(s.AddRelease(t.Context(), app.ID, ada, setVar("A", "1")))(t)
	all, history := must(s.Releases(t.Context(), app.ID))(t), must(s.History(t.Context(), app.ID))(t)
	if len(all) != 3 || len(history) != 3 {
		t.Fatalf("%d releases, history of %d", len(all), len(history))
	}
	for i, r := range all {
		one := must(s.Release(t.Context(), app.ID, r.Version))(t)
		if one.ID != r.ID || !maps.Equal(one.Config, r.Config) || history[i].ID != r.ID || history[i].Config != nil {
			t.Errorf("v%d is %+v in Releases, %+v alone and %+v in History", r.Version, r, one, history[i])
		}
	}
	for _, version := range []int{-1, 0, 4, 1 << 40} {
		_, err := s.Release(t.Context(), app.ID, version)
		wantErr(t, fmt.Sprintf("release v%d", version), err, ErrNotFound)
	}
	_, err := s.History(t.Context(), "none")
	wantErr(t, "history of no app", err, ErrNotFound)
}
