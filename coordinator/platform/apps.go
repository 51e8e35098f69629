package platform

import (
	"errors"
	"fmt"

	"manifold"
	"manifold/coordinator/store"
)

func appRoutes(a *api) routes {
	return routes{
		"GET /apps":              a.apps,
		"POST /apps":             a.createApp,
		"GET /users/{user}/apps": a.apps,
		"GET /apps/{app}":        onApp(a.app),
		"PATCH /apps/{app}":      onApp(a.patchApp),
		"DELETE /apps/{app}":     onOwnApp(a.deleteApp),
	}
}

// apps lists those the caller owns or is a collaborator of.
func (a *api) apps(c *call) (answer, error) {
	if who := c.PathValue("user"); who != "" && !isCaller(c, who) {
		return answer{}, noUser
	}
	all, err := a.Store.Apps(c.Context())
	if err != nil {
		return answer{}, err
	}
	mine := make([]manifold.App, 0, len(all))
	for _, app := range all {
		if app.Lets(c.user.ID) {
			mine = append(mine, app)
		}
	}
	owners := map[string]manifold.User{}
	for _, app := range mine {
		if _, known := owners[app.Owner]; !known {
			if owners[app.Owner], err = a.ownerOf(c, app); err != nil {
				return answer{}, err
			}
		}
	}
	show := func(app manifold.App) any { return a.appObject(app, owners[app.Owner], nil) }
	return list(c, mine, show,
		key[manifold.App]{name: "name", of: func(app manifold.App) string { return app.Name }},
		key[manifold.App]{name: "id", of: func(app manifold.App) string { return app.ID }})
}

func (a *api) app(c *call, app manifold.App) (answer, error) {
	shown, err := a.wholeApp(c, app)
	if err != nil {
		return answer{}, err
	}
	return ok(shown)
}

// wholeApp shows an app with what its current slug adds.
func (a *api) wholeApp(c *call, app manifold.App) (object, error) {
	release, err := a.Store.CurrentRelease(c.Context(), app.ID)
	if err != nil {
		return nil, fmt.Errorf("find the release of %s: %w", app.Name, err)
	}
	slug, err := a.slugOf(c, release)
	if err != nil {
		return nil, err
	}
	owner, err := a.ownerOf(c, app)
	if err != nil {
		return nil, err
	}
	return a.appObject(app, owner, slug), nil
}

// slugOf is the code of a release, nil if it has none.
func (a *api) slugOf(c *call, r manifold.Release) (*manifold.Slug, error) {
	if r.Slug == "" {
		return nil, nil
	}
	slug, err := a.Store.Slug(c.Context(), r.Slug)
	if err != nil {
		return nil, fmt.Errorf("find the slug of release %d: %w", r.Version, err)
	}
	return &slug, nil
}

// createApp takes a name, a stack and a region, all optional.
func (a *api) createApp(c *call) (answer, error) {
	var in struct{ Name, Stack, Region *string }
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	app := manifold.App{Owner: c.user.ID, Stack: a.Stacks[0].Name}
	if in.Name != nil && *in.Name != "" {
		if err := manifold.CheckAppName(*in.Name); err != nil {
			return answer{}, err
		}
		app.Name = *in.Name
	}
	if in.Stack != nil {
		stack, err := a.findStack(*in.Stack)
		if err != nil {
			return answer{}, err
		}
		app.Stack = stack.Name
	}
	if in.Region != nil && !isRegion(*in.Region) {
		return answer{}, invalidParams(fmt.Sprintf("There is no region %q: this platform is one region, %q.", clip(*in.Region), regionName))
	}
	app.BuildStack = app.Stack
	app, err := a.Store.CreateApp(c.Context(), app, c.user)
	if err != nil {
		return answer{}, nameTaken(err, app.Name)
	}
	first, err := a.Store.History(c.Context(), app.ID)
	if err != nil {
		return answer{}, err
	}
	for _, r := range first {
		c.sayRelease(app, r)
	}
	return created(a.appObject(app, c.user, nil))
}

// nameTaken puts the name into what is said about it.
func nameTaken(err error, name string) error {
	if errors.Is(err, store.ErrTaken) {
		return invalidParams(fmt.Sprintf("Name %s is already taken. Choose another.", name))
	}
	return err
}

// patchApp renames, switches maintenance mode and sets the stack of the next
// build, whichever the body names.
func (a *api) patchApp(c *call, app manifold.App) (answer, error) {
	var in struct {
		Name        *string
		Maintenance *bool
		BuildStack  *string `json:"build_stack"`
	}
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	if in.Name != nil {
		if *in.Name != app.Name && app.Owner != c.user.ID {
			return answer{}, notOwner(app)
		}
		if err := manifold.CheckAppName(*in.Name); err != nil {
			return answer{}, err
		}
	}
	if in.BuildStack != nil {
		stack, err := a.findStack(*in.BuildStack)
		if err != nil {
			return answer{}, err
		}
		in.BuildStack = &stack.Name
	}
	app, err := a.Store.UpdateApp(c.Context(), app.ID, func(app *manifold.App) error {
		set(&app.Name, in.Name)
		set(&app.Maintenance, in.Maintenance)
		set(&app.BuildStack, in.BuildStack)
		return nil
	})
	if err != nil {
		if in.Name != nil {
			err = nameTaken(err, *in.Name)
		}
		return answer{}, err
	}
	return a.app(c, app)
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// deleteApp removes an app and all that is kept of it: releases, repository,
// build cache, log. Its dynos are stopped soon after.
func (a *api) deleteApp(c *call, app manifold.App) (answer, error) {
	shown, err := a.wholeApp(c, app)
	if err != nil {
		return answer{}, err
	}
	if err := a.Store.DeleteApp(c.Context(), app.ID); err != nil {
		return answer{}, err
	}
	a.Log.Info("app destroyed", "app", app.ID, "name", app.Name, "user", c.user.Email)
	if err := a.Forget(app.ID); err != nil { // it goes at the next start
		a.Log.Error("something of a destroyed app stays behind", "app", app.ID, "err", err)
	}
	return ok(shown)
}

// text is the key of a list of objects that are shown as they are.
func text(name string) key[object] {
	return key[object]{name: name, of: func(o object) string { return o[name].(string) }}
}
