package platform

import (
	"strings"
	"testing"
)

type shownTransfer struct {
	ID, State        string
	App              struct{ Name string }
	Owner, Recipient struct{ Email string }
}

// An app is offered, declined, offered again, and is another's once that one
// says so; who had it stays as a collaborator.
func TestTransfer(t *testing.T) {
	ada := newRig(t)
	eve, mallory := ada.as("eve@example.com"), ada.as("mallory@example.com")
	app := ada.app("precious")
	const path = "/account/app-transfers"
	offer := func() shownTransfer {
		t.Helper()
		return into[shownTransfer](ada.send("POST", path, `{"app":"precious","recipient":"eve@example.com"}`).want(201))
	}
	x := offer()
	if x.State != "pending" || x.App.Name != "precious" || x.Owner.Email != "ada@example.com" || x.Recipient.Email != "eve@example.com" {
		t.Errorf("offered %+v", x)
	}
	ada.said(app, "Offer the app to eve@example.com by user ada@example.com")
	eve.send("GET", "/apps/precious", "").fails(404, "not_found") // it is not hers yet
	for body, words := range map[string]string{
		`{}`: "Name the app", `{"app":"precious"}`: "Name the app", `{"app":"precious","recipient":"none@example.com"}`: "There is no user",
		`{"app":"precious","recipient":"ada@example.com"}`: "somebody else", `{"app":"precious","recipient":"eve@example.com"}`: "offered to somebody already",
	} {
		ada.send("POST", path, body).fails(422, "invalid_params", words)
	}
	ada.send("POST", path, `{"app":"../x","recipient":"eve@example.com"}`).fails(404, "not_found")
	mallory.send("POST", path, `{"app":"precious","recipient":"mallory@example.com"}`).fails(404, "not_found")
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		mallory.send(method, path+"/"+x.ID, `{"state":"accepted"}`).fails(404, "not_found")
	}
	ada.send("PATCH", path+"/"+x.ID, `{"state":"accepted"}`).fails(422, "invalid_params", "Only who is offered")
	eve.send("DELETE", path+"/"+x.ID, "").fails(422, "invalid_params", "Only who offers")
	eve.send("PATCH", path+"/"+x.ID, `{"state":"mine"}`).fails(422, "invalid_params", "accepted or declined")
	if got := into[shownTransfer](eve.send("PATCH", path+"/precious", `{"state":"declined"}`).want(200)); got.State != "declined" {
		t.Errorf("declined %+v", got)
	}
	eve.send("PATCH", path+"/"+x.ID, `{"state":"accepted"}`).fails(404, "not_found", "waits")
	ada.send("DELETE", path+"/"+offer().ID, "").want(200)

	x = offer()
	for _, r := range []*rig{ada, eve} {
		if all := into[[]shownTransfer](r.send("GET", path, "").want(200)); len(all) != 1 || all[0].ID != x.ID {
			t.Errorf("%s lists %+v", r.user.Email, all)
		}
		r.send("GET", path+"/"+x.ID, "").want(200)
	}
	if got := into[shownTransfer](eve.send("PATCH", path+"/"+x.ID, `{"state":"accepted"}`).want(200)); got.State != "accepted" {
		t.Errorf("accepted %+v", got)
	}
	if shown := into[shownApp](eve.send("GET", "/apps/precious", "").want(200)); shown.Owner.Email != "eve@example.com" {
		t.Errorf("the owner is %+v", shown.Owner)
	}
	ada.send("GET", "/apps/precious", "").want(200)
	ada.send("DELETE", "/apps/precious", "").fails(403, "forbidden", "only its owner")
	trail := eve.send("GET", "/apps/precious/audit", "").want(200).text
	for _, words := range []string{"Offer the app to eve", "Decline the transfer", "Cancel the transfer", "Transferred from ada@example.com to eve@example.com"} {
		if !strings.Contains(trail, words) {
			t.Errorf("the trail does not say %q: %s", words, trail)
		}
	}
	eve.send("DELETE", "/apps/precious", "").want(200)
	if all := into[[]shownTransfer](ada.send("GET", path, "").want(200)); len(all) != 0 {
		t.Errorf("a destroyed app leaves %+v", all)
	}
}
