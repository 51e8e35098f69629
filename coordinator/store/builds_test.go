package store

import (
	"fmt"
	"testing"

	"manifold"
)

func TestBuilds(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "app")
	var forgotten []string
	for i := range keptBuilds + 3 {
		b := manifold.Build{ID: fmt.Sprintf("b%03d", i), App: app.ID, Status: manifold.BuildSucceeded, Output: fmt.Sprintf("o%03d", i)}
		if i == 0 || i == keptBuilds+2 {
			b.Status = manifold.BuildPending
		}
		forgotten = append(forgotten, must(s.PutBuild(t.Context(), &b))(t)...)
	}
	all := must(s.Builds(t.Context(), app.ID))(t)
	// The oldest still runs, and stays.
	if len(all) != keptBuilds+1 || all[0].ID != "b000" || all[1].ID != "b003" || fmt.Sprint(forgotten) != "[o001 o002]" {
		t.Errorf("%d builds from %s, %s; forgotten %v", len(all), all[0].ID, all[1].ID, forgotten)
	}
	must(0, s.AbandonBuilds(t.Context()))(t)
	for _, b := range must(s.Builds(t.Context(), ""))(t) {
		if b.Status == manifold.BuildPending || b.Status == manifold.BuildFailed != (b.ID == "b000" || b.ID == fmt.Sprintf("b%03d", keptBuilds+2)) {
			t.Errorf("%s is %s", b.ID, b.Status)
		}
	}
	used := must(s.Outputs(t.Context()))(t)
	if !used["o004"] || used["o001"] {
		t.Errorf("outputs %v", used)
	}
	_, err := s.Build(t.Context(), newApp(t, s, "other").ID, "b003")
	wantErr(t, "another app's build", err, ErrNotFound)
	must(0, s.DeleteApp(t.Context(), app.ID))(t)
	_, err = s.PutBuild(t.Context(), &all[0])
	wantErr(t, "a build that ends after its app", err, ErrNotFound)
	if left := must(s.Builds(t.Context(), ""))(t); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}
