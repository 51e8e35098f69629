package platform

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"manifold"
)

type shownApp struct {
	ID, Name string
	Owner    struct{ ID, Email string }
}

type shownCollaborator struct {
	ID, Role string
	User     struct{ ID, Email string }
}

// An app is shared, used by the other, and taken back.
func TestCollaborators(t *testing.T) {
	ada := newRig(t)
	eve := ada.as("eve@example.com")
	app := ada.app("shared")
	const people = "/apps/shared/collaborators"
	eve.send("GET", "/apps/shared", "").fails(404, "not_found")
	eve.send("POST", people, `{"user":"eve@example.com"}`).fails(404, "not_found")

	made := into[shownCollaborator](ada.send("POST", people, `{"user":"Eve@example.com","silent":true}`).want(201))
	if made.Role != "collaborator" || made.User.ID != eve.user.ID {
		t.Errorf("added %+v", made)
	}
	ada.said(app, "Add eve@example.com as collaborator by user ada@example.com")
	if again := into[shownCollaborator](ada.send("POST", people, `{"user":{"id":"`+eve.user.ID+`"}}`).want(201)); again.ID != made.ID {
		t.Errorf("added again as %+v", again)
	}
	for _, r := range []*rig{ada, eve} {
		all := into[[]shownCollaborator](r.send("GET", people, "").want(200))
		if len(all) != 2 {
			t.Errorf("collaborators %+v", all)
		}
		one := into[shownApp](r.send("GET", "/apps/shared", "").want(200))
		if one.Owner.Email != "ada@example.com" || one.Owner.ID != ada.user.ID {
			t.Errorf("%s sees the owner %+v", r.user.Email, one.Owner)
		}
		if list := into[[]shownApp](r.send("GET", "/users/~/apps", "").want(200)); len(list) != 1 || list[0].Owner.Email != "ada@example.com" {
			t.Errorf("%s lists %+v", r.user.Email, list)
		}
	}
	eve.send("PATCH", "/apps/shared/config-vars", `{"A":"1"}`).want(200)
	eve.send("PATCH", "/apps/shared", `{"name":"shared","maintenance":true}`).want(200)
	for _, req := range [][3]string{
		{"DELETE", "/apps/shared", ""}, {"PATCH", "/apps/shared", `{"name":"mine-now"}`},
		{"POST", people, `{"user":"ada@example.com"}`}, {"DELETE", people + "/ada@example.com", ""},
	} {
		if got := eve.send(req[0], req[1], req[2]); got.status != 403 && got.status != 422 {
			t.Errorf("a collaborator may %s %s: %d", req[0], req[1], got.status)
		}
	}
	eve.send("GET", people+"/"+made.ID, "").want(200)

	ada.send("DELETE", people+"/eve@example.com", "").want(200)
	ada.said(app, "Remove eve@example.com as collaborator by user ada@example.com")
	eve.send("GET", "/apps/shared", "").fails(404, "not_found")
	if list := into[[]shownApp](eve.send("GET", "/apps", "").want(200)); len(list) != 0 {
		t.Errorf("a removed collaborator lists %+v", list)
	}
	ada.send("POST", people, `{"user":"eve@example.com"}`).want(201)
	eve.send("DELETE", people+"/eve@example.com", "").want(200) // she leaves
	ada.send("DELETE", people+"/eve@example.com", "").fails(404, "not_found", "heroku access")
}

func TestBadCollaborators(t *testing.T) {
	r := newRig(t)
	r.app("shared")
	for _, body := range []string{`{}`, `{"user":""}`, `{"user":"nobody@example.com"}`, `{"user":"@"}`, `{"user":"../users/x"}`, `{"user":{}}`} {
		r.send("POST", "/apps/shared/collaborators", body).fails(422, "invalid_params", "manifold-coordinator user add")
	}
	r.send("POST", "/apps/shared/collaborators", `{"user":7}`).fails(400, "bad_request")
	r.send("POST", "/apps/shared/collaborators", `{"user":"ada@example.com"}`).fails(422, "invalid_params", "owns shared")
	r.send("DELETE", "/apps/shared/collaborators/ada@example.com", "").fails(422, "invalid_params", "owns")
}

// A destroyed app leaves nothing in the rooms beside.
func TestDestroyForgets(t *testing.T) {
	var forgotten []string
	r := newRig(t, func(c *Config) {
		forget := c.Forget
		c.Forget = func(app string) error {
			forgotten = append(forgotten, app)
			return forget(app)
		}
	})
	app := r.app("doomed")
	r.send("DELETE", "/apps/doomed", "").want(200)
	if len(forgotten) != 1 || forgotten[0] != app.ID {
		t.Errorf("forgotten: %v", forgotten)
	}
}

// Each scope opens what it says and nothing more.
func TestScopes(t *testing.T) {
	r := newRig(t)
	app := r.app("scoped")
	r.deploy(app, map[string]string{"web": "bin/web"})
	calls := []struct {
		need, method, path, body string
	}{
		{"identity", "GET", "/account", ""},
		{"identity", "GET", "/account/rate-limits", ""},
		{"read", "GET", "/apps", ""},
		{"read", "GET", "/apps/scoped/releases", ""},
		{"read", "GET", "/stacks", ""},
		{"read", "POST", "/apps/scoped/log-sessions", "{}"},
		{"write", "PATCH", "/apps/scoped/formation", `{"updates":[{"type":"web","quantity":1}]}`},
		{"write", "DELETE", "/apps/scoped/dynos", ""},
		{"write", "POST", "/apps", ""},
		{"read-protected", "GET", "/apps/scoped/config-vars", ""},
		{"read-protected", "GET", "/apps/scoped/releases/1/config-vars", ""},
		{"write-protected", "PATCH", "/apps/scoped/config-vars", "{}"},
		{"write-protected", "POST", "/apps/scoped/dynos", `{"command":"env"}`},
		{"global", "GET", "/oauth/authorizations", ""},
		{"global", "POST", "/oauth/authorizations", "{}"},
		{"global", "GET", "/account/keys", ""},
	}
	opens := map[string]string{
		"global": "identity read write read-protected write-protected global", "identity": "identity", "read": "identity read",
		"write": "identity read write", "read-protected": "identity read read-protected",
		"write-protected": "identity read write read-protected write-protected",
	}
	for scope, may := range opens {
		_, token, err := r.store.Authorize(t.Context(), r.user, "", []string{scope}, 0)
		if err != nil {
			t.Fatal(err)
		}
		allowed := map[string]bool{}
		for need := range strings.FieldsSeq(may) {
			allowed[need] = true
		}
		for _, call := range calls {
			got := r.send(call.method, call.path, call.body, "Authorization", "Bearer "+token)
			if allowed[call.need] {
				if got.status/100 != 2 {
					t.Errorf("%s: %s %s: %d %s", scope, call.method, call.path, got.status, got.text)
				}
			} else {
				got.fails(403, "forbidden", scope, call.need)
			}
		}
	}
}

// Who lost access reads no line more: neither by a stream that is open nor by a
// URL they kept. Others' streams go on.
func TestRemovedAccessEndsLogStreams(t *testing.T) {
	ada := newRig(t)
	eve := ada.as("eve@example.com")
	app := ada.app("shared")
	ada.send("POST", "/apps/shared/collaborators", `{"user":"eve@example.com"}`).want(201)
	open := func(r *rig) (url string, lines *bufio.Scanner) {
		t.Helper()
		url = into[struct {
			URL string `json:"logplex_url"`
		}](r.send("POST", "/apps/shared/log-sessions", `{"tail":true}`).want(201)).URL
		res, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		return url, bufio.NewScanner(res.Body)
	}
	reads := func(lines *bufio.Scanner, words string) bool {
		for lines.Scan() {
			if strings.Contains(lines.Text(), words) {
				return true
			}
		}
		return false
	}
	url, hers := open(eve)
	_, mine := open(ada)
	for _, lines := range []*bufio.Scanner{hers, mine} {
		if !reads(lines, "Add eve@example.com") {
			t.Fatal("a stream does not begin")
		}
	}
	ada.send("DELETE", "/apps/shared/collaborators/eve@example.com", "").want(200)
	ada.hub.Write(app.ID, manifold.SourceApp, "web.1", "not for eve")
	if reads(hers, "not for eve") {
		t.Error("a stream goes on for one who lost access")
	}
	if !reads(mine, "not for eve") {
		t.Error("the owner's stream ended too")
	}
	if res, err := http.Get(url); err != nil || res.StatusCode != 404 {
		t.Errorf("the URL of one who lost access: %v %v", res, err)
	}
}

// removing takes a collaborator away in the moment before their session is made.
type removing struct {
	Logs
	remove func()
}

func (l removing) NewSession(app, user string, lines int, tail bool, source, dyno string) string {
	l.remove()
	return l.Logs.NewSession(app, user, lines, tail, source, dyno)
}

func TestRemovedAccessEndsLogSessionsUnderWay(t *testing.T) {
	remove := func() {}
	ada := newRig(t, func(c *Config) { c.Logs = removing{c.Logs, func() { remove() }} })
	eve := ada.as("eve@example.com")
	ada.app("shared")
	ada.send("POST", "/apps/shared/collaborators", `{"user":"eve@example.com"}`).want(201)
	remove = func() { ada.send("DELETE", "/apps/shared/collaborators/eve@example.com", "").want(200) }
	eve.send("POST", "/apps/shared/log-sessions", `{"tail":true}`).fails(404, "not_found")
}
