package webhooks

import (
	"reflect"
	"time"

	"manifold"
)

// object is JSON as the Platform API has it.
type object = map[string]any

// Version says what the bodies hold: objects of the Platform API, version 3.
const Version = "application/vnd.heroku+json; version=3"

// Payload is what an event tells: what happened, by whom, to what, and of an
// update what was different before.
func Payload(e manifold.WebhookEvent) object {
	resource, now := data(e, e.WebhookSubject)
	before := object{}
	if e.Was != nil {
		_, was := data(e, *e.Was)
		for k, v := range was {
			if !reflect.DeepEqual(v, now[k]) {
				before[k] = v
			}
		}
	}
	return object{
		"action": e.Action, "actor": object{"id": e.ActorID, "email": e.Actor}, "data": now,
		"previous_data": before, "resource": resource, "version": Version,
	}
}

// data is what an event is about, as the API shows it.
func data(e manifold.WebhookEvent, s manifold.WebhookSubject) (resource string, shown object) {
	switch {
	case s.Release != nil:
		return "release", releaseData(e, s)
	case s.Build != nil:
		return "build", buildData(e, *s.Build)
	case s.Of != nil:
		return "app", appData(*s.Of, s.Email)
	case s.Formation != nil:
		return "formation", formationData(e, *s.Formation, s.Command)
	case s.Domain != nil:
		return "domain", domainData(e, *s.Domain)
	case s.Collaborator != nil:
		return "collaborator", object{
			"app": app(e), "user": object{"id": s.Collaborator.User, "email": s.Email}, "role": "collaborator", "permissions": []object{},
			"created_at": when(s.Collaborator.AddedAt), "updated_at": when(s.Collaborator.AddedAt),
		}
	case s.Dyno != nil:
		return "dyno", dynoData(e, *s.Dyno)
	}
	return "", object{}
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
func releaseData(e manifold.WebhookEvent, s manifold.WebhookSubject) object {
	r := s.Release
	return object{
		"id": r.ID, "app": app(e), "version": r.Version, "description": r.Description, "status": r.Status,
		"current": s.Serves, "slug": ref(r.Slug), "user": object{"id": e.ActorID, "email": r.User},
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

// appData is the API's app, but for what its current code adds.
func appData(a manifold.App, owner string) object {
	var released any
	if !a.ReleasedAt.IsZero() {
		released = when(a.ReleasedAt)
	}
	return object{
		"id": a.ID, "name": a.Name, "owner": object{"id": a.Owner, "email": owner}, "maintenance": a.Maintenance,
		"stack": object{"name": a.Stack}, "build_stack": object{"name": a.BuildStack}, "archived_at": nil,
		"created_at": when(a.CreatedAt), "updated_at": when(a.UpdatedAt), "released_at": released,
	}
}

func formationData(e manifold.WebhookEvent, f manifold.Formation, command string) object {
	return object{
		"id": f.ID, "app": app(e), "type": f.Type, "quantity": f.Quantity, "size": f.Size, "command": command,
		"created_at": when(f.CreatedAt), "updated_at": when(f.UpdatedAt),
	}
}

func domainData(e manifold.WebhookEvent, d manifold.Domain) object {
	return object{
		"id": d.ID, "app": app(e), "hostname": d.Hostname, "kind": "custom", "status": "none",
		"created_at": when(d.CreatedAt), "updated_at": when(d.CreatedAt),
	}
}

// dynoData is the API's dyno. Its command's variables are not expanded.
func dynoData(e manifold.WebhookEvent, d manifold.WebhookDyno) object {
	return object{
		"id": d.ID, "app": app(e), "name": d.Name, "type": d.Type, "command": d.Command, "size": d.Size, "state": string(d.State),
		"attach_url": nil, "release": object{"version": d.Release},
		"created_at": when(d.CreatedAt), "updated_at": when(d.UpdatedAt),
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
