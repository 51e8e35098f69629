package test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"manifold/test/platform"
)

// hooked is a receiver of webhooks.
type hooked struct {
	mu     sync.Mutex
	secret string
	down   bool
	told   []string // "release create succeeded", of what it took
	tries  int      // what it did not
	bad    string
}

func (h *hooked) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	text, _ := io.ReadAll(req.Body)
	var got struct {
		Resource, Action string
		Data             struct{ Status, State string }
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		h.tries++
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	mac := hmac.New(sha256.New, []byte(h.secret))
	mac.Write(text)
	signed := base64.StdEncoding.EncodeToString(mac.Sum(nil))
	if err := json.Unmarshal(text, &got); err != nil || req.Header.Get("Heroku-Webhook-Hmac-SHA256") != signed || req.Header.Get("Authorization") != "Bearer x" {
		h.bad = fmt.Sprint(err, req.Header, string(text))
	}
	h.told = append(h.told, got.Resource+" "+got.Action+" "+got.Data.Status+got.Data.State)
}

// was waits until the receiver was told something and may set it up anew.
func (h *hooked) was(t *testing.T, ok func() bool) {
	t.Helper()
	platform.Eventually(t, 2*time.Minute, func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if !ok() {
			return fmt.Errorf("told %q after %d tries", h.told, h.tries)
		}
		return nil
	})
}

// Webhooks with the real CLI: a push is told of, and so is what happened while
// the receiver was down and the coordinator was killed.
func TestWebhooks(t *testing.T) {
	t.Parallel() // a platform of its own
	p := own(t)
	p.Extra = append(p.Extra, "MANIFOLD_DRAIN_LOOPBACK=true")
	if err := p.WithoutSample(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	app, dir := p.CreateApp(t), platform.Sample(t, "hello")
	heroku := func(args ...string) string {
		t.Helper()
		out, err := p.Heroku(t, dir, append(args, "-a", app)...)
		if err != nil {
			t.Fatalf("heroku %v: %v\n%s", args, err, out)
		}
		return out
	}
	h := &hooked{}
	receiver := httptest.NewServer(h)
	defer receiver.Close()
	out := heroku("webhooks:add", "-u", receiver.URL+"/in", "-l", "notify", "-i", "api:release,api:build", "-t", "Bearer x")
	h.mu.Lock()
	h.secret = regexp.MustCompile(`[0-9a-f]{64}`).FindString(out)
	h.mu.Unlock()
	var hooks []struct{ ID string }
	p.Call(t, "GET", "/apps/"+app+"/webhooks", nil, &hooks)
	if out := heroku("webhooks"); len(hooks) != 1 || !strings.Contains(out, hooks[0].ID) || !strings.Contains(out, receiver.URL) {
		t.Fatalf("heroku webhooks: %s", out)
	}
	p.Push(t, dir, app)
	h.was(t, func() bool { return len(h.told) == 3 })
	h.mu.Lock()
	if got := strings.Join(h.told, ", "); !strings.Contains(got, "build create pending") || !strings.Contains(got, "release create succeeded") || !strings.Contains(got, "build update succeeded") || h.bad != "" {
		t.Errorf("told of a push: %s; %s", got, h.bad)
	}
	h.told, h.down = nil, true
	h.mu.Unlock()
	p.Call(t, "PATCH", "/apps/"+app+"/config-vars", map[string]string{"A": "b"}, nil)
	h.was(t, func() bool { return h.tries > 0 })
	kill9(t, p, "manifold-coordinator")
	platform.Eventually(t, time.Minute, func() error { return apiUp(p) })
	h.mu.Lock()
	h.down = false
	h.mu.Unlock()
	h.was(t, func() bool { return len(h.told) == 1 && h.told[0] == "release create succeeded" && h.bad == "" })
	platform.Eventually(t, time.Minute, func() error {
		if out := heroku("webhooks:deliveries"); strings.Count(out, "succeeded") != 4 || !strings.Contains(out, "api:build") {
			return fmt.Errorf("heroku webhooks:deliveries: %s", out)
		}
		return nil
	})
	var deliveries []struct{ ID string }
	p.Call(t, "GET", "/apps/"+app+"/webhook-deliveries", nil, &deliveries)
	if out := heroku("webhooks:deliveries:info", deliveries[len(deliveries)-1].ID); !strings.Contains(out, "Set A config vars") {
		t.Errorf("heroku webhooks:deliveries:info: %s", out)
	}
	heroku("webhooks:update", hooks[0].ID, "-u", receiver.URL+"/in", "-l", "sync", "-i", "api:formation,dyno")
	if out := heroku("webhooks:info", hooks[0].ID); !strings.Contains(out, "sync") || strings.Contains(out, "api:build") {
		t.Errorf("heroku webhooks:info: %s", out)
	}
	p.Call(t, "PATCH", "/apps/"+app+"/formation/web", map[string]any{"quantity": 2}, nil)
	h.was(t, func() bool {
		return slices.Contains(h.told, "formation update ") && slices.Contains(h.told, "dyno create starting") && slices.Contains(h.told, "dyno update up") && h.bad == ""
	})
	heroku("webhooks:remove", hooks[0].ID)
	p.Refused(t, 404, "GET", "/apps/"+app+"/webhooks/"+hooks[0].ID, nil, "heroku webhooks")
}
