package platform

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"manifold"
	"manifold/coordinator/store"
)

func collaboratorRoutes(a *api) routes {
	return routes{
		"GET /apps/{app}/collaborators":           onApp(a.collaborators),
		"POST /apps/{app}/collaborators":          onOwnApp(a.addCollaborator),
		"GET /apps/{app}/collaborators/{user}":    onApp(a.collaborator),
		"DELETE /apps/{app}/collaborators/{user}": onApp(a.removeCollaborator),
	}
}

// onOwnApp is onApp for what a collaborator may not do.
func onOwnApp(h func(*call, manifold.App) (answer, error)) handler {
	return onApp(func(c *call, app manifold.App) (answer, error) {
		if app.Owner != c.user.ID {
			return answer{}, notOwner(app)
		}
		return h(c, app)
	})
}

func notOwner(app manifold.App) error {
	return &fault{
		Status: http.StatusForbidden, ID: "forbidden",
		Message: fmt.Sprintf("You are a collaborator of %s; only its owner may do this.", app.Name),
	}
}

// ownerOf finds an app's owner. One who is gone has no email any more.
func (a *api) ownerOf(c *call, app manifold.App) (manifold.User, error) {
	if app.Owner == c.user.ID {
		return c.user, nil
	}
	owner, err := a.Store.User(c.Context(), app.Owner)
	if errors.Is(err, store.ErrNotFound) {
		return manifold.User{ID: app.Owner}, nil
	}
	return owner, err
}

// people are the owner, then the collaborators in the order they came.
func (a *api) people(c *call, app manifold.App) ([]object, error) {
	owner, err := a.ownerOf(c, app)
	if err != nil {
		return nil, err
	}
	all := []object{collaboratorObject(app, owner, "owner", app.CreatedAt)}
	for _, p := range app.Collaborators {
		user, err := a.Store.User(c.Context(), p.User)
		if errors.Is(err, store.ErrNotFound) {
			continue // a user who is gone
		}
		if err != nil {
			return nil, err
		}
		all = append(all, collaboratorObject(app, user, "collaborator", p.AddedAt))
	}
	return all, nil
}

func (a *api) collaborators(c *call, app manifold.App) (answer, error) {
	all, err := a.people(c, app)
	if err != nil {
		return answer{}, err
	}
	email := func(o object) string { return o["user"].(object)["email"].(string) }
	return list(c, all, func(o object) any { return o }, text("id"), key[object]{name: "email", of: email})
}

// findCollaborator finds one by the user's email or id, or by its own id.
func (a *api) findCollaborator(c *call, app manifold.App) (object, error) {
	all, err := a.people(c, app)
	if err != nil {
		return nil, err
	}
	name := c.PathValue("user")
	for _, o := range all {
		user := o["user"].(object)
		if name == o["id"] || name == user["id"] || strings.EqualFold(name, user["email"].(string)) {
			return o, nil
		}
	}
	return nil, notFound("collaborator", fmt.Sprintf("%s has no collaborator %s. See who it has with: heroku access -a %s", app.Name, clip(name), app.Name))
}

func (a *api) collaborator(c *call, app manifold.App) (answer, error) {
	o, err := a.findCollaborator(c, app)
	if err != nil {
		return answer{}, err
	}
	return ok(o)
}

// person reads a user: the email or id itself, or an object with either.
type person struct{ name string }

func (p *person) UnmarshalJSON(text []byte) error {
	var in struct{ Email, ID string }
	if err := stringOr(text, &p.name, &in); err != nil {
		return err
	}
	p.name += in.Email
	if p.name == "" {
		p.name = in.ID
	}
	return nil
}

// addCollaborator shares the app. To add one who is there already changes
// nothing, so that a repeated request is harmless.
func (a *api) addCollaborator(c *call, app manifold.App) (answer, error) {
	var in struct{ User person }
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	user, err := a.Store.User(c.Context(), in.User.name)
	if errors.Is(err, store.ErrNotFound) {
		return answer{}, invalidParams(fmt.Sprintf("There is no user %q on this platform. Its operator can make one with: manifold-coordinator user add %s", clip(in.User.name), clip(in.User.name)))
	}
	if err != nil {
		return answer{}, err
	}
	if user.ID == app.Owner {
		return answer{}, invalidParams(fmt.Sprintf("%s owns %s.", user.Email, app.Name))
	}
	now := time.Now().UTC().Truncate(time.Second)
	app, err = a.Store.UpdateApp(c.Context(), app.ID, func(app *manifold.App) error {
		if app.Lets(user.ID) {
			return nil
		}
		if len(app.Collaborators) >= manifold.MaxCollaborators {
			return invalidParams(fmt.Sprintf("An app may have at most %d collaborators.", manifold.MaxCollaborators))
		}
		app.Collaborators = append(app.Collaborators, manifold.Collaborator{User: user.ID, AddedAt: now})
		return nil
	})
	if err != nil {
		return answer{}, err
	}
	i := slices.IndexFunc(app.Collaborators, func(p manifold.Collaborator) bool { return p.User == user.ID })
	return created(collaboratorObject(app, user, "collaborator", app.Collaborators[i].AddedAt))
}

// removeCollaborator ends a collaborator's access at once. They may leave by
// themselves.
func (a *api) removeCollaborator(c *call, app manifold.App) (answer, error) {
	o, err := a.findCollaborator(c, app)
	if err != nil {
		return answer{}, err
	}
	user := o["user"].(object)
	switch {
	case user["id"] == app.Owner:
		return answer{}, invalidParams(fmt.Sprintf("%s owns %s and cannot be removed from it.", user["email"], app.Name))
	case app.Owner != c.user.ID && user["id"] != c.user.ID:
		return answer{}, notOwner(app)
	}
	_, err = a.Store.UpdateApp(c.Context(), app.ID, func(app *manifold.App) error {
		app.Collaborators = slices.DeleteFunc(app.Collaborators, func(p manifold.Collaborator) bool { return p.User == user["id"] })
		return nil
	})
	if err != nil {
		return answer{}, err
	}
	a.Logs.Revoke(app.ID, user["id"].(string))
	return ok(o)
}
