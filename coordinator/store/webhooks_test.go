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
