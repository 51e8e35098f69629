package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"manifold"
)

// appRecord is what apps/APP holds. Every writer of a release changes it, so
// that release numbers have neither gaps nor doubles.
type appRecord struct {
	manifold.App
	Head    int `json:"head"`    // version of the newest release
	Serving int `json:"serving"` // version of the newest that succeeded; 0: Head, in records from before there were others
}

// serving is the version that dynos run.
func (a appRecord) serving() int { return cmp.Or(a.Serving, a.Head) }

func (t *tx) app(id string) (appRecord, error) {
	r, err := t.engine.get(t.ctx, key("apps", id))
	if err != nil {
		return appRecord{}, err
	}
	if t.seen[r.key] = r.revision; r.revision == 0 {
		return appRecord{}, fmt.Errorf("app %s: %w", clip(id), ErrNotFound)
	}
	return shared[appRecord](r)
}

// CreateApp makes an app by, with releases v1 and v2 as Heroku does. Of app it
// takes Name ("": one is drawn, like quiet-river-1234), Stack, Buildpacks and
// Features. A name that exists is ErrTaken.
func (s *Store) CreateApp(ctx context.Context, app manifold.App, by manifold.User) (manifold.App, error) {
	now := s.stamp()
	app = manifold.App{
		ID: uuid.NewString(), Name: app.Name, Owner: by.ID, Stack: app.Stack, BuildStack: app.Stack,
		Buildpacks: app.Buildpacks, Features: app.Features, CreatedAt: now, UpdatedAt: now,
	}
	if app.Name != "" {
		return app, s.insertApp(ctx, app, by)
	}
	for range 10 {
		app.Name = drawName()
		if err := s.insertApp(ctx, app, by); !errors.Is(err, ErrTaken) {
			return app, err
		}
	}
	return manifold.App{}, errors.New("found no app name that is free: choose one yourself")
}

func (s *Store) insertApp(ctx context.Context, app manifold.App, by manifold.User) error {
	first := []string{"Initial release", "Enable Logplex"}
	return s.transact(ctx, by.ID, func(t *tx) error {
		if err := t.claimName(app); err != nil {
			return err
		}
		for i, description := range first {
			r := s.newRelease(app.ID, i+1, by)
			r.Description = description
			if err := s.insertRelease(t, releaseRecord{Release: r}, 0); err != nil {
				return err
			}
			t.noteRelease(r)
		}
		t.note(by.ID, "Create app %s", app.Name)
		return errors.Join(
			t.insert(key("apps", app.ID), appRecord{App: app, Head: len(first), Serving: len(first)}),
			t.insert(key("formations", app.ID), []manifold.Formation{}))
	})
}

// claimName takes app.Name for app.
func (t *tx) claimName(app manifold.App) error {
	if err := manifold.CheckAppName(app.Name); err != nil {
		return err
	}
	var holder string
	if taken, err := t.get(key("names", app.Name), &holder); err != nil {
		return err
	} else if taken {
		return fmt.Errorf("app name %s %w", app.Name, ErrTaken)
	}
	return t.put(key("names", app.Name), app.ID)
}

// App finds an app by its name or id, shared as in Apps.
func (s *Store) App(ctx context.Context, nameOrID string) (manifold.App, error) {
	id := nameOrID
	t := s.begin(ctx)
	if uuid.Validate(id) != nil { // no name has an id's length
		if found, err := t.get(key("names", nameOrID), &id); err != nil {
			return manifold.App{}, err
		} else if !found {
			return manifold.App{}, fmt.Errorf("app %s: %w", clip(nameOrID), ErrNotFound)
		}
	}
	app, err := t.app(id)
	return app.App, err
}

// Apps lists all apps by name. What they point to (Domains, Features…) is
// shared and must not be changed.
func (s *Store) Apps(ctx context.Context) ([]manifold.App, error) {
	records, err := s.engine.list(ctx, key("apps", ""))
	apps := make([]manifold.App, len(records))
	for i, r := range records {
		app, err := shared[appRecord](r)
		if err != nil {
			return nil, err
		}
		apps[i] = app.App
	}
	slices.SortFunc(apps, func(a, b manifold.App) int { return cmp.Compare(a.Name, b.Name) })
	return apps, err
}

// UpdateApp changes an app as a whole; name and domains may change, to ones
// that are free, else it is ErrTaken; id and creation time stay. An error of
// change ends it.
func (s *Store) UpdateApp(ctx context.Context, id string, change func(*manifold.App) error) (manifold.App, error) {
	var app manifold.App
	err := s.transact(ctx, id, func(t *tx) (err error) {
		app, err = s.updateApp(t, id, change)
		return err
	})
	return app, err
}

func (s *Store) updateApp(t *tx, id string, change func(*manifold.App) error) (manifold.App, error) {
	was, err := t.app(id)
	if err != nil {
		return manifold.App{}, err
	}
	app := was.App
	app.Buildpacks, app.Features = slices.Clone(app.Buildpacks), maps.Clone(app.Features)
	app.Domains, app.Collaborators = slices.Clone(app.Domains), slices.Clone(app.Collaborators)
	if err := change(&app); err != nil {
		return app, err
	}
	app.ID, app.CreatedAt, app.UpdatedAt = was.ID, was.CreatedAt, s.stamp()
	if app.Name != was.Name {
		if err := t.claimName(app); err != nil {
			return app, err
		}
		t.remove(key("names", was.Name))
	}
	if err := t.claimDomains(app, was.Domains); err != nil {
		return app, err
	}
	if err := s.changed(t, was.App, app); err != nil {
		return app, err
	}
	was.App = app
	return app, t.put(key("apps", id), was)
}

// DeleteApp removes an app with all its releases, its formation, its drains, its
// webhooks and its slugs.
// Its placements stay: the scheduler retires those whose app is gone.
func (s *Store) DeleteApp(ctx context.Context, id string) error {
	err := s.deleteApp(ctx, id)
	if errors.Is(err, rpctypes.ErrNoSpace) { // of an entry in the audit trail: room goes before it
		err = s.deleteApp(By(ctx, nil), id)
	}
	if err != nil {
		return err
	}
	s.newest.Delete(id)
	return s.finishDeletion(ctx, id)
}

func (s *Store) deleteApp(ctx context.Context, id string) error {
	return s.transact(ctx, id, func(t *tx) error {
		app, err := t.app(id) // its record changes with every release, so that none is missed
		if err != nil {
			return err
		}
		releases, err := list[storedRelease](ctx, s.engine, key("releases", id, ""))
		if err != nil {
			return err
		}
		var slugs []string
		for _, r := range releases {
			if r.Slug != "" {
				slugs = append(slugs, r.Slug)
			}
		}
		slices.Sort(slugs)
		if by := author(t.ctx); by != nil {
			t.note(by.ID, "Destroy app %s", app.Name)
		}
		t.remove(key("apps", id))
		t.remove(key("names", app.Name))
		t.remove(key("formations", id))
		for _, d := range app.Domains {
			t.remove(key("domains", d.Hostname))
		}
		t.remove(phaseKey(id))
		t.remove(drainsKey(id))
		t.remove(transferKey(id))
		t.removeWebhooks(id)
		t.removeUnder(buildKey(id, ""))
		t.removeUnder(jobKey(id, ""))
		t.removeUnder(key("releases", id, ""))
		t.removeUnder(key("configs", id, ""))
		t.remove(auditHead(id))
		t.removeUnder(auditTrail(id))
		slugs = slices.Compact(slugs)
		if len(t.writes)+len(slugs)+2*len(t.notes) > maxWrites {
			return t.put(key("deleted", id), slugs)
		}
		for _, slug := range slugs { // nothing is put: a store that is full takes it
			t.remove(key("slugs", slug))
		}
		return nil
	})
}

// finishDeletion removes the slugs a deleted app left where they were too many
// for one transaction. After a kill the next Open calls it again.
func (s *Store) finishDeletion(ctx context.Context, id string) error {
	var slugs []string
	if found, err := s.begin(ctx).get(key("deleted", id), &slugs); err != nil || !found {
		return err
	}
	var keys []string
	for _, slug := range slugs {
		keys = append(keys, key("slugs", slug))
	}
	return s.removeAll(ctx, append(keys, key("deleted", id)))
}

// clip keeps a stranger's text short in an error.
func clip(text string) string {
	if len(text) > 64 {
		return text[:64] + "…"
	}
	return text
}
