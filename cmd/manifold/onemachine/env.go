package onemachine

import (
	"os"
	"path/filepath"
	"strings"

	"manifold"
)

// hostBundle is where Debian keeps the certificates the host trusts.
const hostBundle = "/etc/ssl/certs/ca-certificates.crt"

// daemonEnv is our own environment with every setting spelled out. What a
// build needs to reach its mirrors (GOPROXY, npm_config_registry, proxies …)
// is in it already: the coordinator picks it out.
func daemonEnv(s manifold.Settings) []string {
	env := os.Environ()
	set := func(name, value string) {
		env = append(env, name+"="+value)
	}
	set("MANIFOLD_HOME", s.Home)
	set("MANIFOLD_RUN", s.Run)
	set("MANIFOLD_INSTANCE", s.Instance)
	set("MANIFOLD_API_ADDR", s.APIAddr)
	set("MANIFOLD_TLS_ADDR", s.TLSAddr)
	set("MANIFOLD_ATTACH_ADDR", s.AttachAddr)
	set("MANIFOLD_ROUTER_ADDR", s.RouterAddr)
	set("MANIFOLD_FLEET_ADDR", s.FleetAddr)
	set("MANIFOLD_JOIN_TOKEN_FILE", filepath.Join(s.Home, "coordinator", "join-token"))
	if os.Getenv("MANIFOLD_BUILD_CA") == "" {
		if ca := buildCA(); ca != "" {
			set("MANIFOLD_BUILD_CA", ca)
		}
	}
	return env
}

// buildCA finds the certificates by which this machine reaches the package
// registries, so that builds do too: a private mirror's CA is among them.
func buildCA() string {
	for _, path := range []string{os.Getenv("SSL_CERT_FILE"), os.Getenv("NODE_EXTRA_CA_CERTS"), hostBundle} {
		if path == "" || strings.HasSuffix(path, "/client/ca-bundle.pem") {
			continue // manifold env's own, which is for clients
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return ""
}
