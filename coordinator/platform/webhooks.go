package platform

import (
	"errors"
	"net/http"
	"slices"
	"strconv"

	"manifold"
	"manifold/coordinator/store"
	"manifold/coordinator/webhooks"
)

func webhookRoutes(a *api) routes {
	return routes{
		"GET /apps/{app}/webhooks":                      onApp(a.webhooks),
		"POST /apps/{app}/webhooks":                     onApp(a.addWebhook),
		"GET /apps/{app}/webhooks/{webhook}":            onApp(a.webhook),
		"PATCH /apps/{app}/webhooks/{webhook}":          onApp(a.patchWebhook),
		"DELETE /apps/{app}/webhooks/{webhook}":         onApp(a.removeWebhook),
		"GET /apps/{app}/webhook-deliveries":            onApp(a.deliveries),
		"GET /apps/{app}/webhook-deliveries/{delivery}": onApp(a.delivery),
		"GET /apps/{app}/webhook-events":                onApp(a.events),
		"GET /apps/{app}/webhook-events/{event}":        onApp(a.event),
	}
}

func (a *api) webhooks(c *call, app manifold.App) (answer, error) {
	hooks, err := a.Store.Webhooks(c.Context(), app.ID)
	if err != nil {
		return answer{}, err
	}
	return list(c, hooks, func(w manifold.Webhook) any { return webhookObject(app, w) },
		key[manifold.Webhook]{name: "id", of: func(w manifold.Webhook) string { return w.ID }})
}

func (a *api) webhook(c *call, app manifold.App) (answer, error) {
	w, err := a.Store.Webhook(c.Context(), app.ID, c.PathValue("webhook"))
	if err != nil {
		return answer{}, noSuchWebhook(app, err)
	}
	return ok(webhookObject(app, w))
}

// webhookWish is what a client may choose of a webhook.
type webhookWish struct {
	URL, Level, Secret, Authorization *string
	Include                           []string
}

func (in webhookWish) apply(w *manifold.Webhook) {
	set(&w.URL, in.URL)
	set(&w.Level, in.Level)
	set(&w.Secret, in.Secret)
	set(&w.Authorization, in.Authorization)
	if in.Include != nil {
		w.Include = slices.Compact(slices.Sorted(slices.Values(in.Include)))
	}
}

// addWebhook begins to tell a receiver of the app's events: those that come
// from now on. The secret its bodies are signed with is shown this once.
func (a *api) addWebhook(c *call, app manifold.App) (answer, error) {
	var in webhookWish
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	if in.URL == nil || in.Level == nil || in.Include == nil {
		return answer{}, invalidParams("A webhook needs a url, a level and an include, as in: heroku webhooks:add -u https://example.com/hooks -l notify -i api:release")
	}
	w := manifold.Webhook{App: app.ID}
	in.apply(&w)
	w, err := a.Store.AddWebhook(c.Context(), w)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusCreated, value: webhookObject(app, w), header: http.Header{"Heroku-Webhook-Secret": {w.Secret}}}, nil
}

func (a *api) patchWebhook(c *call, app manifold.App) (answer, error) {
	var in webhookWish
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	if in.Secret != nil && *in.Secret == "" {
		return answer{}, invalidParams("Secret cannot be empty: every body is signed. Leave it out to keep the one there is.")
	}
	w, err := a.Store.UpdateWebhook(c.Context(), app.ID, c.PathValue("webhook"), in.apply)
	if err != nil {
		return answer{}, noSuchWebhook(app, err)
	}
	return ok(webhookObject(app, w))
}

func (a *api) removeWebhook(c *call, app manifold.App) (answer, error) {
	w, err := a.Store.RemoveWebhook(c.Context(), app.ID, c.PathValue("webhook"))
	if err != nil {
		return answer{}, noSuchWebhook(app, err)
	}
	return ok(webhookObject(app, w))
}

// deliveries lists those that are kept; the query eq[status] narrows it.
func (a *api) deliveries(c *call, app manifold.App) (answer, error) {
	all, err := a.Store.WebhookDeliveries(c.Context(), app.ID)
	if err != nil {
		return answer{}, err
	}
	if status := c.URL.Query().Get("eq[status]"); status != "" {
		all = slices.DeleteFunc(all, func(d manifold.WebhookDelivery) bool { return d.Status != status })
	}
	return list(c, all, func(d manifold.WebhookDelivery) any { return deliveryObject(d) },
		key[manifold.WebhookDelivery]{name: "seq", number: true, of: func(d manifold.WebhookDelivery) string { return strconv.FormatInt(d.Seq, 10) }},
		key[manifold.WebhookDelivery]{name: "id", of: func(d manifold.WebhookDelivery) string { return d.ID }})
}

func (a *api) delivery(c *call, app manifold.App) (answer, error) {
	all, err := a.Store.WebhookDeliveries(c.Context(), app.ID)
	if err != nil {
		return answer{}, err
	}
	for _, d := range all {
		if d.ID == c.PathValue("delivery") {
			return ok(deliveryObject(d))
		}
	}
	return answer{}, notFound("webhook_delivery", "The app has no such webhook delivery (any more). Look at: heroku webhooks:deliveries -a "+app.Name)
}

// keptEvents are the events of the deliveries that are kept, each once: one
// that no webhook included is known to nobody.
func (a *api) keptEvents(c *call, app manifold.App) ([]manifold.WebhookEvent, error) {
	all, err := a.Store.WebhookDeliveries(c.Context(), app.ID)
	var events []manifold.WebhookEvent
	seen := map[string]bool{}
	for _, d := range all {
		if !seen[d.Event.ID] {
			seen[d.Event.ID] = true
			events = append(events, d.Event)
		}
	}
	return events, err
}

func (a *api) events(c *call, app manifold.App) (answer, error) {
	events, err := a.keptEvents(c, app)
	if err != nil {
		return answer{}, err
	}
	return list(c, events, func(e manifold.WebhookEvent) any { return eventObject(e) },
		key[manifold.WebhookEvent]{name: "id", of: func(e manifold.WebhookEvent) string { return e.ID }})
}

func (a *api) event(c *call, app manifold.App) (answer, error) {
	events, err := a.keptEvents(c, app)
	if err != nil {
		return answer{}, err
	}
	for _, e := range events {
		if e.ID == c.PathValue("event") {
			return ok(eventObject(e))
		}
	}
	return answer{}, notFound("webhook_event", "The app has no such webhook event (any more). Look at: heroku webhooks:deliveries -a "+app.Name)
}

func noSuchWebhook(app manifold.App, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return notFound("webhook", "The app has no such webhook. Look at: heroku webhooks -a "+app.Name)
	}
	return err
}

// webhookObject shows a webhook without its secrets.
func webhookObject(app manifold.App, w manifold.Webhook) object {
	return object{
		"id": w.ID, "app": appRef(app), "url": w.URL, "include": w.Include, "level": w.Level,
		"created_at": when(w.CreatedAt), "updated_at": when(w.UpdatedAt),
	}
}

func deliveryObject(d manifold.WebhookDelivery) object {
	var last any
	if a := d.Last; a != nil {
		status := "failed"
		if a.Code/100 == 2 {
			status = "succeeded"
		}
		shown := object{"id": a.ID, "status": status, "code": nil, "error_class": nil, "created_at": when(a.CreatedAt), "updated_at": when(a.UpdatedAt)}
		if a.Code != 0 {
			shown["code"] = a.Code
		}
		if a.Error != "" {
			shown["error_class"] = a.Error
		}
		last = shown
	}
	return object{
		"id": d.ID, "event": object{"id": d.Event.ID, "include": d.Event.Include},
		"webhook": object{"id": d.Webhook, "level": d.Level}, "status": d.Status,
		"num_attempts": d.Attempts, "last_attempt": last, "next_attempt_at": whenever(d.NextAt),
		"created_at": when(d.CreatedAt), "updated_at": when(d.UpdatedAt),
	}
}

func eventObject(e manifold.WebhookEvent) object {
	return object{
		"id": e.ID, "include": e.Include, "payload": webhooks.Payload(e),
		"created_at": when(e.CreatedAt), "updated_at": when(e.CreatedAt),
	}
}
