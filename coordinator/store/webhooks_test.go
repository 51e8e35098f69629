package store

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"manifold"
)

func newWebhook(t *testing.T, s *Store, app manifold.App, include ...string) manifold.Webhook {
	t.Helper()
	return must(s.AddWebhook(t.Context(), manifold.Webhook{
		App: app.ID, URL: "https://u:hunter2@h/", Include: include, Level: manifold.WebhookNotify, Authorization: "Bearer hunter2",
	}))(t)
}

func TestWebhooks(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "hooked")
	w := newWebhook(t, s, app, manifold.EventRelease)
	if len(w.Secret) != 64 {
		t.Errorf("drew the secret %q", w.Secret)
	}
	if got := must(s.Webhook(t.Context(), app.ID, w.ID))(t); got.Secret != w.Secret || got.URL != w.URL {
		t.Errorf("found %+v, want %+v", got, w)
	}
	for _, r := range must(s.engine.list(t.Context(), webhookRoot))(t) {
		if bytes.Contains(r.value, []byte("hunter2")) || bytes.Contains(r.value, []byte(w.Secret)) {
			t.Errorf("%s is readable: %s", r.key, r.value)
		}
	}
	changed := must(s.UpdateWebhook(t.Context(), app.ID, w.ID, func(w *manifold.Webhook) { w.Level, w.ID = manifold.WebhookSync, "x" }))(t)
	if changed.Level != manifold.WebhookSync || changed.ID != w.ID || changed.Secret != w.Secret {
		t.Errorf("changed to %+v", changed)
	}
	var invalid *manifold.InvalidError
	if _, err := s.UpdateWebhook(t.Context(), app.ID, w.ID, func(w *manifold.Webhook) { w.Level = "" }); !errors.As(err, &invalid) {
		t.Errorf("a level that is none: %v", err)
	}
	must(s.RemoveWebhook(t.Context(), app.ID, w.ID))(t)
	_, err := s.RemoveWebhook(t.Context(), app.ID, w.ID)
	wantErr(t, "removed twice", err, ErrNotFound)
	var all sync.WaitGroup
	for range 2 * manifold.MaxWebhooks {
		all.Go(func() {
			_, err := s.AddWebhook(t.Context(), manifold.Webhook{App: app.ID, URL: "http://h/", Include: []string{manifold.EventBuild}, Level: manifold.WebhookNotify})
			if invalid := new(manifold.InvalidError); err != nil && !errors.As(err, &invalid) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := len(must(s.Webhooks(t.Context(), app.ID))(t)); n != manifold.MaxWebhooks {
		t.Errorf("%d webhooks, want %d", n, manifold.MaxWebhooks)
	}
}

// What happens to an app is written down for its webhooks in the same step,
// without what is secret, and survives a restart.
func TestWebhookEvents(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	app, other := newApp(t, s, "hooked"), newApp(t, s, "other")
	both, builds := newWebhook(t, s, app, manifold.EventRelease, manifold.EventBuild), newWebhook(t, s, app, manifold.EventBuild)
	must(s.AddRelease(t.Context(), other.ID, ada, setVar("A", "b")))(t)
	must(s.AddRelease(t.Context(), app.ID, ada, setVar("A", "hunter2")))(t)
	b := manifold.Build{ID: "b1", App: app.ID, User: ada.Email, UserID: ada.ID, Status: manifold.BuildPending, Output: "hunter2", Buildpacks: []string{"https://hunter2@h/"}}
	for _, status := range []string{manifold.BuildPending, manifold.BuildPending, manifold.BuildSucceeded} {
		b.Status = status
		must(s.PutBuild(t.Context(), &b))(t)
	}
	deployed := must(s.Deploy(t.Context(), app.ID, manifold.Slug{ProcessTypes: map[string]string{manifold.TypeRelease: "true"}}, "Deploy 1", ada))(t)
	must(0, s.EndPhase(t.Context(), ReleasePhase{App: app.ID, Release: deployed.ID, Version: deployed.Version}, true))(t)
	s.Close()
	s = open(t, dir)
	var got []string
	for _, d := range must(s.WebhookDeliveries(t.Context(), app.ID))(t) {
		e := d.Event
		line := fmt.Sprintf("%d %s %s by %s to %t", d.Seq, e.Include, e.Action, e.Actor, d.Webhook == both.ID)
		if e.Release != nil {
			line += fmt.Sprintf(": v%d %s %t", e.Release.Version, e.Release.Status, e.Serves)
		} else {
			line += ": " + e.Build.Status
		}
		got = append(got, line)
		if d.Webhook != both.ID && d.Webhook != builds.ID || d.Status != manifold.DeliveryPending || d.NextAt.IsZero() {
			t.Errorf("delivery %+v", d)
		}
	}
	want := []string{
		"1 api:release create by ada@example.com to true: v3 succeeded true",
		"2 api:build create by ada@example.com to true: pending", "3 api:build create by ada@example.com to false: pending",
		"4 api:build update by ada@example.com to true: succeeded", "5 api:build update by ada@example.com to false: succeeded",
		"6 api:release create by ada@example.com to true: v4 pending false",
		"7 api:release update by ada@example.com to true: v4 succeeded true",
	}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("deliveries\n%q, want\n%q", got, want)
	}
	for _, r := range must(s.engine.list(t.Context(), webhookRoot))(t) {
		if bytes.Contains(r.value, []byte("hunter2")) {
			t.Errorf("%s holds a secret: %s", r.key, r.value)
		}
	}
	if n := len(must(s.WaitingDeliveries(t.Context()))(t)); n != len(want) {
		t.Errorf("%d wait, want %d", n, len(want))
	}
	must(0, s.DeleteApp(t.Context(), app.ID))(t)
	if left := must(s.engine.list(t.Context(), webhookRoot))(t); len(left) > 0 {
		t.Errorf("a deleted app left %d records, first %s", len(left), left[0].key)
	}
}

// A change of an app, its formation, its domains or its people is told with who
// made it and with what was before; who made it is in the audit trail too.
func TestWebhookEventsOfChanges(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "hooked")
	user, _, err := s.CreateUser(t.Context(), "eve@example.com")
	if err != nil {
		t.Fatal(err)
	}
	must(s.Deploy(t.Context(), app.ID, manifold.Slug{ProcessTypes: map[string]string{"web": "bin/web"}}, "Deploy 1", ada))(t)
	newWebhook(t, s, app, manifold.EventApp, manifold.EventFormation, manifold.EventDomain, manifold.EventCollaborator, manifold.EventDyno)
	by := &Author{ID: user.ID, Email: user.Email}
	ctx := By(t.Context(), by)
	change := func(f func(*manifold.App)) {
		t.Helper()
		must(s.UpdateApp(ctx, app.ID, func(app *manifold.App) error { f(app); return nil }))(t)
	}
	change(func(app *manifold.App) { app.Buildpacks = []string{"https://hunter2@h/"} })
	change(func(app *manifold.App) { app.Name, app.Maintenance = "other-name", true })
	change(func(app *manifold.App) {
		app.Domains = append(app.Domains, manifold.Domain{ID: "d", Hostname: "www.example.com"})
	})
	change(func(app *manifold.App) { app.Domains = nil })
	change(func(app *manifold.App) {
		app.Collaborators = append(app.Collaborators, manifold.Collaborator{User: user.ID})
	})
	change(func(app *manifold.App) { app.Owner, app.Collaborators = user.ID, nil })
	for _, quantity := range []int{2, 2} { // the second changes nothing
		must(s.UpdateFormation(ctx, app.ID, func(f []manifold.Formation) ([]manifold.Formation, error) {
			f[0].Quantity = quantity
			return f, nil
		}))(t)
	}
	up := &manifold.WebhookDyno{ID: "x", Name: "web.1", State: manifold.StateUp}
	must(0, s.DynoEvent(t.Context(), app.ID, nil, up))(t)
	must(0, s.DynoEvent(t.Context(), app.ID, up, nil))(t)
	var got []string
	for _, d := range must(s.WebhookDeliveries(t.Context(), app.ID))(t) {
		line := d.Event.Include + " " + d.Event.Action + " by " + d.Event.Actor
		if was := d.Event.Was; was != nil && was.Of != nil {
			line += ": " + was.Of.Name + " of " + was.Email + ", " + d.Event.Of.Name + " of " + d.Event.Email
		}
		got = append(got, line)
	}
	want := []string{
		"api:app update by eve@example.com: hooked of , other-name of ", // ada is no user of this store
		"api:domain create by eve@example.com", "api:domain destroy by eve@example.com", "api:collaborator create by eve@example.com",
		"api:app update by eve@example.com: other-name of , other-name of eve@example.com", "api:collaborator destroy by eve@example.com",
		"api:formation update by eve@example.com", "dyno create by ", "dyno destroy by ",
	}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("told\n%q, want\n%q", got, want)
	}
	words := by.Changes(app.ID)
	trail := must(s.Audit(t.Context(), app.ID))(t)
	want = []string{
		"Set 1 buildpacks", "Renamed from hooked to other-name", "Enable maintenance mode", "Add domain www.example.com", "Remove domain www.example.com",
		"Add eve@example.com as collaborator", "Transferred from  to eve@example.com", "Remove eve@example.com as collaborator", "Scaled to web@2:Standard-1X",
	}
	if fmt.Sprintf("%q", words) != fmt.Sprintf("%q", want) || len(trail) != len(want) || trail[len(want)-1].Action != want[len(want)-1] || len(by.Changes(app.ID)) > 0 {
		t.Errorf("noted\n%q, want\n%q; the trail: %+v", words, want, trail)
	}
	for _, r := range must(s.engine.list(t.Context(), webhookRoot))(t) {
		if bytes.Contains(r.value, []byte("hunter2")) {
			t.Errorf("%s holds a secret: %s", r.key, r.value)
		}
	}
}

// An app's deliveries are a ring, and one whose place was taken is gone.
func TestWebhookDeliveriesAreBounded(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "hooked")
	for range manifold.MaxWebhooks {
		newWebhook(t, s, app, manifold.EventRelease)
	}
	must(s.AddRelease(t.Context(), app.ID, ada, setVar("N", "0")))(t)
	first := must(s.WaitingDeliveries(t.Context()))(t)[0]
	d := must(s.Delivery(t.Context(), first))(t)
	d.Status, d.NextAt = manifold.DeliverySucceeded, time.Time{}
	must(0, s.PutDelivery(t.Context(), d))(t)
	if n := len(must(s.WaitingDeliveries(t.Context()))(t)); n != manifold.MaxWebhooks-1 {
		t.Errorf("%d wait after one has succeeded", n)
	}
	for i := range MaxDeliveries / manifold.MaxWebhooks {
		must(s.AddRelease(t.Context(), app.ID, ada, setVar("N", fmt.Sprint(i+1))))(t)
	}
	all := must(s.WebhookDeliveries(t.Context(), app.ID))(t)
	if len(all) != MaxDeliveries || all[0].Seq != manifold.MaxWebhooks+1 || len(must(s.WaitingDeliveries(t.Context()))(t)) != MaxDeliveries {
		t.Errorf("%d deliveries, the first is %d", len(all), all[0].Seq)
	}
	_, err := s.Delivery(t.Context(), first)
	wantErr(t, "one that was overtaken", err, ErrNotFound)
	wantErr(t, "its outcome", s.PutDelivery(t.Context(), d), ErrNotFound)
}

// A change of many things is told of many webhooks in one step all the same.
func TestWebhooksOfManyChangesAtOnce(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "hooked")
	types := map[string]string{}
	for i := range 100 { // as many as a slug may have
		types[fmt.Sprintf("type%d", i)] = "run"
	}
	must(s.Deploy(t.Context(), app.ID, manifold.Slug{ProcessTypes: types}, "Deploy", ada))(t)
	for range manifold.MaxWebhooks {
		newWebhook(t, s, app, manifold.EventFormation)
	}
	must(s.UpdateFormation(t.Context(), app.ID, func(all []manifold.Formation) ([]manifold.Formation, error) {
		for i := range all {
			all[i].Quantity = 2
		}
		return all, nil
	}))(t)
	all := must(s.WebhookDeliveries(t.Context(), app.ID))(t)
	if len(all) != MaxDeliveries || all[len(all)-1].Seq != 1000 {
		t.Errorf("%d deliveries are kept", len(all))
	}
}
