package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"manifold"
)

// RemoveUser ends a user's access at once, for ever: tokens, password, keys,
// their share in others' apps. Their own apps (see OwnedBy) go to heir, or are
// destroyed where heir is the zero User. The first user stays. A kill on the
// way leaves a user without access whom another call removes.
func (s *Store) RemoveUser(ctx context.Context, user, heir manifold.User) error {
	if heir.ID == user.ID {
		return &manifold.InvalidError{What: "User", Why: "cannot inherit their own apps"}
	}
	var first string
	if _, err := s.begin(ctx).get(key("first-user"), &first); err != nil {
		return err
	} else if first == user.ID {
		return &manifold.InvalidError{What: user.Email, Why: "is the platform's first user, who stays"}
	}
	if err := s.lockOut(ctx, user); err != nil {
		return err
	}
	apps, err := s.Apps(ctx)
	if err != nil {
		return err
	}
	for _, app := range apps {
		if err := s.leaveApp(ctx, app, user, heir); err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("see to app %s: %w", app.Name, err)
		}
	}
	offers, err := s.Transfers(ctx, user.ID)
	if err != nil {
		return err
	}
	err = s.transact(ctx, user.ID, func(t *tx) error {
		for _, offer := range offers {
			t.remove(transferKey(offer.App))
		}
		t.remove(key("users", user.ID))
		t.remove(key("emails", user.Email))
		t.remove(auditHead(user.ID))
		t.removeUnder(auditTrail(user.ID))
		return nil
	})
	return errors.Join(err, s.lockOut(ctx, user)) // again: a login may have been under way
}

// lockOut removes all a user could show us.
func (s *Store) lockOut(ctx context.Context, user manifold.User) error {
	records, err := s.engine.list(ctx, key("tokens", ""))
	if err != nil {
		return err
	}
	gone := []string{key("passwords", user.ID)}
	for _, r := range records {
		var g grant
		if err := decode(r, &g); err != nil {
			return err
		}
		if g.User == user.ID {
			gone = append(gone, r.key)
		}
	}
	keys, err := s.engine.list(ctx, key("keys", user.ID, ""))
	if err != nil {
		return err
	}
	for _, r := range keys {
		gone = append(gone, r.key)
	}
	return s.removeAll(ctx, gone)
}

// leaveApp takes a user out of an app.
func (s *Store) leaveApp(ctx context.Context, app manifold.App, user, heir manifold.User) error {
	if !app.Lets(user.ID) {
		return nil
	}
	if app.Owner == user.ID && heir.ID == "" {
		return s.DeleteApp(ctx, app.ID)
	}
	_, err := s.UpdateApp(ctx, app.ID, func(app *manifold.App) error {
		app.Collaborators = slices.DeleteFunc(app.Collaborators, func(c manifold.Collaborator) bool { return c.User == user.ID })
		if app.Owner == user.ID {
			hand(app, heir.ID)
		}
		return nil
	})
	return err
}

// OwnedBy lists a user's own apps by name.
func (s *Store) OwnedBy(ctx context.Context, user string) ([]manifold.App, error) {
	apps, err := s.Apps(ctx)
	apps = slices.DeleteFunc(apps, func(app manifold.App) bool { return app.Owner != user })
	slices.SortFunc(apps, func(a, b manifold.App) int { return strings.Compare(a.Name, b.Name) })
	return apps, err
}
