package manifold

import (
	"cmp"
	"os"
)

// DefaultPool is the network dynos get addresses of, unless MANIFOLD_POOL names
// another.
const DefaultPool = "172.30.0.0/16"

// Settings are the places and addresses that make an instance. Two instances
// with different settings live side by side on one machine.
type Settings struct {
	Home       string // MANIFOLD_HOME: state, kept across restarts
	Run        string // MANIFOLD_RUN: sockets
	Instance   string // MANIFOLD_INSTANCE: our mark on cgroups, links and tables; at most 8 of [a-z0-9]
	APIAddr    string // MANIFOLD_API_ADDR: Platform API and git, http
	TLSAddr    string // MANIFOLD_TLS_ADDR: the same, https
	AttachAddr string // MANIFOLD_ATTACH_ADDR: terminals of one-off dynos, rendezvous over TLS
	RouterAddr string // MANIFOLD_ROUTER_ADDR: apps, http
	FleetAddr  string // MANIFOLD_FLEET_ADDR: agents and routers, mTLS
}

// FromEnv reads the settings, with their defaults.
func FromEnv() Settings {
	get := func(key, fallback string) string { return cmp.Or(os.Getenv(key), fallback) }
	return Settings{
		Home:       get("MANIFOLD_HOME", "/var/lib/manifold"),
		Run:        get("MANIFOLD_RUN", "/run/manifold"),
		Instance:   get("MANIFOLD_INSTANCE", "manifold"),
		APIAddr:    get("MANIFOLD_API_ADDR", "localhost:5000"),
		TLSAddr:    get("MANIFOLD_TLS_ADDR", "localhost:5443"),
		AttachAddr: get("MANIFOLD_ATTACH_ADDR", "localhost:5444"),
		RouterAddr: get("MANIFOLD_ROUTER_ADDR", "localhost:8080"),
		FleetAddr:  get("MANIFOLD_FLEET_ADDR", "localhost:5446"),
	}
}
