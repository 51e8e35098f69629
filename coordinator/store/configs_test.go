package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"testing"

	"manifold"
)

// One var of twenty that changes is kept, not the twenty; what is read is the
// same, release by release, back to a rollback, and nothing of it is readable.
func TestConfigIsKeptAsWhatChanged(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "app")
	want := map[int]map[string]string{}
	release := func(change func(vars map[string]string)) {
		r := must(s.AddRelease(t.Context(), app.ID, ada, func(r *manifold.Release) error { change(r.Config); return nil }))(t)
		want[r.Version] = maps.Clone(r.Config)
	}
	release(func(vars map[string]string) { maps.Copy(vars, config()) })
	for i := range 5 {
		release(func(vars map[string]string) {
			vars["PLAIN"] = fmt.Sprint("plain", i)
			delete(vars, fmt.Sprint("VARIABLE_", i))
		})
	}
	release(func(vars map[string]string) { clear(vars); vars["ONLY"] = "plain" })
	release(func(vars map[string]string) { clear(vars); maps.Copy(vars, want[3]) })
	release(func(vars map[string]string) { clear(vars) })
	release(func(vars map[string]string) { vars["PLAIN"] = "again" })
	for _, r := range must(s.Releases(t.Context(), app.ID))(t)[2:] {
		one := must(s.Release(t.Context(), app.ID, r.Version))(t)
		if !maps.Equal(r.Config, want[r.Version]) || !maps.Equal(one.Config, want[r.Version]) {
			t.Errorf("v%d has %d vars in the list and %d alone, not %d", r.Version, len(r.Config), len(one.Config), len(want[r.Version]))
		}
	}
	for version, limit := range map[int]int{3: 1400, 8: 250} {
		r := must(s.engine.get(t.Context(), versionKey("configs", app.ID, version)))(t)
		if len(r.value) > limit || bytes.Contains(r.value, []byte("plain")) {
			t.Errorf("the config vars of v%d take %d bytes: %q", version, len(r.value), r.value)
		}
	}
}

// Records as they were before: config vars whole, in base64 in a JSON string,
// and releases that say of what app and version they are.
func TestReleasesOfOldAreRead(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "app")
	k := versionKey("configs", app.ID, 3)
	vars := map[string]string{"OLD": "value", "OTHER": "value of another var, which stays"}
	sealed := must(s.vault.sealVars(vars, k))(t)
	was := must(s.AddRelease(t.Context(), app.ID, ada, func(r *manifold.Release) error { r.Config["OLD"] = ""; return nil }))(t)
	old := must(json.Marshal(struct {
		manifold.Release
		ConfigOf int `json:"config_of"`
	}{manifold.Release{ID: was.ID, App: app.ID, Version: 3, Status: manifold.ReleaseSucceeded, CreatedAt: was.CreatedAt}, 3}))(t)
	must(s.engine.commit(t.Context(), nil, []write{
		{key: k, value: must(json.Marshal(sealed))(t)}, {key: versionKey("releases", app.ID, 3), value: old},
	}))(t)
	if r := must(s.CurrentRelease(t.Context(), app.ID))(t); !maps.Equal(r.Config, vars) || r.Version != 3 || r.App != app.ID {
		t.Errorf("read as %+v", r)
	}
	next := must(s.AddRelease(t.Context(), app.ID, ada, func(r *manifold.Release) error { r.Config["NEW"] = "1"; return nil }))(t)
	if all := must(s.Releases(t.Context(), app.ID))(t); len(all) != 4 || len(all[3].Config) != 3 || !maps.Equal(next.Config, all[3].Config) {
		t.Errorf("listed as %+v", all)
	}
}
