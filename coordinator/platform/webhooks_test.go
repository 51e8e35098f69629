package platform

import (
	"errors"
	"strings"
	"testing"

	"manifold"
)

type webhookEntry struct {
	ID, URL, Level string
	Include        []string
}

func TestWebhooks(t *testing.T) {
	r := newRig(t)
	app := r.app("hooked")
	const path = "/apps/hooked/webhooks"
	made := r.send("POST", path, `{"url":"https://u:pass@example.com/in","include":["api:release","api:build","api:release"],"level":"sync","authorization":"Bearer hunter2"}`).want(201)
	w := into[webhookEntry](made)
	secret := made.header.Get("Heroku-Webhook-Secret")
	if len(secret) != 64 || w.URL != "https://u:pass@example.com/in" || strings.Join(w.Include, " ") != "api:build api:release" || w.Level != "sync" {
		t.Errorf("created %+v with secret %q", w, secret)
	}
	r.said(app, "Add webhook "+w.ID+" by user ada@example.com")
	for _, got := range []reply{made, r.send("GET", path, "").want(200), r.send("GET", path+"/"+w.ID, "").want(200)} {
		if !strings.Contains(got.text, w.ID) || strings.Contains(got.text, "hunter2") || strings.Contains(got.text, secret) {
			t.Errorf("shown %s", got.text)
		}
	}
	if changed := into[webhookEntry](r.send("PATCH", path+"/"+w.ID, `{"url":"http://h/","include":["api:release"],"level":"notify","secret":"s"}`).want(200)); changed.URL != "http://h/" || len(changed.Include) != 1 {
		t.Errorf("changed to %+v", changed)
	}
	if kept, err := r.store.Webhook(t.Context(), app.ID, w.ID); err != nil || kept.Secret != "s" || kept.Authorization != "Bearer hunter2" {
		t.Errorf("kept %+v, %v", kept, err)
	}
	if gone := into[webhookEntry](r.send("DELETE", path+"/"+w.ID, "").want(200)); gone.ID != w.ID {
		t.Errorf("removed %+v", gone)
	}
	trail := r.send("GET", "/apps/hooked/audit", "").want(200).text
	for _, did := range []string{"Add", "Update", "Remove"} {
		if !strings.Contains(trail, did+" webhook "+w.ID) {
			t.Errorf("the trail does not say %s: %s", did, trail)
		}
	}
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		r.send(method, path+"/"+w.ID, "").fails(404, "not_found", "heroku webhooks")
	}
}

func TestWebhooksThatCannotBe(t *testing.T) {
	r := newRig(t)
	r.app("hooked")
	const good = `"include":["api:release"],"level":"notify"`
	for body, words := range map[string]string{
		``: "needs a url", `{"url":"http://h/"}`: "needs a url", `{"url":7}`: "", `{"url":"ftp://h",` + good + `}`: "must begin with",
		`{"url":"syslog://h:514",` + good + `}`: "must begin with", `{"url":"http://h/\r\nX: y",` + good + `}`: "escaped",
		`{"url":"http://h/","include":[],"level":"notify"}`: "api:build, api:collaborator", `{"url":"http://h/","include":["api:addon"],"level":"notify"}`: "api:release, dyno",
		`{"url":"http://h/","include":"api:release","level":"notify"}`: "", `{"url":"http://h/","include":["api:release"],"level":"x"}`: "notify or sync",
		`{"url":"http://h/","authorization":"a\nb",` + good + `}`: "printable",
	} {
		if got := r.send("POST", "/apps/hooked/webhooks", body); got.status/100 != 4 || !strings.Contains(got.text, words) {
			t.Errorf("%s: %d %s", body, got.status, got.text)
		}
	}
	for range manifold.MaxWebhooks {
		r.send("POST", "/apps/hooked/webhooks", `{"url":"http://h/",`+good+`}`).want(201)
	}
	r.send("POST", "/apps/hooked/webhooks", `{"url":"http://h/",`+good+`}`).fails(422, "invalid_params", "the most it can have")
	strangers := r.strangersApp()
	for _, path := range []string{"webhooks", "webhooks/x", "webhook-deliveries", "webhook-deliveries/x", "webhook-events", "webhook-events/x"} {
		r.send("GET", "/apps/"+strangers.Name+"/"+path, "").fails(404, "not_found")
	}
}

func TestWebhookDeliveries(t *testing.T) {
	r := newRig(t)
	app := r.app("hooked")
	w := into[webhookEntry](r.send("POST", "/apps/hooked/webhooks", `{"url":"http://h/","include":["api:release"],"level":"notify"}`).want(201))
	r.send("PATCH", "/apps/hooked/config-vars", `{"A":"hunter2"}`).want(200)
	r.send("PATCH", "/apps/hooked/config-vars", `{"B":"hunter2"}`).want(200)
	type delivery struct {
		ID, Status    string
		Event         struct{ ID, Include string }
		Webhook       struct{ ID, Level string }
		NumAttempts   int     `json:"num_attempts"`
		NextAttemptAt *string `json:"next_attempt_at"`
		LastAttempt   *struct {
			Code       *int
			Status     string
			ErrorClass *string `json:"error_class"`
		} `json:"last_attempt"`
	}
	all := into[[]delivery](r.send("GET", "/apps/hooked/webhook-deliveries", "").want(200))
	if len(all) != 2 || all[0].Status != "pending" || all[0].Webhook.ID != w.ID || all[0].Event.Include != "api:release" || all[0].NextAttemptAt == nil || all[0].LastAttempt != nil {
		t.Fatalf("deliveries %+v", all)
	}
	waiting, err := r.store.WaitingDeliveries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range []manifold.WebhookAttempt{{ID: w.ID, Code: 503}, {ID: w.ID, Error: "timeout"}} {
		d, err := r.store.Delivery(t.Context(), waiting[i])
		d.Attempts, d.Status, d.Last = 1, manifold.DeliveryRetrying, &a
		if err := errors.Join(err, r.store.PutDelivery(t.Context(), d)); err != nil {
			t.Fatal(err)
		}
	}
	newest := into[[]delivery](r.send("GET", "/apps/hooked/webhook-deliveries?eq[status]=retrying", "", "Range", "seq ..; order=desc,max=1000").want(200))
	if len(newest) != 2 || newest[0].ID != all[1].ID || newest[0].LastAttempt == nil || *newest[0].LastAttempt.ErrorClass != "timeout" || *newest[1].LastAttempt.Code != 503 {
		t.Errorf("newest first %+v", newest)
	}
	if failed := into[[]delivery](r.send("GET", "/apps/hooked/webhook-deliveries?eq[status]=failed", "").want(200)); len(failed) != 0 {
		t.Errorf("failed %+v", failed)
	}
	if one := into[delivery](r.send("GET", "/apps/hooked/webhook-deliveries/"+all[0].ID, "").want(200)); one.NumAttempts != 1 || one.LastAttempt.Status != "failed" {
		t.Errorf("one is %+v", one)
	}
	events := r.send("GET", "/apps/hooked/webhook-events", "").want(200)
	one := r.send("GET", "/apps/hooked/webhook-events/"+all[1].Event.ID, "").want(200)
	for _, want := range []string{`"Set B config vars"`, `"resource": "release"`, `"create"`, r.user.ID, r.user.Email, app.ID} {
		if !strings.Contains(one.text, want) || !strings.Contains(events.text, want) {
			t.Errorf("events do not say %s: %s", want, one.text)
		}
	}
	if strings.Contains(events.text, "hunter2") {
		t.Errorf("events hold a config var's value: %s", events.text)
	}
	for _, path := range []string{"webhook-deliveries", "webhook-events"} {
		r.send("GET", "/apps/hooked/"+path+"/"+w.ID, "").fails(404, "not_found", "heroku webhooks:deliveries")
	}
}
