package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"manifold"
)

// webhookRoot lies beside root, so that deliveries wake nobody who waits for
// Changes.
//
//	hooks/APP  its webhooks, sealed; deliveries are in deliveries.go
const webhookRoot = "/manifold-webhooks/"

func webhooksKey(app string) string { return webhookRoot + "hooks/" + app }

// Webhooks lists an app's webhooks, the oldest first.
func (s *Store) Webhooks(ctx context.Context, app string) ([]manifold.Webhook, error) {
	return s.webhooks(s.begin(ctx), app)
}

func (s *Store) webhooks(t *tx, app string) ([]manifold.Webhook, error) {
	var sealed []byte
	if found, err := t.get(webhooksKey(app), &sealed); err != nil || !found {
		return nil, err
	}
	plain, err := s.vault.open(sealed, webhooksKey(app))
	if err != nil {
		return nil, err
	}
	var hooks []manifold.Webhook
	if json.Unmarshal(plain, &hooks) != nil {
		return nil, fmt.Errorf("decrypt %s: malformed", webhooksKey(app)) // not the cause: it may quote a secret
	}
	return hooks, nil
}

// Webhook finds a webhook of an app.
func (s *Store) Webhook(ctx context.Context, app, id string) (manifold.Webhook, error) {
	hooks, err := s.Webhooks(ctx, app)
	if err != nil {
		return manifold.Webhook{}, err
	}
	for _, w := range hooks {
		if w.ID == id {
			return w, nil
		}
	}
	return manifold.Webhook{}, noWebhook(id)
}

func noWebhook(id string) error { return fmt.Errorf("webhook %s: %w", clip(id), ErrNotFound) }

// AddWebhook gives App a webhook of URL, Include, Level, Secret ("": one is
// drawn) and Authorization. One more than manifold.MaxWebhooks is a
// *manifold.InvalidError.
func (s *Store) AddWebhook(ctx context.Context, w manifold.Webhook) (manifold.Webhook, error) {
	now := s.stamp()
	w.ID, w.CreatedAt, w.UpdatedAt = uuid.NewString(), now, now
	if w.Secret == "" {
		secret := make([]byte, 32)
		rand.Read(secret)
		w.Secret = hex.EncodeToString(secret)
	}
	if err := w.Check(); err != nil {
		return w, err
	}
	return w, s.updateWebhooks(ctx, w.App, func(t *tx, hooks []manifold.Webhook) ([]manifold.Webhook, error) {
		if len(hooks) >= manifold.MaxWebhooks {
			return nil, &manifold.InvalidError{What: "App", Why: fmt.Sprintf("has %d webhooks already, which is the most it can have: remove one first", manifold.MaxWebhooks)}
		}
		t.note(w.App, "Add webhook %s", w.ID) // its URL may hold a password
		return append(hooks, w), nil
	})
}

// UpdateWebhook changes what AddWebhook takes. Deliveries that wait go by it.
func (s *Store) UpdateWebhook(ctx context.Context, app, id string, change func(*manifold.Webhook)) (w manifold.Webhook, err error) {
	err = s.updateWebhooks(ctx, app, func(t *tx, hooks []manifold.Webhook) ([]manifold.Webhook, error) {
		i := slices.IndexFunc(hooks, func(w manifold.Webhook) bool { return w.ID == id })
		if i < 0 {
			return nil, noWebhook(id)
		}
		w = hooks[i]
		w.Include = slices.Clone(w.Include)
		change(&w)
		w.ID, w.App, w.CreatedAt, w.UpdatedAt = id, app, hooks[i].CreatedAt, s.stamp()
		hooks[i] = w
		t.note(app, "Update webhook %s", w.ID)
		return hooks, w.Check()
	})
	return w, err
}

// RemoveWebhook takes a webhook from an app and returns what it was. Its
// deliveries that wait fail when their next attempt comes.
func (s *Store) RemoveWebhook(ctx context.Context, app, id string) (w manifold.Webhook, err error) {
	err = s.updateWebhooks(ctx, app, func(t *tx, hooks []manifold.Webhook) ([]manifold.Webhook, error) {
		i := slices.IndexFunc(hooks, func(w manifold.Webhook) bool { return w.ID == id })
		if i < 0 {
			return nil, noWebhook(id)
		}
		w = hooks[i]
		t.note(app, "Remove webhook %s", w.ID)
		return slices.Delete(hooks, i, i+1), nil
	})
	return w, err
}

func (s *Store) updateWebhooks(ctx context.Context, app string, change func(*tx, []manifold.Webhook) ([]manifold.Webhook, error)) error {
	return s.transact(ctx, app, func(t *tx) error {
		if _, err := t.app(app); err != nil { // an app that goes meanwhile takes its webhooks along
			return err
		}
		hooks, err := s.webhooks(t, app)
		if err != nil {
			return err
		}
		if hooks, err = change(t, hooks); err != nil {
			return err
		}
		if len(hooks) == 0 {
			t.remove(webhooksKey(app))
			return nil
		}
		plain, err := json.Marshal(hooks)
		if err != nil {
			return err
		}
		return t.put(webhooksKey(app), s.vault.seal(plain, webhooksKey(app)))
	})
}

// removeWebhooks removes all of this of an app.
func (t *tx) removeWebhooks(app string) {
	t.remove(webhooksKey(app))
	t.remove(deliveryHead(app))
	t.removeUnder(webhookRoot + "deliveries/" + app + "/")
	t.removeUnder(webhookRoot + "waiting/" + app + "/")
}
