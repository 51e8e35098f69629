package platform

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/store"
)

func releaseRoutes(a *api) routes {
	return routes{
		"GET /apps/{app}/releases":                       onApp(a.releases),
		"POST /apps/{app}/releases":                      onApp(a.createRelease),
		"GET /apps/{app}/releases/{release}":             onApp(a.release),
		"GET /apps/{app}/releases/{release}/config-vars": onApp(a.releaseConfig),
	}
}

func (a *api) releases(c *call, app manifold.App) (answer, error) {
	all, err := a.Store.History(c.Context(), app.ID)
	if err != nil {
		return answer{}, err
	}
	current := serving(all)
	show := func(r manifold.Release) any { return c.releaseObject(app, r, current) }
	return list(c, all, show,
		key[manifold.Release]{name: "version", number: true, of: func(r manifold.Release) string { return strconv.Itoa(r.Version) }},
		key[manifold.Release]{name: "id", of: func(r manifold.Release) string { return r.ID }})
}

// serving is the version that runs, of releases from old to new: the newest
// that succeeded.
func serving(all []manifold.Release) int {
	for _, r := range slices.Backward(all) {
		if r.Status == manifold.ReleaseSucceeded {
			return r.Version
		}
	}
	return 0
}

// findRelease finds a release by id, "12" or "v12", without its config. It
// returns also the version that runs.
func (a *api) findRelease(c *call, app manifold.App, name string) (manifold.Release, int, error) {
	all, err := a.Store.History(c.Context(), app.ID)
	if err != nil {
		return manifold.Release{}, 0, err
	}
	version := strings.TrimPrefix(name, "v")
	i := slices.IndexFunc(all, func(r manifold.Release) bool { return r.ID == name || strconv.Itoa(r.Version) == version })
	if i < 0 {
		return manifold.Release{}, 0, notFound("release", fmt.Sprintf("%s has no release %q. See which it has with: heroku releases -a %s", app.Name, clip(name), app.Name))
	}
	return all[i], serving(all), nil
}

func (a *api) release(c *call, app manifold.App) (answer, error) {
	r, current, err := a.findRelease(c, app, c.PathValue("release"))
	if err != nil {
		return answer{}, err
	}
	return ok(c.releaseObject(app, r, current))
}

func (a *api) releaseConfig(c *call, app manifold.App) (answer, error) {
	r, _, err := a.findRelease(c, app, c.PathValue("release"))
	if err == nil {
		r, err = a.Store.Release(c.Context(), app.ID, r.Version)
	}
	if err != nil {
		return answer{}, err
	}
	return ok(configObject(r))
}

// createRelease rolls back to a release, or releases a slug the app has.
func (a *api) createRelease(c *call, app manifold.App) (answer, error) {
	var in struct{ Release, Slug, Description string }
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	switch {
	case in.Release != "" && in.Slug != "":
		return answer{}, invalidParams("Name either a release to roll back to or a slug to release, not both.")
	case in.Release != "":
		return a.rollback(c, app, in.Release)
	case in.Slug != "":
		return a.releaseSlug(c, app, in.Slug, in.Description)
	}
	return answer{}, invalidParams("Name a release to roll back to, or a slug to release.")
}

// eligible tells whether a release can be rolled back to: it was good, and
// there is code in it, since to "roll back" to none would take the app down.
func eligible(r manifold.Release) bool { return r.Status == manifold.ReleaseSucceeded && r.Slug != "" }

// rollback makes a new release with the slug and the config of an old one.
func (a *api) rollback(c *call, app manifold.App, name string) (answer, error) {
	target, _, err := a.findRelease(c, app, name)
	if err != nil {
		return answer{}, err
	}
	if !eligible(target) {
		return answer{}, invalidParams(fmt.Sprintf("%s cannot roll back to %s: that release has no code that ever ran. See which releases there are with: heroku releases -a %s", app.Name, releaseName(target.Version), app.Name))
	}
	if target, err = a.Store.Release(c.Context(), app.ID, target.Version); err != nil {
		return answer{}, err
	}
	r, err := a.addRelease(c, app, func(next *manifold.Release) error {
		next.Slug, next.Config = target.Slug, maps.Clone(target.Config)
		next.Description = "Rollback to " + releaseName(target.Version)
		return nil
	})
	if err != nil {
		return answer{}, err
	}
	c.sayRelease(app, r)
	return created(c.releaseObject(app, r, ifServes(r)))
}

func (a *api) releaseSlug(c *call, app manifold.App, id, description string) (answer, error) {
	slug, err := a.ownSlug(c, app, id)
	if err != nil {
		return answer{}, err
	}
	if description == "" {
		description = "Deploy"
	}
	if len(description) > 1024 {
		return answer{}, invalidParams("Description may be at most 1,024 bytes long.")
	}
	r, err := a.addRelease(c, app, func(next *manifold.Release) error {
		next.Slug, next.Description = slug.ID, description
		return nil
	})
	if err != nil {
		return answer{}, err
	}
	c.sayRelease(app, r)
	return created(c.releaseObject(app, r, ifServes(r)))
}

// addRelease makes the app's next release. Where a release command runs that is
// when this has ended, or store.ErrReleasing if that takes long: scripts set one
// config var after the other. A call with If-Match does not wait: others would
// wait behind it (see conditions).
func (a *api) addRelease(c *call, app manifold.App, change func(next *manifold.Release) error) (manifold.Release, error) {
	patience := a.maxTime * 2 / 5
	if c.Header.Get("If-Match") != "" {
		patience = 0
	}
	for began := time.Now(); ; {
		r, err := a.Store.AddRelease(c.Context(), app.ID, c.user, change)
		if !errors.Is(err, store.ErrReleasing) || time.Since(began) >= patience {
			return r, err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-c.Context().Done():
			return r, err
		}
	}
}

// ifServes is the version of a release that was just made, if that is the one
// that runs now.
func ifServes(r manifold.Release) int {
	if r.Status == manifold.ReleaseSucceeded {
		return r.Version
	}
	return 0
}

func slugRoutes(a *api) routes {
	return routes{"GET /apps/{app}/slugs/{slug}": onApp(a.slug)}
}

func (a *api) slug(c *call, app manifold.App) (answer, error) {
	s, err := a.ownSlug(c, app, c.PathValue("slug"))
	if err != nil {
		return answer{}, err
	}
	return ok(slugObject(s))
}

// ownSlug finds a slug of this app.
func (a *api) ownSlug(c *call, app manifold.App, id string) (manifold.Slug, error) {
	if uuid.Validate(id) != nil {
		return manifold.Slug{}, noSlug(app, id)
	}
	s, err := a.Store.Slug(c.Context(), id)
	if errors.Is(err, store.ErrNotFound) || err == nil && s.App != app.ID {
		return manifold.Slug{}, noSlug(app, id)
	}
	return s, err
}

func noSlug(app manifold.App, id string) error {
	return notFound("slug", fmt.Sprintf("%s has no slug %q.", app.Name, clip(id)))
}
