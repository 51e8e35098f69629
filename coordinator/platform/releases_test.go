package platform

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"manifold"
)

type releaseEntry struct {
	ID, Description, Status string
	Version                 int
	Current                 bool
	Eligible                bool `json:"eligible_for_rollback"`
	Slug                    *struct{ ID string }
	OutputStreamURL         *string  `json:"output_stream_url"`
	AddonPlanNames          []string `json:"addon_plan_names"`
}

func TestRollback(t *testing.T) {
	r := newRig(t)
	app := r.app("rolling")
	const path = "/apps/rolling/releases"
	first := r.deploy(app, map[string]string{"web": "bin/old", "clock": "bin/clock"}) // v3
	r.send("PATCH", "/apps/rolling/config-vars", `{"FOO":"1"}`).want(200)             // v4
	r.deploy(app, map[string]string{"web": "bin/new", "worker": "bin/work"})          // v5
	r.send("PATCH", "/apps/rolling/config-vars", `{"FOO":"2"}`).want(200)             // v6

	all := into[[]releaseEntry](r.send("GET", path, "", "Range", "version ..; max=10, order=desc").want(200))
	for i, rel := range all {
		if want := 6 - i; rel.Version != want || rel.Current != (i == 0) || rel.Eligible != (want >= 3) || rel.Status != "succeeded" || (rel.Slug == nil) != (want < 3) || rel.AddonPlanNames == nil {
			t.Errorf("release %d: %+v", i, rel)
		}
	}
	// The CLI sends the id; a person may send a number.
	for i, name := range []string{all[2].ID, "4", "v4"} {
		back := into[releaseEntry](r.send("POST", path, `{"release":"`+name+`"}`).want(201))
		if back.Version != 7+i || back.Description != "Rollback to v4" || back.Slug.ID != first.Slug || !back.Current {
			t.Errorf("rolled back to %+v", back)
		}
	}
	if got := into[map[string]string](r.send("GET", "/apps/rolling/config-vars", "").want(200)); got["FOO"] != "1" {
		t.Errorf("config after rollback: %v", got)
	}
	types := into[[]formationEntry](r.send("GET", "/apps/rolling/formation", "").want(200))
	if len(types) != 2 || types[0].Type != "clock" || types[1].Command != "bin/old" {
		t.Errorf("formation after rollback: %+v", types)
	}
	r.said(app, "Rollback to v4 by user ada@example.com")
	r.said(app, "Release v7 created by user ada@example.com")

	again := into[releaseEntry](r.send("POST", path, `{"slug":"`+all[0].Slug.ID+`","description":"Promote it"}`).want(201))
	if again.Version != 10 || again.Description != "Promote it" || again.Slug.ID != all[0].Slug.ID {
		t.Errorf("released slug: %+v", again)
	}
	for _, name := range []string{again.ID, "10", "v10"} {
		if got := into[releaseEntry](r.send("GET", path+"/"+name, "").want(200)); got.ID != again.ID || !got.Current {
			t.Errorf("GET %s: %+v", name, got)
		}
	}
	slug := into[struct {
		Commit       string
		Checksum     string
		Size         int64
		ProcessTypes map[string]string `json:"process_types"`
	}](r.send("GET", "/apps/rolling/slugs/"+all[0].Slug.ID, "").want(200))
	if slug.Commit != "1234567890" || slug.Size != 4711 || slug.Checksum != "SHA256:"+strings.Repeat("ab", 32) || slug.ProcessTypes["web"] != "bin/new" {
		t.Errorf("slug %+v", slug)
	}
}

func TestBadReleases(t *testing.T) {
	r := newRig(t)
	app := r.app("bad-release")
	other := r.app("other-app")
	const path = "/apps/bad-release/releases"
	foreign := r.deploy(other, map[string]string{"web": "x"})
	r.deploy(app, map[string]string{"web": "bin/web"})
	for _, tc := range []struct {
		body, id, words string
		status          int
	}{
		{`{}`, "invalid_params", "release to roll back to", 422},
		{`{"release":"99"}`, "not_found", `"99"`, 404},
		{`{"release":"0"}`, "not_found", "heroku releases", 404},
		{`{"release":"-1"}`, "not_found", "", 404},
		{`{"release":"../3"}`, "not_found", "", 404},
		{`{"release":"` + foreign.ID + `"}`, "not_found", "", 404},
		{`{"release":"v2"}`, "invalid_params", "no code", 422},
		{`{"release":"3","slug":"x"}`, "invalid_params", "not both", 422},
		{`{"slug":"` + foreign.Slug + `"}`, "not_found", "no slug", 404},
		{`{"slug":"` + uuid.NewString() + `"}`, "not_found", "no slug", 404},
		{`{"slug":"../apps/` + app.ID + `"}`, "not_found", "no slug", 404},
		{`{"release":3}`, "bad_request", "release", 400},
	} {
		r.send("POST", path, tc.body).fails(tc.status, tc.id, tc.words)
	}
	for _, name := range []string{"99", "vv3", "%2e%2e", "3.0", "+3"} {
		r.send("GET", path+"/"+name, "").fails(404, "not_found")
		r.send("GET", path+"/"+name+"/config-vars", "").fails(404, "not_found")
	}
	r.send("GET", "/apps/bad-release/slugs/"+foreign.Slug, "").fails(404, "not_found")
	if current, err := r.store.CurrentRelease(t.Context(), app.ID); err != nil || current.Version != 3 {
		t.Errorf("bad requests made release %d (%v)", current.Version, err)
	}
}

func TestFailedReleaseIsNoTarget(t *testing.T) {
	for _, tc := range []struct {
		r    manifold.Release
		want bool
	}{
		{manifold.Release{Status: manifold.ReleaseSucceeded, Slug: "s"}, true},
		{manifold.Release{Status: manifold.ReleaseSucceeded}, false},
		{manifold.Release{Status: manifold.ReleaseFailed, Slug: "s"}, false},
		{manifold.Release{Status: manifold.ReleasePending, Slug: "s"}, false},
	} {
		if eligible(tc.r) != tc.want {
			t.Errorf("eligible(%+v) is %v", tc.r, !tc.want)
		}
	}
}

// Who changes config vars while a release command runs waits for its end, if
// that does not take long; nobody waits with If-Match.
func TestChangesWaitForAReleaseCommand(t *testing.T) {
	r := newRig(t)
	app := r.app("migrating")
	r.deploy(app, map[string]string{"web": "serve", "release": "migrate"})
	end := func() {
		phases, err := r.store.ReleasePhases(t.Context())
		if err != nil || len(phases) != 1 {
			t.Fatalf("%+v, %v", phases, err)
		}
		if err := r.store.EndPhase(t.Context(), phases[0], true); err != nil {
			t.Fatal(err)
		}
	}
	const path = "/apps/migrating/config-vars"
	const longest = 10 * time.Second
	hasty := *r
	hasty.url = r.impatient(longest).URL
	began := time.Now()
	hasty.send("PATCH", path, `{"A":"1"}`).fails(409, "conflict", "command of another release")
	if took := time.Since(began); took < longest/5 {
		t.Errorf("it was refused after %v", took)
	}
	began = time.Now()
	r.send("PATCH", path, `{"A":"1"}`, "If-Match", "*").fails(409, "conflict")
	if took := time.Since(began); took >= maxTime*2/5 {
		t.Errorf("with If-Match it was refused after %v", took)
	}

	changed := make(chan reply)
	go func() { changed <- r.send("PATCH", path, `{"A":"1"}`) }()
	select {
	case early := <-changed:
		t.Errorf("%s: did not wait: %d %s", early.what, early.status, early.text)
	case <-time.After(time.Second):
		end()
		(<-changed).want(200)
	}
	if newest, err := r.store.NewestRelease(t.Context(), app.ID); err != nil || newest.Version != 4 || newest.Config["A"] != "1" {
		t.Errorf("the newest release is %+v, %v", newest, err)
	}
}
