package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"manifold"
)

// releaseRecord is a release as the store works with it. Most releases change
// no config vars, so these are kept apart, under the release that set them.
type releaseRecord struct {
	manifold.Release
	ConfigOf int // version that set its config vars; 0: it has none
}

// storedRelease is what etcd has of it: not what its key says. Records from
// before that was left out have it twice.
type storedRelease struct {
	ID          string    `json:"id"`
	Description string    `json:"description"`
	User        string    `json:"user"`
	Slug        string    `json:"slug,omitempty"`
	Status      string    `json:"status,omitempty"` // "": succeeded
	Output      string    `json:"output,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	ConfigOf    int       `json:"config_of,omitempty"`
}

func (r releaseRecord) stored() storedRelease {
	out := storedRelease{
		ID: r.ID, Description: r.Description, User: r.User, Slug: r.Slug, Status: r.Status, Output: r.Output,
		CreatedAt: r.CreatedAt, ConfigOf: r.ConfigOf,
	}
	if out.Status == manifold.ReleaseSucceeded {
		out.Status = ""
	}
	return out
}

func (r storedRelease) of(app string, version int) releaseRecord {
	return releaseRecord{ConfigOf: r.ConfigOf, Release: manifold.Release{
		ID: r.ID, App: app, Version: version, Description: r.Description, User: r.User, Slug: r.Slug,
		Status: cmp.Or(r.Status, manifold.ReleaseSucceeded), Output: r.Output, CreatedAt: r.CreatedAt,
	}}
}

func versionKey(kind, app string, version int) string {
	return key(kind, app, fmt.Sprintf("%010d", version))
}

func (s *Store) newRelease(app string, version int, by manifold.User) manifold.Release {
	return manifold.Release{
		ID: uuid.NewString(), App: app, Version: version, User: by.Email,
		Status: manifold.ReleaseSucceeded, CreatedAt: s.stamp(),
	}
}

// insertRelease adds a release, of which only a pending status changes
// afterwards, with the config vars that r.ConfigOf set or, if that is its own
// version, with new ones, which come after those that version earlier set.
func (s *Store) insertRelease(t *tx, r releaseRecord, earlier int) error {
	if r.ConfigOf == r.Version {
		if err := s.putConfig(t, r.App, r.Version, r.Config, earlier); err != nil {
			return err
		}
	}
	return t.insert(versionKey("releases", r.App, r.Version), r.stored())
}

// releaseAt reads a release without its config vars.
func (t *tx) releaseAt(app string, version int) (releaseRecord, error) {
	r, err := find[storedRelease](t, versionKey("releases", app, version), fmt.Sprintf("release v%d", version))
	return r.of(app, version), err
}

// Release is one release of an app with its config vars.
func (s *Store) Release(ctx context.Context, app string, version int) (manifold.Release, error) {
	r, err := s.release(s.begin(ctx), app, version)
	return r.Release, err
}

// History lists an app's releases without their config vars, oldest first.
// Where those are not needed it costs a small part of Releases.
func (s *Store) History(ctx context.Context, app string) ([]manifold.Release, error) {
	records, err := s.history(ctx, app)
	releases := make([]manifold.Release, len(records))
	for i, r := range records {
		releases[i] = r.Release
	}
	return releases, err
}

func (s *Store) history(ctx context.Context, app string) ([]releaseRecord, error) {
	prefix := key("releases", app, "")
	records, err := s.engine.list(ctx, prefix)
	if err == nil && len(records) == 0 { // no app is without
		err = fmt.Errorf("app %s: %w", clip(app), ErrNotFound)
	}
	all := make([]releaseRecord, len(records))
	for i, record := range records {
		var r storedRelease
		version, bad := strconv.Atoi(strings.TrimPrefix(record.key, prefix))
		if err := cmp.Or(bad, decode(record, &r)); err != nil {
			return nil, fmt.Errorf("read %s: %w", record.key, err)
		}
		all[i] = r.of(app, version)
	}
	return all, err
}

// Releases lists an app's releases with their config vars, oldest first.
func (s *Store) Releases(ctx context.Context, app string) ([]manifold.Release, error) {
	records, err := s.history(ctx, app)
	if err != nil {
		return nil, err
	}
	configs, err := s.configs(ctx, app) // after the releases, so that none is missing
	if err != nil {
		return nil, err
	}
	releases := make([]manifold.Release, len(records))
	for i, r := range records {
		vars, found := configs[r.ConfigOf]
		if !found && r.ConfigOf != 0 {
			return nil, fmt.Errorf("release v%d: %w", r.Version, ErrNotFound) // the app was deleted since
		}
		releases[i] = r.Release
		releases[i].Config = maps.Clone(vars)
	}
	return releases, nil
}

// CurrentRelease is the release an app's dynos run: the newest that succeeded.
func (s *Store) CurrentRelease(ctx context.Context, app string) (manifold.Release, error) {
	t := s.begin(ctx)
	record, err := t.app(app)
	if err != nil {
		return manifold.Release{}, err
	}
	r, err := s.release(t, app, record.serving())
	return r.Release, err
}

// NewestRelease is an app's newest release, whatever became of it. Its config
// vars are the app's: a change of them stays although its release phase failed.
func (s *Store) NewestRelease(ctx context.Context, app string) (manifold.Release, error) {
	t := s.begin(ctx)
	record, err := t.app(app)
	if err != nil {
		return manifold.Release{}, err
	}
	r, err := s.release(t, app, record.Head)
	return r.Release, err
}

// release reads one release with its config vars. Of each app the newest that
// was read is remembered, since a release that is not pending never changes.
func (s *Store) release(t *tx, app string, version int) (releaseRecord, error) {
	known, _ := s.newest.Load(app)
	if r, _ := known.(releaseRecord); r.Version == version {
		r.Config = maps.Clone(r.Config)
		return r, nil
	}
	r, err := t.releaseAt(app, version)
	if err == nil && r.ConfigOf != 0 {
		r.Config, _, _, err = s.config(t, app, r.ConfigOf)
	}
	if before, _ := known.(releaseRecord); err == nil && r.Status != manifold.ReleasePending && before.Version < version {
		kept := r
		kept.Config = maps.Clone(r.Config)
		s.newest.Store(app, kept)
	}
	return r, err
}

// AddRelease makes an app's next release: numbered one higher than the newest,
// with the slug that serves and the newest config vars, in which change may
// edit Description, Config and Slug. Where no slug serves yet it is the newest:
// one whose release command failed for want of a config var gets another try
// with it. Another slug of the app (a rollback) brings its stack and process
// types with it, as in Deploy. Where the slug has a release command the release
// is pending, and until EndPhase another one is ErrReleasing. An error of change
// ends it without a release.
func (s *Store) AddRelease(ctx context.Context, app string, by manifold.User, change func(next *manifold.Release) error) (manifold.Release, error) {
	var next manifold.Release
	err := s.transact(ctx, app, func(t *tx) (err error) {
		next, err = s.addRelease(t, app, by, change, nil)
		return err
	})
	return next, err
}

// Deploy keeps a slug and makes the release that runs it, in one step with
// the formation: a process type the app did not have gets no dyno, but web,
// which gets one; a type that is gone is removed. Of slug, an empty ID is
// drawn; App and CreatedAt are set. What AddRelease says of release commands
// holds here too; the formation follows when the command has succeeded.
func (s *Store) Deploy(ctx context.Context, app string, slug manifold.Slug, description string, by manifold.User) (manifold.Release, error) {
	if slug.ID == "" {
		slug.ID = uuid.NewString()
	}
	slug.App, slug.CreatedAt = app, s.stamp()
	var next manifold.Release
	err := s.transact(ctx, app, func(t *tx) (err error) {
		if err := t.insert(key("slugs", slug.ID), slug); err != nil {
			return err
		}
		next, err = s.addRelease(t, app, by, func(next *manifold.Release) error {
			next.Slug, next.Description = slug.ID, description
			return nil
		}, &slug)
		return err
	})
	return next, err
}

// addRelease puts the next release and what becomes of the app with it. slug
// is the one being deployed, or nil.
func (s *Store) addRelease(t *tx, id string, by manifold.User, change func(*manifold.Release) error, slug *manifold.Slug) (manifold.Release, error) {
	none := manifold.Release{}
	app, serving, newest, err := s.before(t, id)
	if err != nil {
		return none, err
	}
	next := s.newRelease(id, newest.Version+1, by)
	wish := serving.Release
	wish.Slug = cmp.Or(wish.Slug, newest.Slug)
	wish.Description, wish.Config = "", maps.Clone(newest.Config)
	if wish.Config == nil {
		wish.Config = map[string]string{}
	}
	if err := change(&wish); err != nil {
		return none, err
	}
	next.Description, next.Config, next.Slug = wish.Description, wish.Config, wish.Slug
	if err := manifold.CheckConfig(next.Config); err != nil {
		return none, err
	}
	if next.Slug != "" && slug == nil {
		if slug, err = t.slugOf(id, next.Slug); err != nil {
			return none, err
		}
	}
	app.Head, app.UpdatedAt = next.Version, next.CreatedAt
	if slug != nil && slug.ProcessTypes[manifold.TypeRelease] != "" {
		next.Status, next.Output = manifold.ReleasePending, rand.Text()
		app.Serving = serving.Version
		err = t.put(phaseKey(id), ReleasePhase{App: id, Release: next.ID, Version: next.Version})
	} else {
		err = s.serve(t, &app, next, slug, next.Slug != serving.Slug)
	}
	if err != nil {
		return none, err
	}
	configOf := newest.ConfigOf
	if !maps.Equal(next.Config, newest.Config) {
		configOf = next.Version
	}
	if err := s.insertRelease(t, releaseRecord{next, configOf}, newest.ConfigOf); err != nil {
		return none, err
	}
	if err := s.releaseEvent(t, app, next, nil); err != nil {
		return none, err
	}
	t.noteRelease(next)
	return next, t.put(key("apps", id), app)
}

// before reads what the next release is made from. While a release command
// runs there is none: what would come of it is not known.
func (s *Store) before(t *tx, id string) (app appRecord, serving, newest releaseRecord, err error) {
	if app, err = t.app(id); err != nil {
		return app, serving, newest, err
	}
	var running ReleasePhase
	found, err := t.get(phaseKey(id), &running)
	if err == nil && found {
		err = fmt.Errorf("the next release %w: that of v%d", ErrReleasing, running.Version)
	}
	if err != nil {
		return app, serving, newest, err
	}
	if newest, err = s.release(t, id, app.Head); err != nil {
		return app, serving, newest, err
	}
	serving = newest
	if app.serving() != app.Head {
		serving, err = s.release(t, id, app.serving())
	}
	return app, serving, newest, err
}

// noteRelease notes a release that was made.
func (t *tx) noteRelease(r manifold.Release) {
	t.note(r.App, "%s (v%d)", r.Description, r.Version)
	if n := len(t.notes); n > 0 {
		t.notes[n-1].release = true
	}
}

// serve makes r the release that dynos run. The formation and the stack follow
// its slug if that is another one than before.
func (s *Store) serve(t *tx, app *appRecord, r manifold.Release, slug *manifold.Slug, another bool) error {
	app.Serving = r.Version
	if r.Slug != "" {
		app.ReleasedAt = r.CreatedAt
	}
	if !another || slug == nil {
		return nil
	}
	app.Stack = slug.Stack
	return s.fitFormation(t, r.App, slug.ProcessTypes)
}

// slugOf reads a slug, which must be the app's own.
func (t *tx) slugOf(app, id string) (*manifold.Slug, error) {
	var slug manifold.Slug
	found, err := t.get(key("slugs", id), &slug)
	if err == nil && (!found || slug.App != app) {
		err = fmt.Errorf("slug %s: %w", clip(id), ErrNotFound)
	}
	return &slug, err
}

// Slug finds a slug.
func (s *Store) Slug(ctx context.Context, id string) (manifold.Slug, error) {
	return find[manifold.Slug](s.begin(ctx), key("slugs", id), "slug "+clip(id))
}

// Slugs lists all slugs of all apps, in no order.
func (s *Store) Slugs(ctx context.Context) ([]manifold.Slug, error) {
	return list[manifold.Slug](ctx, s.engine, key("slugs", ""))
}
