package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"manifold"
)

// update makes an event of a change from was to now.
func update(include string, was, now manifold.WebhookSubject) manifold.WebhookEvent {
	return manifold.WebhookEvent{Include: include, Action: manifold.ActionUpdate, WebhookSubject: now, Was: &was}
}

// releaseEvent tells the app's webhooks of a release; was is nil of one that is
// new.
func (s *Store) releaseEvent(t *tx, app appRecord, r manifold.Release, was *manifold.Release) error {
	subject := func(r manifold.Release) manifold.WebhookSubject {
		r.Config, r.Output = nil, "" // secret
		return manifold.WebhookSubject{Release: &r, Serves: r.Status == manifold.ReleaseSucceeded && app.serving() == r.Version}
	}
	e := manifold.WebhookEvent{Include: manifold.EventRelease, Action: manifold.ActionCreate, WebhookSubject: subject(r)}
	if was != nil {
		e = update(manifold.EventRelease, subject(*was), subject(r))
	}
	e.Actor = r.User
	return s.tell(t, app.App, e)
}

// buildEvent tells the app's webhooks of a build; was is nil of one that begins.
func (s *Store) buildEvent(t *tx, app appRecord, b manifold.Build, was *manifold.Build) error {
	subject := func(b manifold.Build) manifold.WebhookSubject {
		b.Output, b.Buildpacks = "", nil // secret; URLs, which may hold passwords
		return manifold.WebhookSubject{Build: &b}
	}
	e := manifold.WebhookEvent{Include: manifold.EventBuild, Action: manifold.ActionCreate, WebhookSubject: subject(b)}
	if was != nil {
		e = update(manifold.EventBuild, subject(*was), subject(b))
	}
	e.Actor, e.ActorID = b.User, b.UserID
	return s.tell(t, app.App, e)
}

// appEvent is what webhooks are told of a change of the app itself.
func (t *tx) appEvent(was, now manifold.App) (manifold.WebhookEvent, error) {
	before, err := t.emailOf(was.Owner)
	if err != nil {
		return manifold.WebhookEvent{}, err
	}
	after := before
	if now.Owner != was.Owner {
		if after, err = t.emailOf(now.Owner); err != nil {
			return manifold.WebhookEvent{}, err
		}
	}
	subject := func(app manifold.App, email string) manifold.WebhookSubject {
		app.Buildpacks, app.Collaborators, app.Domains = nil, nil, nil // URLs, which may hold passwords; not shown
		return manifold.WebhookSubject{Of: &app, Email: email}
	}
	return update(manifold.EventApp, subject(was, before), subject(now, after)), nil
}

// scaled notes what changed of a formation, and tells of it.
func (s *Store) scaled(t *tx, id string, was, now []manifold.Formation) error {
	app, err := t.app(id)
	if err != nil {
		return err
	}
	var events []manifold.WebhookEvent
	var words []string
	for _, f := range now {
		i := slices.IndexFunc(was, func(x manifold.Formation) bool { return x.ID == f.ID })
		if i < 0 || was[i] == f {
			continue
		}
		words = append(words, fmt.Sprintf("%s@%d:%s", f.Type, f.Quantity, f.Size))
		command, err := s.command(t, app, f.Type)
		if err != nil {
			return err
		}
		events = append(events, update(manifold.EventFormation,
			manifold.WebhookSubject{Formation: &was[i], Command: command}, manifold.WebhookSubject{Formation: &f, Command: command}))
	}
	if len(words) == 0 {
		return nil
	}
	t.note(id, "Scaled to %s", strings.Join(words, " "))
	return s.tell(t, app.App, events...)
}

// command is what a process type runs.
func (s *Store) command(t *tx, app appRecord, typ string) (string, error) {
	r, err := s.release(t, app.ID, app.serving())
	if err != nil || r.Slug == "" {
		return "", err
	}
	slug, err := t.slugOf(app.ID, r.Slug)
	return slug.ProcessTypes[typ], err
}

// DynoEvent tells an app's webhooks of a dyno: was is nil of a new one, and now
// of one that is gone.
func (s *Store) DynoEvent(ctx context.Context, id string, was, now *manifold.WebhookDyno) error {
	return s.transact(ctx, id, func(t *tx) error {
		app, err := t.app(id)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		e := manifold.WebhookEvent{Include: manifold.EventDyno, Action: manifold.ActionCreate, WebhookSubject: manifold.WebhookSubject{Dyno: now}}
		switch {
		case now == nil:
			e.Action, e.Dyno = manifold.ActionDestroy, was
		case was != nil:
			e = update(manifold.EventDyno, manifold.WebhookSubject{Dyno: was}, e.WebhookSubject)
		}
		return s.tell(t, app.App, e)
	})
}

// emailOf is a user's address, "" of one who is gone.
func (t *tx) emailOf(id string) (string, error) {
	var user manifold.User
	_, err := t.get(key("users", id), &user)
	return user.Email, err
}

// actorID finds who has an email, the nil UUID if nobody has it any more.
func (t *tx) actorID(email string) (string, error) {
	id := uuid.Nil.String()
	r, err := t.engine.get(t.ctx, key("emails", strings.ToLower(email)))
	if err != nil || r.revision == 0 {
		return id, err
	}
	return id, decode(r, &id)
}

// tell writes a delivery of each event for each webhook that includes it, in
// one step with the change they tell of: neither is ever there alone. A
// transaction calls it once.
func (s *Store) tell(t *tx, app manifold.App, events ...manifold.WebhookEvent) error {
	if len(events) == 0 {
		return nil
	}
	hooks, err := s.webhooks(t, app.ID)
	if err != nil || len(hooks) == 0 {
		return err
	}
	var head int64
	if _, err := t.get(deliveryHead(app.ID), &head); err != nil {
		return err
	}
	var all []manifold.WebhookDelivery
	for _, e := range events {
		if err := s.complete(t, app, &e); err != nil {
			return err
		}
		for _, w := range hooks {
			if !slices.Contains(w.Include, e.Include) {
				continue
			}
			head++
			all = append(all, manifold.WebhookDelivery{
				ID: uuid.NewString(), Seq: head, Webhook: w.ID, Level: w.Level, Event: e,
				Status: manifold.DeliveryPending, NextAt: e.CreatedAt, CreatedAt: e.CreatedAt, UpdatedAt: e.CreatedAt,
			})
		}
	}
	if len(all) == 0 {
		return nil
	}
	for _, d := range all[max(len(all)-MaxDeliveries, 0):] { // what came before them has lost its place already
		if err := errors.Join(t.put(deliveryKey(app.ID, d.Seq), d), t.put(waitingKey(app.ID, d.Seq), waitingOf(d))); err != nil {
			return err
		}
	}
	return t.put(deliveryHead(app.ID), head)
}

// complete says when, of which app, and by whom: the author of the call, where
// the event does not know better.
func (s *Store) complete(t *tx, app manifold.App, e *manifold.WebhookEvent) (err error) {
	if by := author(t.ctx); by != nil && e.Actor == "" {
		e.Actor, e.ActorID = by.Email, by.ID
	}
	if e.ActorID == "" {
		e.ActorID, err = t.actorID(e.Actor)
	}
	e.ID, e.App, e.AppName, e.CreatedAt = uuid.NewString(), app.ID, app.Name, s.stamp()
	return err
}
