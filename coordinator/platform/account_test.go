package platform

import "testing"

func TestAccount(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/account", "/users/~", "/users/ada@example.com", "/users/" + r.user.ID} {
		got := into[struct{ ID, Email string }](r.send("GET", path, "").want(200))
		if got.ID != r.user.ID || got.Email != "ada@example.com" {
			t.Errorf("%s: %+v", path, got)
		}
	}
	r.send("GET", "/users/eve@example.com", "").fails(404, "not_found")
}

// heroku login -i: an older token is the password, a new one comes back.
func TestAuthorization(t *testing.T) {
	r := newRig(t)
	got := into[shownAuthorization](r.send("POST", "/oauth/authorizations", `{"description":"Heroku CLI login","expires_in":2592000,"scope":["global"]}`).want(201))
	if got.User.Email != "ada@example.com" || len(got.Scope) != 1 || !got.lasts(2592000) {
		t.Errorf("%+v", got)
	}
	r.send("GET", "/account", "", "Authorization", "Bearer "+got.AccessToken.Token).want(200)
	if typed := into[shownAuthorization](r.send("POST", "/oauth/authorizations", `{"expires_in":"3600"}`).want(201)); !typed.lasts(3600) {
		t.Errorf("%+v", typed)
	}
	forever := into[shownAuthorization](r.send("POST", "/oauth/authorizations", `{"expires_in":null}`).want(201))
	if forever.AccessToken.ExpiresIn != nil || forever.AccessToken.Token == got.AccessToken.Token {
		t.Errorf("%+v", forever)
	}
	for _, bad := range []string{`0`, `-1`, `1e12`, `9223372036854775807`, `""`, `"soon"`, `"1e3"`, `{}`, `"`} {
		if got := r.send("POST", "/oauth/authorizations", `{"expires_in":`+bad+`}`); got.status/100 != 4 {
			t.Errorf("expires_in %s: %d %s", bad, got.status, got.text)
		}
	}
}
