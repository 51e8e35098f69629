// Package webhooks tells receivers outside the platform what happened to an
// app: each event as a signed POST, tried again until it is taken or given up.
//
// The store writes a delivery in the same step as the change it tells of, and
// what comes of each attempt after it. So a delivery outlives any kill; one
// whose outcome could not be written is made again with the same ids.
//
//	store ──waiting──▶ Run ──▶ one goroutine a webhook, while something is due
//	  ▲                              │ POST, Timeout at most
//	  └── PutDelivery ◀── 2xx: succeeded; else retrying, after Tries failed
//
// A webhook has one attempt under way at most and shares nothing with others,
// so that one that is slow or dead costs nobody else anything. This room must
// never connect to where its guard forbids, follow a redirect, or tell a URL, a
// secret or an Authorization to a log.
package webhooks

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"manifold"
	"manifold/coordinator/outbound"
	"manifold/coordinator/store"
)

const (
	// Timeout is how long a receiver may take, from connecting to answering.
	Timeout = 20 * time.Second
	// Tries is how many attempts a delivery has.
	Tries = 10

	longest = time.Hour // between attempts, and between looks at what is due
	retry   = 5 * time.Second
)

// Store is the coordinator's memory. *store.Store is one.
type Store interface {
	DeliveryChanges(ctx context.Context) <-chan struct{}
	WaitingDeliveries(ctx context.Context) ([]store.Waiting, error)
	Delivery(ctx context.Context, w store.Waiting) (manifold.WebhookDelivery, error)
	PutDelivery(ctx context.Context, d manifold.WebhookDelivery) error
	Webhook(ctx context.Context, app, id string) (manifold.Webhook, error)
}

// Config is what a room works with.
type Config struct {
	Store Store
	Guard outbound.Guard
	Roots *x509.CertPool // receivers' certificates come from these; nil: the host's
	Pause time.Duration  // after the first failure; then twice as long each time. 0: 10 s
	Log   *slog.Logger
}

// room is what Run works with.
type room struct {
	Config
	client  *http.Client
	working sync.WaitGroup
	busy    map[string]bool // webhooks with an attempt under way; Run's own
	done    chan string
}

// Run delivers until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	newRoom(cfg, &http.Transport{
		Proxy:                  nil, // the guard sees the receiver's own address
		DialContext:            cfg.Guard.Dialer().DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
		DisableKeepAlives:      true, // events are rare
		MaxResponseHeaderBytes: 16 << 10,
	}).run(ctx)
	return nil
}

func newRoom(cfg Config, transport http.RoundTripper) *room {
	cfg.Pause = cmp.Or(cfg.Pause, 10*time.Second)
	return &room{Config: cfg, busy: map[string]bool{}, done: make(chan string), client: &http.Client{
		Timeout:   Timeout,
		Transport: transport,
		// Where else it would lead its owner did not say.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (r *room) run(ctx context.Context) {
	defer r.working.Wait()
	changes := r.Store.DeliveryChanges(ctx)
	for {
		wait := retry
		if waiting, err := r.Store.WaitingDeliveries(ctx); err == nil {
			wait = r.start(ctx, waiting)
		} else if ctx.Err() == nil {
			r.Log.Error("could not list the webhook deliveries; trying again", "err", err)
		}
		timer := time.NewTimer(wait)
		select {
		case _, open := <-changes:
			if !open { // with ctx, or the store
				changes = nil
			}
		case id := <-r.done:
			delete(r.busy, id)
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// start begins what is due, of each webhook what was due first, and says when
// to look again.
func (r *room) start(ctx context.Context, waiting []store.Waiting) time.Duration {
	now, wait := time.Now(), longest
	first := map[string]store.Waiting{}
	for _, w := range waiting {
		other, found := first[w.Webhook]
		if r.busy[w.Webhook] || found && cmp.Or(other.At.Compare(w.At), cmp.Compare(other.Seq, w.Seq)) < 0 {
			continue
		}
		first[w.Webhook] = w
	}
	for id, w := range first {
		if until := w.At.Sub(now); until > 0 {
			wait = min(wait, until)
			continue
		}
		r.busy[id] = true
		r.working.Go(func() {
			r.try(ctx, w)
			select {
			case r.done <- id:
			case <-ctx.Done():
			}
		})
	}
	return wait
}

// try makes one attempt of a delivery and writes what came of it.
func (r *room) try(ctx context.Context, w store.Waiting) {
	err := r.attempt(ctx, w)
	if err == nil || ctx.Err() != nil || errors.Is(err, store.ErrNotFound) { // the last: given up, or gone with its app
		return
	}
	r.Log.Error("a webhook delivery could not be written down; trying again", "app", w.App, "delivery", w.ID, "err", err)
	select {
	case <-time.After(retry):
	case <-ctx.Done():
	}
}

func (r *room) attempt(ctx context.Context, w store.Waiting) error {
	d, err := r.Store.Delivery(ctx, w)
	if err != nil {
		return err
	}
	hook, err := r.Store.Webhook(ctx, w.App, w.Webhook)
	if errors.Is(err, store.ErrNotFound) { // it was removed
		d.Status, d.NextAt, d.UpdatedAt = manifold.DeliveryFailed, time.Time{}, now()
		return r.Store.PutDelivery(ctx, d)
	}
	if err != nil {
		return err
	}
	a, took := r.post(ctx, hook, d)
	if ctx.Err() != nil {
		return ctx.Err() // nobody knows what came of it: the next coordinator tries again
	}
	d.Attempts++
	d.Last, d.UpdatedAt = &a, a.UpdatedAt
	switch {
	case took:
		d.Status, d.NextAt = manifold.DeliverySucceeded, time.Time{}
	case d.Attempts >= Tries:
		d.Status, d.NextAt = manifold.DeliveryFailed, time.Time{}
	default:
		d.Status, d.NextAt = manifold.DeliveryRetrying, a.UpdatedAt.Add(r.pause(d.Attempts))
	}
	return r.Store.PutDelivery(ctx, d)
}

// pause is how long to wait after so many attempts that failed.
func (r *room) pause(attempts int) time.Duration {
	return min(r.Pause<<(attempts-1), longest)
}

func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
