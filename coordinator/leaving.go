package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"manifold"
	"manifold/coordinator/store"
)

// RemoveUser says who is to go and what becomes of the apps they own. Where
// there are such apps, one of AppsTo and DestroyApps is needed.
type RemoveUser struct {
	Email       string `json:"email"`
	AppsTo      string `json:"apps_to,omitempty"` // email of who owns them from now on
	DestroyApps bool   `json:"destroy_apps,omitempty"`
	DryRun      bool   `json:"dry_run,omitempty"` // only say what would be
}

// RemovedUser is a user, and the names of the apps they own.
type RemovedUser struct {
	User    manifold.User `json:"user"`
	Apps    []string      `json:"apps"`
	Removed bool          `json:"removed"`
}

// operator is who root's changes are by.
const operator = "operator"

func (r *rooms) removeUser(ctx context.Context, in RemoveUser) (any, error) {
	user, err := r.store.User(ctx, in.Email)
	if err != nil {
		return nil, err
	}
	apps, err := r.store.OwnedBy(ctx, user.ID)
	if err != nil {
		return nil, err
	}
	out := RemovedUser{User: user, Apps: []string{}}
	for _, app := range apps {
		out.Apps = append(out.Apps, app.Name)
	}
	if in.DryRun {
		return out, nil
	}
	var heir manifold.User
	switch {
	case in.AppsTo != "" && in.DestroyApps:
		return nil, &manifold.InvalidError{What: "The apps", Why: "can be given to somebody or be destroyed, not both"}
	case in.AppsTo != "":
		if heir, err = r.store.User(ctx, in.AppsTo); err != nil {
			return nil, err
		}
	case len(apps) > 0 && !in.DestroyApps:
		return nil, &manifold.InvalidError{What: user.Email, Why: fmt.Sprintf("owns %s: say what becomes of them with --apps-to EMAIL or --destroy-apps", strings.Join(out.Apps, ", "))}
	}
	if err := r.store.RemoveUser(store.By(ctx, &store.Author{Email: operator}), user, heir); err != nil {
		return nil, err
	}
	r.logs.Revoke("", user.ID)
	out.Removed = true
	r.cfg.Log.Info("user removed", "user", user.ID, "email", user.Email, "apps", out.Apps, "apps_to", in.AppsTo)
	if in.AppsTo == "" {
		for _, app := range apps {
			err = errors.Join(err, r.forget(app.ID))
		}
	}
	if err != nil { // it goes at the next start
		r.cfg.Log.Error("something of a destroyed app stays behind", "err", err)
	}
	return out, nil
}

// TakeUser has the running coordinator of this instance remove a user, or say
// what that would mean.
func TakeUser(ctx context.Context, s manifold.Settings, what RemoveUser) (RemovedUser, error) {
	var reply RemovedUser
	if err := askAdmin(ctx, s, http.MethodDelete, "/v1/users", what, &reply); err != nil {
		return reply, fmt.Errorf("remove the user: %w", err)
	}
	return reply, nil
}
