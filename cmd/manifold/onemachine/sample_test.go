package onemachine

import "testing"

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
