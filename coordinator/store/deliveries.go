package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"manifold"
)

// MaxDeliveries is how many deliveries to webhooks are kept of an app: the
// newest. One that still waits when it is no more among them is given up.
const MaxDeliveries = 200

// An app's deliveries are a ring: the one with number n is at n modulo
// MaxDeliveries. Those that still have an attempt before them are under
// waiting too, so that they are found without reading all.
//
//	heads/APP           number of the newest delivery
//	deliveries/APP/042  delivery with its event
//	waiting/APP/042     which it is, whose, and when its next attempt is
func deliveryHead(app string) string { return webhookRoot + "heads/" + app }
func deliveryKey(app string, seq int64) string {
	return fmt.Sprintf("%sdeliveries/%s/%03d", webhookRoot, app, seq%MaxDeliveries)
}
func waitingKey(app string, seq int64) string {
	return fmt.Sprintf("%swaiting/%s/%03d", webhookRoot, app, seq%MaxDeliveries)
}

// Waiting is a delivery that has an attempt before it.
type Waiting struct {
	App     string    `json:"app"`
	ID      string    `json:"id"` // WebhookDelivery.ID
	Seq     int64     `json:"seq"`
	Webhook string    `json:"webhook"`
	At      time.Time `json:"at"` // of the attempt
}

func waitingOf(d manifold.WebhookDelivery) Waiting {
	return Waiting{App: d.Event.App, ID: d.ID, Seq: d.Seq, Webhook: d.Webhook, At: d.NextAt}
}

// WaitingDeliveries lists those of all apps.
func (s *Store) WaitingDeliveries(ctx context.Context) ([]Waiting, error) {
	return list[Waiting](ctx, s.engine, webhookRoot+"waiting/")
}

// WebhookDeliveries lists an app's deliveries, the oldest first: the newest
// MaxDeliveries there were.
func (s *Store) WebhookDeliveries(ctx context.Context, app string) ([]manifold.WebhookDelivery, error) {
	all, err := list[manifold.WebhookDelivery](ctx, s.engine, webhookRoot+"deliveries/"+app+"/")
	slices.SortFunc(all, func(a, b manifold.WebhookDelivery) int { return cmp.Compare(a.Seq, b.Seq) })
	return all, err
}

// DeliveryChanges is Changes for deliveries alone.
func (s *Store) DeliveryChanges(ctx context.Context) <-chan struct{} {
	return s.engine.watch(ctx, webhookRoot+"waiting/")
}

// Delivery finds one that waits. ErrNotFound: it was given up, or its app is
// gone.
func (s *Store) Delivery(ctx context.Context, w Waiting) (manifold.WebhookDelivery, error) {
	return s.begin(ctx).delivery(w.App, w.ID, w.Seq)
}

func (t *tx) delivery(app, id string, seq int64) (manifold.WebhookDelivery, error) {
	var d manifold.WebhookDelivery
	found, err := t.get(deliveryKey(app, seq), &d)
	if err == nil && (!found || d.ID != id) { // its place in the ring is another's now
		err = fmt.Errorf("delivery %s: %w", clip(id), ErrNotFound)
	}
	return d, err
}

// PutDelivery writes what came of an attempt. ErrNotFound is as in Delivery.
func (s *Store) PutDelivery(ctx context.Context, d manifold.WebhookDelivery) error {
	app := d.Event.App
	return s.transact(ctx, app, func(t *tx) error {
		if _, err := t.delivery(app, d.ID, d.Seq); err != nil {
			return err
		}
		if d.NextAt.IsZero() {
			t.remove(waitingKey(app, d.Seq))
		} else if err := t.put(waitingKey(app, d.Seq), waitingOf(d)); err != nil {
			return err
		}
		return t.put(deliveryKey(app, d.Seq), d)
	})
}
