package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"manifold"
)

func drainsKey(app string) string { return key("drains", app) }

// openDrains opens an app's record, in which URLs may hold passwords.
func (s *Store) openDrains(sealed []byte, k string) ([]manifold.Drain, error) {
	if len(sealed) == 0 {
		return nil, nil
	}
	plain, err := s.vault.open(sealed, k)
	if err != nil {
		return nil, err
	}
	var drains []manifold.Drain
	if json.Unmarshal(plain, &drains) != nil {
		return nil, fmt.Errorf("decrypt %s: malformed", k) // not the cause: it may quote a URL
	}
	return drains, nil
}

// Drains lists an app's drains, the oldest first; of all apps if app is "".
func (s *Store) Drains(ctx context.Context, app string) ([]manifold.Drain, error) {
	if app != "" {
		var sealed []byte
		if _, err := s.begin(ctx).get(drainsKey(app), &sealed); err != nil {
			return nil, err
		}
		return s.openDrains(sealed, drainsKey(app))
	}
	records, err := s.engine.list(ctx, drainsKey(""))
	var all []manifold.Drain
	for _, r := range records {
		var sealed []byte
		if err := decode(r, &sealed); err != nil {
			return nil, err
		}
		drains, err := s.openDrains(sealed, r.key)
		if err != nil {
			return nil, err
		}
		all = append(all, drains...)
	}
	return all, err
}

// DrainChanges is Changes for drains alone.
func (s *Store) DrainChanges(ctx context.Context) <-chan struct{} {
	return s.engine.watch(ctx, drainsKey(""))
}

// AddDrain gives an app a drain. A URL it drains to already is ErrTaken; more
// than manifold.MaxDrains are a *manifold.InvalidError.
func (s *Store) AddDrain(ctx context.Context, app, url string) (d manifold.Drain, err error) {
	if err := manifold.CheckDrainURL(url); err != nil {
		return d, err
	}
	now := s.stamp()
	d = manifold.Drain{
		ID: uuid.NewString(), App: app, URL: url, Token: "d." + uuid.NewString(), CreatedAt: now, UpdatedAt: now,
	}
	err = s.updateDrains(ctx, app, func(t *tx, drains []manifold.Drain) ([]manifold.Drain, error) {
		if len(drains) >= manifold.MaxDrains {
			return nil, &manifold.InvalidError{What: "App", Why: fmt.Sprintf("has %d log drains already, which is the most it can have: remove one first", manifold.MaxDrains)}
		}
		if slices.ContainsFunc(drains, func(other manifold.Drain) bool { return other.URL == url }) {
			return nil, fmt.Errorf("log drain %w", ErrTaken)
		}
		t.note(app, "Add log drain %s", d.Token) // its URL may hold a password
		return append(drains, d), nil
	})
	return d, err
}

// RemoveDrain takes a drain from an app and returns what it was. It is named
// by its id, token or URL.
func (s *Store) RemoveDrain(ctx context.Context, app, name string) (d manifold.Drain, err error) {
	err = s.updateDrains(ctx, app, func(t *tx, drains []manifold.Drain) ([]manifold.Drain, error) {
		i := slices.IndexFunc(drains, func(d manifold.Drain) bool { return DrainNamed(d, name) })
		if i < 0 {
			return nil, fmt.Errorf("log drain: %w", ErrNotFound)
		}
		d = drains[i]
		t.note(app, "Remove log drain %s", d.Token)
		return slices.Delete(drains, i, i+1), nil
	})
	return d, err
}

// DrainNamed says whether name is the drain's id, token or URL.
func DrainNamed(d manifold.Drain, name string) bool {
	return name == d.ID || name == d.Token || strings.TrimSuffix(name, "/") == strings.TrimSuffix(d.URL, "/")
}

func (s *Store) updateDrains(ctx context.Context, app string, change func(*tx, []manifold.Drain) ([]manifold.Drain, error)) error {
	return s.transact(ctx, app, func(t *tx) error {
		if _, err := t.app(app); err != nil { // an app that goes meanwhile takes its drains along
			return err
		}
		var sealed []byte
		if _, err := t.get(drainsKey(app), &sealed); err != nil {
			return err
		}
		drains, err := s.openDrains(sealed, drainsKey(app))
		if err != nil {
			return err
		}
		if drains, err = change(t, drains); err != nil {
			return err
		}
		if len(drains) == 0 {
			t.remove(drainsKey(app))
			return nil
		}
		plain, err := json.Marshal(drains)
		if err != nil {
			return err
		}
		return t.put(drainsKey(app), s.vault.seal(plain, drainsKey(app)))
	})
}
