package platform

import (
	"strings"
	"testing"

	"manifold"
)

func TestAppLife(t *testing.T) {
	r := newRig(t)
	type app struct {
		ID, Name    string
		WebURL      string `json:"web_url"`
		GitURL      string `json:"git_url"`
		Maintenance bool
		Owner       struct{ Email string }
		Stack       struct{ ID, Name string }
		BuildStack  struct{ Name string } `json:"build_stack"`
		Region      struct{ Name string }
		SlugSize    *int64 `json:"slug_size"`
	}
	made := into[app](r.send("POST", "/apps", "").want(201))
	if manifold.CheckAppName(made.Name) != nil || made.ID == "" || made.WebURL != "http://"+made.Name+".localhost:8080/" ||
		made.GitURL != "https://localhost:5443/"+made.Name+".git" || made.Owner.Email != "ada@example.com" ||
		made.Stack.Name != "cedar" || made.BuildStack.Name != "cedar" || made.Region.Name != "us" || made.SlugSize != nil {
		t.Errorf("created %+v", made)
	}
	kept, err := r.store.App(t.Context(), made.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Release v1 created", "Initial release", "Release v2 created", "Enable Logplex"} {
		r.said(kept, line+" by user ada@example.com")
	}

	// The CLI names stacks, other clients use ids.
	second := into[app](r.send("POST", "/apps", `{"name":"second","stack":"`+fixedID("stack", "cedar-2")+`","region":"us","feature_flags":[],"kernel":null,"locked":false}`).want(201))
	if second.Stack.Name != "cedar-2" || second.Name != "second" {
		t.Errorf("created %+v", second)
	}
	for _, path := range []string{"/apps", "/users/~/apps", "/users/ada@example.com/apps"} {
		if all := into[[]app](r.send("GET", path, "").want(200)); len(all) != 2 {
			t.Errorf("GET %s lists %+v", path, all)
		}
	}
	r.send("GET", "/users/eve@example.com/apps", "").fails(404, "not_found", "~")

	renamed := into[app](r.send("PATCH", "/apps/second", `{"name":"third","maintenance":true,"build_stack":"cedar"}`).want(200))
	if renamed.Name != "third" || !renamed.Maintenance || renamed.BuildStack.Name != "cedar" || renamed.Stack.Name != "cedar-2" || renamed.ID != second.ID {
		t.Errorf("renamed to %+v", renamed)
	}
	r.send("GET", "/apps/second", "").fails(404, "not_found")
	byID := into[app](r.send("GET", "/apps/"+second.ID, "").want(200))
	if byID.Name != "third" {
		t.Errorf("found %+v by id", byID)
	}
	kept, _ = r.store.App(t.Context(), second.ID)
	for _, line := range []string{"Renamed from second to third", "Enable maintenance mode", "Set build stack to cedar"} {
		r.said(kept, line+" by user ada@example.com")
	}

	r.deploy(kept, map[string]string{"web": "bin/web"})
	if coded := into[app](r.send("GET", "/apps/third", "").want(200)); coded.SlugSize == nil || *coded.SlugSize != 4711 {
		t.Errorf("an app with code shows %+v", coded)
	}
	if gone := into[app](r.send("DELETE", "/apps/third", "").want(200)); gone.ID != second.ID {
		t.Errorf("destroyed %+v", gone)
	}
	r.send("GET", "/apps/third", "").fails(404, "not_found")
	r.send("DELETE", "/apps/third", "").fails(404, "not_found")
}

func TestBadApps(t *testing.T) {
	r := newRig(t)
	r.app("taken-name")
	r.app("other-name")
	for name, words := range map[string]string{
		"ab": "3 to 30", "1app": "lower-case letter", "App": "lower-case", "app_": "dashes", "app-": "dash", "a b c": "lower-case",
		"../../etc": "lower-case", "äpp": "lower-case", strings.Repeat("a", 31): "30", "localhost:80": "lower-case", "a.b": "dashes",
		"taken-name": "taken-name is already taken",
	} {
		r.send("POST", "/apps", `{"name":"`+name+`"}`).fails(422, "invalid_params", words)
		r.send("PATCH", "/apps/other-name", `{"name":"`+name+`"}`).fails(422, "invalid_params", words)
	}
	r.send("POST", "/apps", `{"stack":"bamboo"}`).fails(422, "invalid_params", `"bamboo"`, "cedar, cedar-2")
	r.send("PATCH", "/apps/other-name", `{"build_stack":"bamboo"}`).fails(422, "invalid_params", "cedar, cedar-2")
	r.send("PATCH", "/apps/other-name", `{"name":""}`).fails(422, "invalid_params")
	r.send("POST", "/apps", `{"region":"mars"}`).fails(422, "invalid_params", `"mars"`, "us")
	if all := into[[]object](r.send("GET", "/apps", "").want(200)); len(all) != 2 {
		t.Errorf("bad requests left apps behind: %v", all)
	}
}

// Whatever reads an app's surroundings on its way finds complete answers.
func TestAroundAnApp(t *testing.T) {
	r := newRig(t)
	r.app("around")
	for _, path := range []string{"addons", "addon-attachments", "log-drains", "sni-endpoints", "webhooks", "buildpack-installations"} {
		if got := r.send("GET", "/apps/around/"+path, "").want(200); strings.TrimSpace(got.text) != "[]" {
			t.Errorf("%s: %s", path, got.text)
		}
	}
	for _, path := range []string{"/addons", "/pipelines", "/teams", "/spaces", "/account/keys", "/account/features"} {
		if got := r.send("GET", path, "").want(200); strings.TrimSpace(got.text) != "[]" {
			t.Errorf("%s: %s", path, got.text)
		}
	}
	for _, path := range []string{"/apps/around/pipeline-couplings", "/apps/around/addons/x", "/apps/around/features/x", "/account/features/x"} {
		r.send("GET", path, "").fails(404, "not_found")
	}
	r.send("DELETE", "/oauth/sessions/~", "").fails(404, "not_found")

	type domain struct {
		ID, Hostname, Kind string
		Cname              *string
	}
	domains := into[[]domain](r.send("GET", "/apps/around/domains", "", "Range", "id ..; max=1000;").want(200))
	if len(domains) != 1 || domains[0].Hostname != "around.localhost" || domains[0].Kind != "heroku" || domains[0].Cname != nil {
		t.Errorf("domains %+v", domains)
	}
	r.send("GET", "/apps/around/domains/around.localhost", "").want(200)
	r.send("GET", "/apps/around/domains/"+domains[0].ID, "").want(200)
	r.send("GET", "/apps/around/domains/example.com", "").fails(404, "not_found", "example.com")
	people := into[[]struct {
		Role string
		User struct{ Email string }
	}](r.send("GET", "/apps/around/collaborators", "").want(200))
	if len(people) != 1 || people[0].Role != "owner" || people[0].User.Email != "ada@example.com" {
		t.Errorf("collaborators %+v", people)
	}
}

func TestBuildpacks(t *testing.T) {
	r := newRig(t)
	app := r.app("packed")
	const path = "/apps/packed/buildpack-installations"
	type installation struct {
		Ordinal   int
		Buildpack struct{ URL string }
	}
	put := into[[]installation](r.send("PUT", path, `{"updates":[{"buildpack":"https://example.com/a.git#v1"},{"buildpack":"go"},{"buildpack":"/srv/buildpack"}]}`, "Range", "").want(200))
	got := into[[]installation](r.send("GET", path, "").want(200))
	for _, all := range [][]installation{put, got} {
		if len(all) != 3 || all[0].Buildpack.URL != "https://example.com/a.git#v1" || all[1].Ordinal != 1 || all[2].Buildpack.URL != "/srv/buildpack" {
			t.Errorf("buildpacks %+v", all)
		}
	}
	for _, bad := range []string{`{}`, `{"buildpack":""}`, `{"buildpack":"--upload-pack=touch /x"}`, `{"buildpack":"ext::sh -c id"}`, `{"buildpack":"file:///etc"}`, `{"buildpack":"-x"}`, `{"buildpack":"https:///nohost"}`, `{"buildpack":"../x"}`, `{"buildpack":"https://a/\u0000"}`, `{"buildpack":"https://a/` + strings.Repeat("x", 3000) + `"}`} {
		r.send("PUT", path, `{"updates":[`+bad+`]}`).fails(422, "invalid_params", "Buildpack")
	}
	r.send("PUT", path, `{"updates":[`+strings.Repeat(`{"buildpack":"go"},`, 50)+`{"buildpack":"go"}]}`).fails(422, "invalid_params", "at most 20")
	if kept, _ := r.store.App(t.Context(), app.ID); len(kept.Buildpacks) != 3 {
		t.Errorf("a refused list replaced the old one: %v", kept.Buildpacks)
	}
	r.send("PUT", path, `{"updates":[]}`).want(200)
	if kept, _ := r.store.App(t.Context(), app.ID); len(kept.Buildpacks) != 0 {
		t.Errorf("buildpacks after clear: %v", kept.Buildpacks)
	}
}

func TestCatalog(t *testing.T) {
	r := newRig(t)
	type entry struct {
		ID, Name string
		Default  bool
		Memory   float64
	}
	stacks := into[[]entry](r.send("GET", "/stacks", "").want(200))
	if len(stacks) != 2 || stacks[0].Name != "cedar" || !stacks[0].Default || stacks[1].Default {
		t.Errorf("stacks %+v", stacks)
	}
	regions := into[[]entry](r.send("GET", "/regions", "").want(200))
	sizes := into[[]entry](r.send("GET", "/dyno-sizes", "").want(200))
	if len(regions) != 1 || len(sizes) != len(manifold.Sizes()) || sizes[2].Name != "Standard-1X" || sizes[2].Memory != 0.5 {
		t.Errorf("regions %+v, sizes %+v", regions, sizes)
	}
	for path, e := range map[string]entry{"/stacks/": stacks[1], "/regions/": regions[0], "/dyno-sizes/": sizes[3]} {
		for _, name := range []string{e.Name, e.ID} {
			if got := into[entry](r.send("GET", path+name, "").want(200)); got.ID != e.ID {
				t.Errorf("%s%s: %+v", path, name, got)
			}
		}
		r.send("GET", path+"none", "").fails(404, "not_found", "none", e.Name)
	}
	r.send("GET", "/dyno-sizes/standard-1x", "").want(200)
}

// What Heroku has and we have not: the answer says what to do instead.
func TestLacking(t *testing.T) {
	r := newRig(t)
	app := r.app("hello")
	for path, words := range map[string]string{
		"/apps/hello/addons": "heroku config:set", "/addon-attachments": "heroku config:set", "/apps/hello/acm": "TLS",
		"/pipelines": "git push", "/teams/apps/hello": "heroku access:add", "/nothing": "There is no POST /nothing",
	} {
		r.send("POST", path, "{}").fails(404, "not_found", words)
	}
	r.send("GET", "/apps/"+app.Name+"/features/runtime-heroku-exec", "").fails(404, "not_found", "heroku run:inside web.1 bash")
}
