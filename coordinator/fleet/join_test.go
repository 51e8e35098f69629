package fleet

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"

	"manifold"
)

func TestJoin(t *testing.T) {
	r := newRig(t)
	expired := r.token(time.Nanosecond)
	good := r.token(time.Hour)
	secret, fingerprint, _ := strings.Cut(good, ".")
	for _, c := range []struct{ name, token, role, want string }{
		{"good agent", good, manifold.RoleAgent, ""},
		{"good router, same token", good, manifold.RoleRouter, ""},
		{"expired", expired, manifold.RoleAgent, "wrong or has expired"},
		{"wrong secret", "x" + secret + "." + fingerprint, manifold.RoleAgent, "wrong or has expired"},
		{"empty secret", "." + fingerprint, manifold.RoleAgent, "wrong or has expired"},
		{"no fingerprint", secret, manifold.RoleAgent, "malformed"},
		{"another coordinator's", secret + "." + strings.Repeat("0", 64), manifold.RoleAgent, "wrong coordinator"},
		{"unknown role", good, "root", "role must be"},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, err := manifold.Join(t.Context(), r.addr, c.token, c.role, "host-a")
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want == "" && (id.ID == "" || id.Cluster != r.store.Cluster()):
				t.Fatalf("identity is %+v", id)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	hosts, err := r.store.Hosts(t.Context())
	must(t, err)
	if len(hosts) != 1 || hosts[0].Name != "host-a" {
		t.Fatalf("hosts are %+v, want the one agent that joined", hosts)
	}
}

func TestRoles(t *testing.T) {
	r := newRig(t)
	agent, router := r.join(manifold.RoleAgent), r.join(manifold.RoleRouter)
	for _, c := range []struct {
		who  peer
		path string
		want int
	}{
		{agent, "/fleet/v1/routes", 403},
		{router, "/fleet/v1/desired", 403},
		{router, "/fleet/v1/images/sha256:" + strings.Repeat("0", 64), 403},
		{router, "/fleet/v1/jobs/x/input", 403},
		{agent, "/fleet/v1/jobs/x/input", 404},
		{agent, "/fleet/v1/nothing", 404},
	} {
		if got, _ := c.who.get(t, c.path); got != c.want {
			t.Errorf("%s answered %d, want %d", c.path, got, c.want)
		}
	}
	if err := router.Post(t.Context(), "/fleet/v1/observed", manifold.Observation{}); status(err) != 403 {
		t.Errorf("a router may observe: %v", err)
	}
	if err := agent.Post(t.Context(), "/fleet/v1/routes/ack", manifold.RouteAck{}); status(err) != 403 {
		t.Errorf("an agent may acknowledge routes: %v", err)
	}
}

func TestNoCertificate(t *testing.T) {
	r := newRig(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.ca.Pool()}}}
	defer client.CloseIdleConnections()
	for _, path := range []string{"/fleet/v1/desired", "/fleet/v1/routes", "/fleet/v1/images/x", "/fleet/v1/jobs/x/input"} {
		res, err := client.Get("https://" + r.addr + path)
		must(t, err)
		must(t, res.Body.Close())
		if res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s answered %d without a certificate, want 401", path, res.StatusCode)
		}
	}
}

func TestStrangersCertificate(t *testing.T) {
	r, other := newRig(t), newRig(t)
	id, err := manifold.Join(t.Context(), other.addr, other.token(time.Hour), manifold.RoleAgent, "stranger")
	must(t, err)
	id.CA = string(r.ca.PEM()) // it trusts us; we must not trust it
	if got, text := r.link(id).get(t, "/fleet/v1/desired"); got != 0 {
		t.Fatalf("answered %d %s to a certificate of another CA", got, text)
	}
	// The coordinator's own certificate is no peer's either.
	cert, err := r.ca.Server("localhost")
	must(t, err)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.ca.Pool(), Certificates: []tls.Certificate{cert}}}}
	defer client.CloseIdleConnections()
	if res, err := client.Get("https://" + r.addr + "/fleet/v1/desired"); err == nil {
		res.Body.Close()
		t.Fatalf("answered %d to a server's certificate", res.StatusCode)
	}
}
