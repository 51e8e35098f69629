package platform

import (
	"fmt"
	"strings"
	"testing"

	"manifold"
	"manifold/coordinator/store"
)

type shownEntry struct {
	Seq           int
	Action, From  string
	User          struct{ Email string }
	RequestID     string `json:"request_id"`
	CreatedAt     string `json:"created_at"`
	Authorization struct{ ID string }
}

// changes are requests that change something, by endpoint, and what the trail
// says of each: the app's, or the account's where the path names no app.
var changes = map[string]struct{ body, said string }{
	"PATCH /apps/{app}":                               {`{"maintenance":true}`, "Enable maintenance mode"},
	"PUT /apps/{app}/buildpack-installations":         {`{"updates":[]}`, "Set 0 buildpacks"},
	"PATCH /apps/{app}/config-vars":                   {`{"PASSWORD":"hunter2"}`, "Set PASSWORD config vars (v4)"},
	"PATCH /apps/{app}/formation":                     {`{"updates":[{"type":"web","quantity":"2"}]}`, "Scaled to web@2"},
	"PATCH /apps/{app}/formation/{type}":              {`{"quantity":3}`, "Scaled to web@3"},
	"POST /apps/{app}/collaborators":                  {`{"user":"eve@example.com"}`, "Add eve@example.com as collaborator"},
	"DELETE /apps/{app}/collaborators/{user}":         {"", "Remove eve@example.com as collaborator"},
	"POST /apps/{app}/domains":                        {`{"hostname":"www.example.com"}`, "Add domain www.example.com"},
	"DELETE /apps/{app}/domains/{domain}":             {"", "Remove domain www.example.com"},
	"PATCH /apps/{app}/features/{feature}":            {`{"enabled":false}`, "Disable feature preboot"},
	"POST /apps/{app}/dynos":                          {`{"command":"true"}`, "Starting process with command"},
	"POST /apps/{app}/dynos/{dyno}":                   {`{"command":"env"}`, "Running command `env` inside web.1"},
	"DELETE /apps/{app}/dynos":                        {"", "Restarted all dynos"},
	"DELETE /apps/{app}/dynos/{dyno}":                 {"", "Restarted web.1"},
	"POST /apps/{app}/dynos/{dyno}/actions/stop":      {"", "Restarted web.1"},
	"DELETE /apps/{app}/formations/{type}":            {"", "Restarted web"},
	"POST /apps/{app}/formations/{type}/actions/stop": {"", "Restarted web"},
	"POST /apps/{app}/releases":                       {`{"release":"3"}`, "Rollback to v3 (v5)"},
	"POST /account/keys":                              {`{"public_key":"` + keyLine + `"}`, "Add SSH key"},
	"DELETE /account/keys/{key}":                      {"", "Remove SSH key"},
	"POST /oauth/authorizations":                      {`{"description":"CI"}`, "Create authorization"},
	"PATCH /oauth/authorizations/{id}":                {`{"description":"CI 2"}`, "Update authorization"},
	"POST /apps":                                      {`{"name":"another"}`, "Create app another"},
}

// The order in which some of them must come.
var inOrder = []string{
	"PATCH /apps/{app}/config-vars", "POST /apps/{app}/releases",
	"PATCH /apps/{app}/formation", "PATCH /apps/{app}/formation/{type}",
	"POST /apps/{app}/collaborators", "DELETE /apps/{app}/collaborators/{user}",
	"POST /apps/{app}/domains", "DELETE /apps/{app}/domains/{domain}",
	"POST /account/keys", "DELETE /account/keys/{key}",
}

// Every change is in a trail: who, what, from where, by which token.
func TestEveryChangeIsAudited(t *testing.T) {
	r := newRig(t)
	r.as("eve@example.com")
	app := r.app("audited")
	r.deploy(app, map[string]string{"web": "bin/web"})
	r.dynos.add(app, "web.1", 3, manifold.StateUp)
	done := map[string]bool{}
	change := func(pattern string) {
		if done[pattern] {
			return
		}
		done[pattern] = true
		want := changes[pattern]
		method, path, _ := strings.Cut(pattern, " ")
		trail := "/account/audit"
		if strings.HasPrefix(path, "/apps/") {
			trail = "/apps/audited/audit"
		}
		at := strings.NewReplacer("{app}", "audited", "{type}", "web", "{dyno}", "web.1", "{user}", "eve@example.com", "{id}", "~",
			"{domain}", "www.example.com", "{feature}", "preboot", "{key}", "ada@desk").Replace(path)
		if got := r.send(method, at, want.body); got.status/100 != 2 {
			t.Errorf("%s: %d %s", pattern, got.status, got.text)
			return
		}
		entries := into[[]shownEntry](r.send("GET", trail, "", "Range", "seq ..; order=desc,max=1"))
		if len(entries) != 1 {
			t.Errorf("%s: no trail", pattern)
			return
		}
		e := entries[0]
		if !strings.Contains(e.Action, want.said) || e.User.Email != "ada@example.com" || e.From != "127.0.0.1" || len(e.RequestID) != 36 || len(e.Authorization.ID) != 36 || e.CreatedAt == "" {
			t.Errorf("%s is audited as %+v, want %q", pattern, e, want.said)
		}
	}
	for _, pattern := range inOrder {
		change(pattern)
	}
	for pattern := range changes {
		change(pattern)
	}
	if trail := r.send("GET", "/apps/audited/audit", "").text; strings.Contains(trail, "hunter2") {
		t.Errorf("the trail holds a config var's value: %s", trail)
	}
	r.send("DELETE", "/apps/audited", "").want(200)
	last := into[[]shownEntry](r.send("GET", "/account/audit", "", "Range", "seq ..; order=desc,max=1").want(206))
	if last[0].Action != "Destroy app audited" {
		t.Errorf("the destruction is audited as %+v", last)
	}
	if left, err := r.store.Audit(t.Context(), app.ID); err != nil || len(left) > 0 {
		t.Errorf("a destroyed app leaves %d entries (%v)", len(left), err)
	}
}

// A trail keeps its newest entries and no more.
func TestAuditIsBounded(t *testing.T) {
	r := newRig(t)
	const more = 50
	for i := range store.MaxAudit + more {
		if err := r.store.Record(t.Context(), r.user.ID, store.Entry{Action: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := r.store.Audit(t.Context(), r.user.ID)
	if err != nil || len(all) != store.MaxAudit || all[0].Action != fmt.Sprint(more) || all[0].Seq != more+1 {
		t.Errorf("%d entries, first %+v (%v)", len(all), all[0], err)
	}
}

// The API says what it is, and each call in it exists.
func TestSchemaOfOurOwn(t *testing.T) {
	r := newRig(t)
	type schema struct {
		Definitions map[string]struct {
			Links []struct{ Method, Href, Scope string }
		}
	}
	got := into[schema](r.send("GET", "/schema", "").want(200))
	n := 0
	for _, d := range got.Definitions {
		for _, l := range d.Links {
			n++
			if l.Scope == "" || !strings.HasPrefix(l.Href, "/") {
				t.Errorf("%+v", l)
			}
		}
	}
	want := 0
	for _, resource := range resources {
		want += len(resource(&api{}))
	}
	if n != want || len(got.Definitions["dynos"].Links) == 0 {
		t.Errorf("%d links of %d", n, want)
	}
}
