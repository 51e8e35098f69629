package platform

import (
	"fmt"
	"testing"

	"manifold"
)

type shownDomain struct {
	ID, Hostname, Kind, Status string
	Cname                      *string
}

func TestDomains(t *testing.T) {
	r := newRig(t)
	app := r.app("named")
	const path = "/apps/named/domains"
	for sent, kept := range map[string]string{"www.Example.com": "www.example.com", "*.example.com": "*.example.com", "münchen.example": "xn--mnchen-3ya.example", "*.bücher.example": "*.xn--bcher-kva.example"} {
		made := into[shownDomain](r.send("POST", path, `{"hostname":"`+sent+`","sni_endpoint":null}`).want(201))
		if made.Hostname != kept || made.Kind != "custom" || made.Status != "none" || made.Cname == nil || *made.Cname != "named.localhost" {
			t.Errorf("%s became %+v", sent, made)
		}
		r.said(app, "Add domain "+kept+" by user ada@example.com")
		for _, name := range []string{kept, made.ID} {
			if got := into[shownDomain](r.send("GET", path+"/"+name, "").want(200)); got.ID != made.ID {
				t.Errorf("%s is %+v", name, got)
			}
		}
		r.send("PATCH", path+"/"+kept, `{"sni_endpoint":null}`).want(200)
		r.send("PATCH", path+"/"+kept, `{"sni_endpoint":"x"}`).fails(422, "invalid_params", "plain HTTP")
		r.send("POST", path, `{"hostname":"`+sent+`"}`).fails(422, "invalid_params", "already")
	}
	if all := into[[]shownDomain](r.send("GET", path, "", "Range", "id ..; max=1000;").want(200)); len(all) != 5 {
		t.Errorf("domains %+v", all)
	}
	if gone := into[shownDomain](r.send("DELETE", path+"/www.example.com", "").want(200)); gone.Hostname != "www.example.com" {
		t.Errorf("removed %+v", gone)
	}
	r.said(app, "Remove domain www.example.com by user ada@example.com")
	r.send("GET", path+"/www.example.com", "").fails(404, "not_found", "heroku domains")
	r.send("DELETE", path+"/named.localhost", "").fails(422, "invalid_params", "by itself")
	for _, bad := range []string{"", "localhost", "x.localhost", "*.localhost", "named.localhost", "127.0.0.1", "a b", "example", "*.com", "../etc", "http://x.y", "x.y:80"} {
		r.send("POST", path, `{"hostname":"`+bad+`"}`).fails(422, "invalid_params", "Hostname")
	}
}

// A name is one app's; parts of a wildcard are its owner's.
func TestDomainsOfOthers(t *testing.T) {
	ada := newRig(t)
	eve := ada.as("eve@example.com")
	ada.app("first")
	ada.app("second")
	eve.app("third")
	add := func(r *rig, app, host string) reply {
		return r.send("POST", "/apps/"+app+"/domains", `{"hostname":"`+host+`"}`)
	}
	add(ada, "first", "shop.example.com").want(201)
	add(ada, "second", "shop.example.com").fails(422, "invalid_params", "in use by another app")
	add(eve, "third", "*.example.com").fails(422, "invalid_params", "in use by another app")
	add(ada, "second", "*.example.com").want(201) // the exact name stays the first's
	add(eve, "third", "pay.example.com").fails(422, "invalid_params", "in use by another app")
	add(eve, "third", "a.pay.example.com").want(201) // no wildcard covers two labels
	add(eve, "third", "example.com").want(201)

	ada.send("DELETE", "/apps/first", "").want(200)
	ada.send("DELETE", "/apps/second", "").want(200)
	add(eve, "third", "*.example.com").want(201)
	add(eve, "third", "shop.example.com").want(201)

	for i := range manifold.MaxDomains - 4 {
		add(eve, "third", fmt.Sprintf("n%d.example.org", i)).want(201)
	}
	add(eve, "third", "one-more.example.org").fails(422, "invalid_params", "at most 100")
	eve.send("DELETE", "/apps/third", "").want(200) // and all of them are free again
	ada.app("fourth")
	add(ada, "fourth", "n7.example.org").want(201)
}

func TestFeatures(t *testing.T) {
	r := newRig(t)
	app := r.app("featured")
	type feature struct {
		ID, Name, State, Description string
		Enabled                      bool
	}
	all := into[[]feature](r.send("GET", "/apps/featured/features", "").want(200))
	if len(all) != len(manifold.Features()) || all[0].State != "general" || all[0].Description == "" {
		t.Fatalf("features %+v", all)
	}
	for _, f := range all {
		path := "/apps/featured/features/" + f.Name
		want := !f.Enabled
		for range 2 { // to say it again is no change
			if got := into[feature](r.send("PATCH", path, fmt.Sprintf(`{"enabled":%v}`, want)).want(200)); got.Enabled != want {
				t.Errorf("%s: %+v, want %v", f.Name, got, want)
			}
		}
		kept, err := r.store.App(t.Context(), app.ID)
		if err != nil || kept.Feature(f.Name) != want {
			t.Errorf("%s is kept as %v (%v)", f.Name, kept.Feature(f.Name), err)
		}
		if got := into[feature](r.send("GET", "/apps/featured/features/"+f.ID, "").want(200)); got.Enabled != want {
			t.Errorf("%s: %+v, want %v", f.Name, got, want)
		}
		r.send("PATCH", "/account/features/"+f.Name, `{"enabled":true}`).fails(404, "not_found")
		r.send("PATCH", path, `{}`).fails(422, "invalid_params", "Enabled")
		r.send("PATCH", path, `{"enabled":"yes"}`).fails(400, "bad_request")
	}
	r.send("GET", "/apps/featured/features/none", "").fails(404, "not_found", all[0].Name)
}
