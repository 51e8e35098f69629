package platform

import (
	"fmt"
	"slices"
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

// changes are requests that change something, one after the other, and what the
// trail says of each: the app's, or the account's where the path names no app.
// An id in braces is that of what the last POST made.
var changes = []struct{ pattern, body, said string }{
	{"PATCH /apps/{app}", `{"maintenance":true}`, "Enable maintenance mode"},
	{"PUT /apps/{app}/buildpack-installations", `{"updates":[{"buildpack":"heroku/go"}]}`, "Set 1 buildpacks"},
	{"PATCH /apps/{app}/config-vars", `{"PASSWORD":"hunter2"}`, "Set PASSWORD config vars (v4)"},
	{"POST /apps/{app}/releases", `{"release":"3"}`, "Rollback to v3 (v5)"},
	{"PATCH /apps/{app}/formation", `{"updates":[{"type":"web","quantity":"2"}]}`, "Scaled to web@2"},
	{"PATCH /apps/{app}/formation/{type}", `{"quantity":3}`, "Scaled to web@3"},
	{"POST /apps/{app}/collaborators", `{"user":"eve@example.com"}`, "Add eve@example.com as collaborator"},
	{"DELETE /apps/{app}/collaborators/{user}", "", "Remove eve@example.com as collaborator"},
	{"POST /apps/{app}/domains", `{"hostname":"www.example.com"}`, "Add domain www.example.com"},
	{"DELETE /apps/{app}/domains/{domain}", "", "Remove domain www.example.com"},
	{"PATCH /apps/{app}/features/{feature}", `{"enabled":false}`, "Disable feature preboot"},
	{"POST /apps/{app}/log-drains", `{"url":"https://u:hunter2@h/"}`, "Add log drain d."},
	{"DELETE /apps/{app}/log-drains/{drain}", "", "Remove log drain d."},
	{"POST /apps/{app}/webhooks", `{"url":"https://u:hunter2@h/","include":["api:app"],"level":"sync"}`, "Add webhook"},
	{"PATCH /apps/{app}/webhooks/{webhook}", `{"level":"notify"}`, "Update webhook"},
	{"DELETE /apps/{app}/webhooks/{webhook}", "", "Remove webhook"},
	{"POST /apps/{app}/scheduler-jobs", `{"command":"true","every":"hour","at":":30"}`, "Add scheduled job `true`"},
	{"PATCH /apps/{app}/scheduler-jobs/{job}", `{"command":"false"}`, "Update scheduled job `false`"},
	{"POST /apps/{app}/scheduler-jobs/{job}/actions/run", "", "Run scheduled job `false`"},
	{"DELETE /apps/{app}/scheduler-jobs/{job}", "", "Remove scheduled job `false`"},
	{"POST /apps/{app}/dynos", `{"command":"true"}`, "Starting process with command"},
	{"POST /apps/{app}/dynos/{dyno}", `{"command":"env"}`, "Running command `env` inside web.1"},
	{"DELETE /apps/{app}/dynos", "", "Restarted all dynos"},
	{"DELETE /apps/{app}/dynos/{dyno}", "", "Restarted web.1"},
	{"POST /apps/{app}/dynos/{dyno}/actions/stop", "", "Restarted web.1"},
	{"DELETE /apps/{app}/formations/{type}", "", "Restarted web"},
	{"POST /apps/{app}/formations/{type}/actions/stop", "", "Restarted web"},
	{"POST /apps/{app}/builds", "", "Start build"},
	{"DELETE /apps/{app}/builds/{build}", "", "Build cancelled"},
	{"DELETE /apps/{app}/build-cache", "", "Purge build cache"},
	{"POST /account/keys", `{"public_key":"` + keyLine + `"}`, "Add SSH key"},
	{"DELETE /account/keys/{key}", "", "Remove SSH key"},
	{"POST /oauth/authorizations", `{"description":"CI"}`, "Create authorization"},
	{"PATCH /oauth/authorizations/{id}", `{"description":"CI 2"}`, "Update authorization"},
	{"POST /oauth/authorizations/{id}/actions/regenerate-tokens", "", "Regenerate the token of authorization"},
	{"DELETE /oauth/authorizations/{id}", "", "Revoke authorization"},
	{"POST /account/app-transfers", `{"app":"audited","recipient":"eve@example.com"}`, "Offer the app to eve@example.com"},
	{"DELETE /account/app-transfers/{transfer}", "", "Cancel the transfer"},
	{"POST /apps", `{"name":"another"}`, "Create app another"},
	{"DELETE /apps/{app}", "", "Destroy app audited"},
}

// unaudited change nothing that is kept of an app or a user, or are another
// name of one above.
var unaudited = []string{
	"PATCH /account/features/{feature}", "PATCH /apps/{app}/domains/{domain}", // there are none; changes nothing
	"POST /apps/{app}/log-sessions", "POST /apps/{app}/sources", "POST /sources",
	"PATCH /account/app-transfers/{transfer}", // its recipient's: see TestTransfer
	"DELETE /oauth/sessions/{id}",             // revokes the caller's own token; see TestAuthorizations
}

// Every change is in a trail: who, what, from where, by which token. An
// endpoint that is in neither list fails this test.
func TestEveryChangeIsAudited(t *testing.T) {
	r := newRig(t)
	r.as("eve@example.com")
	app := r.app("audited")
	r.deploy(app, map[string]string{"web": "bin/web"})
	r.dynos.add(app, "web.1", 3, manifold.StateUp)
	blob := into[source](r.send("POST", "/sources", "").want(201)).Blob
	r.put(blob.Put, "code")
	made := ""
	listed := map[string]bool{}
	for _, x := range changes {
		listed[x.pattern] = true
		method, path, _ := strings.Cut(x.pattern, " ")
		trail := "/account/audit"
		if (strings.HasPrefix(path, "/apps/") || strings.HasPrefix(path, "/account/app-transfers")) && x.pattern != "DELETE /apps/{app}" {
			trail = "/apps/audited/audit"
		}
		if x.pattern == "POST /apps/{app}/builds" {
			x.body = `{"source_blob":{"url":"` + blob.Get + `"}}`
		}
		at := strings.NewReplacer("{app}", "audited", "{type}", "web", "{dyno}", "web.1", "{user}", "eve@example.com", "{feature}", "preboot",
			"{id}", made, "{domain}", made, "{key}", made, "{drain}", made, "{webhook}", made, "{job}", made, "{build}", made, "{transfer}", made).Replace(path)
		if strings.Contains(at, "{") {
			t.Fatalf("%s: what is %s?", x.pattern, at)
		}
		got := r.send(method, at, x.body)
		if got.status/100 != 2 {
			t.Errorf("%s: %d %s", x.pattern, got.status, got.text)
			continue
		}
		if method == "POST" && !strings.Contains(path, "/actions/") {
			made = into[struct{ ID string }](got).ID
		}
		if x.pattern == "DELETE /apps/{app}" {
			r.app("audited") // for the rest to look at
		}
		entries := into[[]shownEntry](r.send("GET", trail, "", "Range", "seq ..; order=desc,max=3"))
		i := slices.IndexFunc(entries, func(e shownEntry) bool { return strings.Contains(e.Action, x.said) })
		if i < 0 {
			t.Errorf("%s is audited as %+v, want %q", x.pattern, entries, x.said)
			continue
		}
		if e := entries[i]; e.User.Email != "ada@example.com" || e.From != "127.0.0.1" || len(e.RequestID) != 36 || len(e.Authorization.ID) != 36 || e.CreatedAt == "" {
			t.Errorf("%s is audited as %+v", x.pattern, e)
		}
		if text := r.send("GET", trail, "").text; strings.Contains(text, "hunter2") {
			t.Errorf("the trail holds a secret: %s", text)
		}
	}
	for _, resource := range resources {
		for pattern := range resource(&api{}) {
			if !strings.HasPrefix(pattern, "GET ") && !listed[pattern] && !slices.Contains(unaudited, pattern) {
				t.Errorf("%s is neither audited here nor said to change nothing", pattern)
			}
		}
	}
	if left, err := r.store.Audit(t.Context(), app.ID); err != nil || len(left) > 0 {
		t.Errorf("a destroyed app leaves %d entries (%v)", len(left), err)
	}
}

// A trail keeps its newest entries and no more.
func TestAuditIsBounded(t *testing.T) {
	r := newRig(t)
	const more = 50
	ctx := store.By(t.Context(), &store.Author{ID: r.user.ID, Email: r.user.Email})
	for i := range store.MaxAudit + more {
		if err := r.store.Record(ctx, r.user.ID, fmt.Sprint(i)); err != nil {
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
