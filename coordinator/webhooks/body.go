package webhooks

import (
	"time"

	"manifold"
)

// object is JSON as the Platform API has it.
type object = map[string]any

// Version says what the bodies hold: objects of the Platform API, version 3.
const Version = "application/vnd.heroku+json; version=3"

// Payload is what an event tells: what happened, by whom, to what.
func Payload(e manifold.WebhookEvent) object {
	resource, data := "release", any(nil)
	if e.Release != nil {
		data = releaseData(e, *e.Release)
	}
	if e.Build != nil {
		resource, data = "build", buildData(e, *e.Build)
	}
	return object{
		"action": e.Action, "actor": object{"id": e.ActorID, "email": e.Actor}, "data": data,
		"previous_data": object{}, "resource": resource, "version": Version,
	}
}

// body is what a receiver is sent: the payload, and by which ids it is known.
// That of the event stays the same through all attempts.
func body(hook manifold.Webhook, d manifold.WebhookDelivery, attempt string) object {
	all := Payload(d.Event)
	all["id"], all["created_at"] = d.Event.ID, when(d.Event.CreatedAt)
	all["webhook_metadata"] = object{
		"attempt": object{"id": attempt}, "delivery": object{"id": d.ID},
		"event":   object{"id": d.Event.ID, "include": d.Event.Include},
		"webhook": object{"id": hook.ID},
	}
	return all
}

// releaseData is the API's release, but for its output's URL, which is as good
// as a password.
func releaseData(e manifold.WebhookEvent, r manifold.Release) object {
	return object{
		"id": r.ID, "app": app(e), "version": r.Version, "description": r.Description, "status": r.Status,
		"current": e.Serves, "slug": ref(r.Slug), "user": object{"id": e.ActorID, "email": r.User},
		"addon_plan_names": []string{}, "output_stream_url": nil,
		"created_at": when(r.CreatedAt), "updated_at": when(e.CreatedAt),
	}
}

// buildData is the API's build, but for its output's URL and its buildpacks,
// whose URLs may hold passwords.
func buildData(e manifold.WebhookEvent, b manifold.Build) object {
	return object{
		"id": b.ID, "app": app(e), "stack": b.Stack, "status": b.Status,
		"release": ref(b.Release), "slug": ref(b.Slug), "source_blob": object{"version": b.Version},
		"user": object{"id": b.UserID, "email": b.User}, "output_stream_url": nil,
		"created_at": when(b.CreatedAt), "updated_at": when(b.UpdatedAt),
	}
}

func app(e manifold.WebhookEvent) object { return object{"id": e.App, "name": e.AppName} }

func ref(id string) any {
	if id == "" {
		return nil
	}
	return object{"id": id}
}

// when shows a time as the API does.
func when(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
