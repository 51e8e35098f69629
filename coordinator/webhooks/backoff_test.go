package webhooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/store"
	"manifold/test/bubble"
)

// memory is a store whose time is the test's.
type memory struct {
	mu         sync.Mutex
	deliveries map[string]manifold.WebhookDelivery
	removed    bool  // the webhooks
	fail       error // of the next PutDelivery
	changes    chan struct{}
}

// newMemory has one delivery a webhook.
func newMemory(hooks ...string) *memory {
	m := &memory{deliveries: map[string]manifold.WebhookDelivery{}, changes: make(chan struct{}, 1)}
	for _, hook := range hooks {
		id := "to " + hook
		m.deliveries[id] = manifold.WebhookDelivery{ID: id, Webhook: hook, Status: manifold.DeliveryPending, NextAt: time.Now(), Event: manifold.WebhookEvent{WebhookSubject: manifold.WebhookSubject{Release: &manifold.Release{}}}}
	}
	return m
}

func (m *memory) DeliveryChanges(context.Context) <-chan struct{} { return m.changes }

func (m *memory) WaitingDeliveries(context.Context) (all []store.Waiting, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.deliveries {
		if !d.NextAt.IsZero() {
			all = append(all, store.Waiting{ID: d.ID, Webhook: d.Webhook, At: d.NextAt})
		}
	}
	return all, nil
}

func (m *memory) Delivery(_ context.Context, w store.Waiting) (manifold.WebhookDelivery, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.deliveries[w.ID], nil
}

func (m *memory) PutDelivery(_ context.Context, d manifold.WebhookDelivery) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fail; err != nil {
		m.fail = nil
		return err
	}
	m.deliveries[d.ID] = d
	return nil
}

func (m *memory) Webhook(_ context.Context, _, id string) (manifold.Webhook, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.removed {
		return manifold.Webhook{}, store.ErrNotFound
	}
	return manifold.Webhook{ID: id, URL: "http://" + id + "/"}, nil
}

func (m *memory) statuses() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for _, d := range m.deliveries {
		all = append(all, fmt.Sprintf("%s: %s after %d", d.ID, d.Status, d.Attempts))
	}
	slices.Sort(all)
	return all
}

// network answers by host, and notes when each was asked.
type network struct {
	mu     sync.Mutex
	began  time.Time
	asked  map[string][]time.Duration
	answer func(req *http.Request, n int) (int, error)
}

func (n *network) RoundTrip(req *http.Request) (*http.Response, error) {
	n.mu.Lock()
	n.asked[req.Host] = append(n.asked[req.Host], time.Since(n.began).Round(time.Second))
	count := len(n.asked[req.Host])
	n.mu.Unlock()
	code, err := n.answer(req, count)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: code, Body: http.NoBody}, nil
}

// during runs a room for so long, in time that costs none.
func during(t *testing.T, m *memory, d time.Duration, answer func(*http.Request, int) (int, error)) *network {
	t.Helper()
	n := &network{began: time.Now(), asked: map[string][]time.Duration{}, answer: answer}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	newRoom(Config{Store: m, Log: slog.New(slog.DiscardHandler)}, n).run(ctx)
	return n
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestTenTriesWithGrowingPauses(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		m := newMemory("dead")
		n := during(t, m, 24*time.Hour, func(*http.Request, int) (int, error) { return 500, nil })
		var want []time.Duration
		at := time.Duration(0)
		for _, pause := range []int{0, 10, 20, 40, 80, 160, 320, 640, 1280, 2560} {
			at += time.Duration(pause) * time.Second
			want = append(want, at)
		}
		same(t, "attempts at", n.asked["dead"], want)
		same(t, "deliveries", m.statuses(), []string{"to dead: failed after 10"})
	})
}

// One that never answers is given up after Timeout each time, and the others
// do not notice.
func TestTheSlowCostNobodyElseAnything(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		m := newMemory("slow", "good", "late")
		n := during(t, m, time.Hour/4, func(req *http.Request, n int) (int, error) {
			switch {
			case req.Host == "slow" && n < 3:
				<-req.Context().Done()
				return 0, req.Context().Err()
			case req.Host == "late" && n == 1:
				return 0, errors.New("connection refused")
			}
			return 204, nil
		})
		same(t, "good was asked at", n.asked["good"], []time.Duration{0})
		same(t, "late was asked at", n.asked["late"], []time.Duration{0, 10 * time.Second})
		same(t, "slow was asked at", n.asked["slow"], []time.Duration{0, 30 * time.Second, 70 * time.Second})
		same(t, "deliveries", m.statuses(), []string{"to good: succeeded after 1", "to late: succeeded after 2", "to slow: succeeded after 3"})
	})
}

// What cannot be written down is tried again after a rest, not at once.
func TestAStoreThatFails(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		m := newMemory("good")
		m.fail = errors.New("the disk is full")
		n := during(t, m, time.Minute, func(*http.Request, int) (int, error) { return 200, nil })
		same(t, "asked at", n.asked["good"], []time.Duration{0, retry})
		same(t, "deliveries", m.statuses(), []string{"to good: succeeded after 1"})
	})
}

func TestARemovedWebhookIsToldNothing(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		m := newMemory("gone")
		m.removed = true
		n := during(t, m, time.Minute, func(*http.Request, int) (int, error) { return 200, nil })
		same(t, "asked at", n.asked["gone"], []time.Duration(nil))
		same(t, "deliveries", m.statuses(), []string{"to gone: failed after 0"})
	})
}

// An attempt that the coordinator's own end cut short does not count.
func TestAnAttemptCutShort(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		m := newMemory("slow")
		n := during(t, m, Timeout/2, func(req *http.Request, _ int) (int, error) {
			<-req.Context().Done()
			return 0, req.Context().Err()
		})
		same(t, "asked at", n.asked["slow"], []time.Duration{0})
		same(t, "deliveries", m.statuses(), []string{"to slow: pending after 0"})
	})
}
