package store

import (
	"slices"

	"manifold"
)

// changed notes what changed of an app, in words, and tells its webhooks.
func (s *Store) changed(t *tx, was, now manifold.App) error {
	if was.Name != now.Name {
		t.note(now.ID, "Renamed from %s to %s", was.Name, now.Name)
	}
	if was.Maintenance != now.Maintenance {
		t.note(now.ID, "%s maintenance mode", verb(now.Maintenance, "Enable", "Disable"))
	}
	if was.BuildStack != now.BuildStack {
		t.note(now.ID, "Set build stack to %s", now.BuildStack)
	}
	if !slices.Equal(was.Buildpacks, now.Buildpacks) {
		t.note(now.ID, "Set %d buildpacks", len(now.Buildpacks))
	}
	for _, f := range manifold.Features() {
		if on := now.Feature(f.Name); on != was.Feature(f.Name) {
			t.note(now.ID, "%s feature %s", verb(on, "Enable", "Disable"), f.Name)
		}
	}
	var events []manifold.WebhookEvent
	if was.Name != now.Name || was.Maintenance != now.Maintenance || was.BuildStack != now.BuildStack || was.Owner != now.Owner {
		e, err := t.appEvent(was, now)
		if err != nil {
			return err
		}
		if was.Owner != now.Owner {
			t.note(now.ID, "Transferred from %s to %s", e.Was.Email, e.Email)
		}
		events = append(events, e)
	}
	for _, d := range missing(was.Domains, now.Domains) {
		t.note(now.ID, "Remove domain %s", d.Hostname)
		events = append(events, domainEvent(manifold.ActionDestroy, d))
	}
	for _, d := range missing(now.Domains, was.Domains) {
		t.note(now.ID, "Add domain %s", d.Hostname)
		events = append(events, domainEvent(manifold.ActionCreate, d))
	}
	people, err := t.peopleEvents(was, now)
	if err != nil {
		return err
	}
	return s.tell(t, now, append(events, people...)...)
}

func (t *tx) peopleEvents(was, now manifold.App) (events []manifold.WebhookEvent, err error) {
	say := func(people []manifold.Collaborator, words, action string) error {
		for _, p := range people {
			email, err := t.emailOf(p.User)
			if err != nil {
				return err
			}
			t.note(now.ID, "%s %s as collaborator", words, email)
			events = append(events, manifold.WebhookEvent{
				Include: manifold.EventCollaborator, Action: action, WebhookSubject: manifold.WebhookSubject{Collaborator: &p, Email: email},
			})
		}
		return nil
	}
	if err := say(missing(was.Collaborators, now.Collaborators), "Remove", manifold.ActionDestroy); err != nil {
		return nil, err
	}
	return events, say(missing(now.Collaborators, was.Collaborators), "Add", manifold.ActionCreate)
}

func domainEvent(action string, d manifold.Domain) manifold.WebhookEvent {
	return manifold.WebhookEvent{Include: manifold.EventDomain, Action: action, WebhookSubject: manifold.WebhookSubject{Domain: &d}}
}

// missing are those of all that others lack.
func missing[T comparable](all, others []T) (lack []T) {
	for _, x := range all {
		if !slices.Contains(others, x) {
			lack = append(lack, x)
		}
	}
	return lack
}

func verb(on bool, yes, no string) string {
	if on {
		return yes
	}
	return no
}
