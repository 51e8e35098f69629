package onemachine

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Apps are asked, and shown, by the name their routers know.
func TestAppDomain(t *testing.T) {
	m, _ := testMachine(t)
	m.Settings.RouterAddr = "localhost:8080"
	for domain, want := range map[string]string{"": "hello.localhost:8080", "apps.example.com": "hello.apps.example.com:8080"} {
		t.Setenv("MANIFOLD_APP_DOMAIN", domain)
		if got := m.appHost(app{Name: "hello"}); got != want {
			t.Errorf("with domain %q: %s, want %s", domain, got, want)
		}
	}
}

// A first run may end when the sample was pushed and before it answered, and a
// power cut may leave its record empty: the next run takes the app as it is, since
// git refuses another first commit, and remembers it.
func TestSampleOfABrokenRun(t *testing.T) {
	platform := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet && (r.URL.Path == "/apps/hello" || r.URL.Path == "/apps/id"):
			fmt.Fprint(w, `{"id": "id", "name": "hello", "slug_size": 4096}`)
		case r.URL.Path == "/apps/id/formation":
			fmt.Fprint(w, `[{"type": "web", "quantity": 1}]`)
		case strings.HasPrefix(r.Host, "hello.localhost:"):
			fmt.Fprint(w, "Hello")
		default: // what a push asks for
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer platform.Close()
	for name, record := range map[string]string{"none": "", "empty": "\x00", "half": `{"app":"`} {
		m, out := testMachine(t)
		m.Settings.APIAddr = platform.Listener.Addr().String()
		m.Settings.RouterAddr = m.Settings.APIAddr
		m.api = newClient(m.Settings)
		path, dir := filepath.Join(m.Settings.Home, "sample.json"), filepath.Join(m.Settings.Home, "coordinator")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "first-token"), []byte("token"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if record != "" {
			if err := os.WriteFile(path, []byte(strings.Trim(record, "\x00")), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		sample, err := m.sample(t.Context())
		if err != nil || sample == nil || sample.text != "Hello" {
			t.Errorf("%s: %+v, %v\n%s", name, sample, err, out)
		}
		if text, err := os.ReadFile(path); string(text) != `{"app":"id"}` {
			t.Errorf("%s: remembered is %q, %v", name, text, err)
		}
	}
}
