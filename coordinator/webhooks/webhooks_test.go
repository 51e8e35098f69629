package webhooks

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/outbound"
	"manifold/coordinator/store"
	"manifold/test/port"
)

var _ Store = (*store.Store)(nil)

// patience is how long a test waits for what must happen: a machine may be busy
// with others' tests.
const patience = time.Minute

// rig is the room on a real store, which can be closed and opened again.
type rig struct {
	*testing.T
	dir   string
	store *store.Store
	app   manifold.App
	ada   manifold.User
	guard outbound.Guard
	log   *slog.Logger
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{T: t, dir: filepath.Join(t.TempDir(), "store"), guard: outbound.Guard{Loopback: true}}
	r.log = slog.New(slog.NewTextHandler(t.Output(), nil))
	r.open()
	t.Cleanup(func() { r.store.Close() })
	token, err := r.store.Bootstrap(t.Context(), "ada@example.com")
	must(t, err)
	r.ada, _, err = r.store.Authenticate(t.Context(), token)
	must(t, err)
	r.app, err = r.store.CreateApp(t.Context(), manifold.App{Name: "hooked", Stack: "cedar"}, r.ada)
	must(t, err)
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) open() {
	r.Helper()
	var err error
	r.store, err = store.Open(r.Context(), r.dir, slog.New(slog.DiscardHandler))
	must(r, err)
}

// run runs the room until stop, or the test, ends it.
func (r *rig) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{Store: r.store, Guard: r.guard, Pause: 50 * time.Millisecond, Log: r.log})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.Error(err)
		}
	})
	r.Cleanup(stop)
	return stop
}

func (r *rig) hook(url string) manifold.Webhook {
	r.Helper()
	w, err := r.store.AddWebhook(r.Context(), manifold.Webhook{
		App: r.app.ID, URL: url, Include: []string{manifold.EventRelease}, Level: manifold.WebhookNotify, Authorization: "Bearer receiver's",
	})
	must(r, err)
	return w
}

func (r *rig) release(value string) manifold.Release {
	r.Helper()
	made, err := r.store.AddRelease(r.Context(), r.app.ID, r.ada, func(next *manifold.Release) error {
		next.Config["SECRET"], next.Description = value, "Set SECRET config vars"
		return nil
	})
	must(r, err)
	return made
}

// delivered waits until the app's only delivery is as wanted.
func (r *rig) delivered(want func(manifold.WebhookDelivery) bool) manifold.WebhookDelivery {
	r.Helper()
	for deadline := time.Now().Add(patience); ; <-time.After(5 * time.Millisecond) {
		all, err := r.store.WebhookDeliveries(r.Context(), r.app.ID)
		must(r, err)
		if len(all) == 1 && want(all[0]) {
			return all[0]
		}
		if time.Now().After(deadline) {
			r.Fatalf("deliveries %+v", all)
		}
	}
}

func status(s string) func(manifold.WebhookDelivery) bool {
	return func(d manifold.WebhookDelivery) bool { return d.Status == s }
}

// receiver is a real HTTP server.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	code   int
	bodies []string
	heads  []http.Header
}

func newReceiver(t *testing.T, code int) *receiver {
	v := &receiver{code: code}
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		text, _ := io.ReadAll(req.Body)
		v.mu.Lock()
		defer v.mu.Unlock()
		v.bodies, v.heads = append(v.bodies, string(text)), append(v.heads, req.Header)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(v.code)
	}))
	t.Cleanup(v.Close)
	return v
}

func (v *receiver) answer(code int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.code = code
}

func (v *receiver) got() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.bodies
}

func TestADelivery(t *testing.T) {
	r, v := newRig(t), newReceiver(t, 200)
	r.run()
	w := r.hook(v.URL + "/in")
	made := r.release("hunter2")
	d := r.delivered(status(manifold.DeliverySucceeded))
	if len(v.got()) != 1 || d.Attempts != 1 || d.Last == nil || d.Last.Code != 200 || d.Last.Error != "" || !d.NextAt.IsZero() {
		t.Fatalf("%d came; the delivery is %+v", len(v.got()), d)
	}
	text, head := v.bodies[0], v.heads[0]
	if head.Get("Heroku-Webhook-Id") != w.ID || head.Get("Authorization") != "Bearer receiver's" || head.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", head)
	}
	if head.Get("Heroku-Webhook-Hmac-SHA256") != Sign(w.Secret, []byte(text)) || strings.Contains(text, "hunter2") || strings.Contains(text, w.Secret) {
		t.Errorf("signed %s: %s", head.Get("Heroku-Webhook-Hmac-SHA256"), text)
	}
	type id struct{ ID, Include string }
	var got struct {
		ID, Action, Resource, Version string
		CreatedAt                     time.Time `json:"created_at"`
		Actor                         struct{ ID, Email string }
		Data                          struct {
			ID, Status, Description string
			Version                 int
			Current                 bool
			App                     struct{ ID, Name string }
		}
		Meta struct{ Attempt, Delivery, Event, Webhook id } `json:"webhook_metadata"`
	}
	must(t, json.Unmarshal([]byte(text), &got))
	if got.ID != d.Event.ID || got.Action != "create" || got.Resource != "release" || got.Version != Version || got.CreatedAt.IsZero() || got.Actor.ID != r.ada.ID || got.Actor.Email != r.ada.Email {
		t.Errorf("body %s", text)
	}
	if got.Data.ID != made.ID || got.Data.Version != 3 || got.Data.Status != "succeeded" || !got.Data.Current || got.Data.App.Name != "hooked" || got.Data.Description != made.Description {
		t.Errorf("data %s", text)
	}
	if got.Meta.Attempt.ID != d.Last.ID || got.Meta.Delivery.ID != d.ID || got.Meta.Event != (id{d.Event.ID, "api:release"}) || got.Meta.Webhook.ID != w.ID {
		t.Errorf("metadata %s", text)
	}
}

// The example of RFC 4231, 4.3.
func TestSign(t *testing.T) {
	want, err := hex.DecodeString("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
	must(t, err)
	if got := Sign("Jefe", []byte("what do ya want for nothing?")); got != base64.StdEncoding.EncodeToString(want) {
		t.Errorf("signed %s", got)
	}
}

// A receiver that is dead when the coordinator dies has the event from the next
// one, once and under the same ids.
func TestThroughARestart(t *testing.T) {
	r, v := newRig(t), newReceiver(t, 503)
	r.hook(v.URL)
	made := r.release("1") // nobody delivers yet
	must(t, r.store.Close())
	r.open()
	stop := r.run()
	r.delivered(func(d manifold.WebhookDelivery) bool { return d.Attempts >= 2 })
	stop()
	must(t, r.store.Close())
	v.answer(202)
	r.open()
	before := r.delivered(func(manifold.WebhookDelivery) bool { return true }).Attempts
	r.run()
	d := r.delivered(status(manifold.DeliverySucceeded))
	got := v.got()
	// One more may have come than counts: the end of the first room cut it short.
	if d.Attempts != before+1 || len(got) != d.Attempts && len(got) != d.Attempts+1 || d.Last.Code != 202 {
		t.Errorf("%d came, %d attempts were made before; the delivery is %+v", len(got), before, d)
	}
	for _, text := range got {
		if !strings.Contains(text, d.ID) || !strings.Contains(text, d.Event.ID) || !strings.Contains(text, made.ID) {
			t.Errorf("%s came", text)
		}
	}
}

// Where it is sent to is the receiver that was named, and no other.
func TestRedirectsAreNotFollowed(t *testing.T) {
	r, v := newRig(t), newReceiver(t, 302)
	r.run()
	r.hook(v.URL)
	r.release("1")
	if d := r.delivered(func(d manifold.WebhookDelivery) bool { return d.Attempts > 0 }); d.Status != manifold.DeliveryRetrying || d.Last.Code != 302 {
		t.Errorf("after a redirect: %+v", d)
	}
}

func TestForbiddenAddresses(t *testing.T) {
	v := newReceiver(t, 200)
	port := v.Listener.Addr().(*net.TCPAddr).Port
	for name, tc := range map[string]struct {
		url   string
		guard outbound.Guard
	}{
		"loopback":       {v.URL, outbound.Guard{}},
		"platform's own": {v.URL, outbound.Guard{Loopback: true, Ports: []int{port}}},
		"link-local":     {"http://169.254.169.254/latest/meta-data", outbound.Guard{Loopback: true}},
		"by its name":    {strings.Replace(v.URL, "127.0.0.1", "localhost", 1), outbound.Guard{}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.guard = tc.guard
			r.run()
			r.hook(tc.url)
			r.release("1")
			d := r.delivered(func(d manifold.WebhookDelivery) bool { return d.Attempts > 0 })
			if d.Last.Error != "forbidden_address" || d.Status != manifold.DeliveryRetrying {
				t.Errorf("last attempt %+v", d.Last)
			}
		})
	}
	if n := len(v.got()); n > 0 {
		t.Errorf("%d came", n)
	}
}

func TestWhyThereWasNoAnswer(t *testing.T) {
	r, secure := newRig(t), httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	r.run()
	for url, want := range map[string]string{
		"http://" + port.Closed(t): "connection", secure.URL: "certificate",
	} {
		hook := r.hook(url)
		r.release(url)
		for deadline := time.Now().Add(patience); ; <-time.After(5 * time.Millisecond) {
			all, err := r.store.WebhookDeliveries(t.Context(), r.app.ID)
			must(t, err)
			if last := all[len(all)-1]; last.Webhook == hook.ID && last.Last != nil {
				if last.Last.Error != want {
					t.Errorf("%s: %q, want %q", url, last.Last.Error, want)
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("no attempt at %s", url)
			}
		}
		_, err := r.store.RemoveWebhook(t.Context(), r.app.ID, hook.ID)
		must(t, err)
	}
}
