package coordinator

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"manifold"
	"manifold/coordinator/compiler"
	"manifold/coordinator/logs"
	"manifold/coordinator/outbound"
	"manifold/coordinator/scheduler"
)

// Config is all that an operator may change.
type Config struct {
	manifold.Settings
	Scheduler  scheduler.Settings
	Email      string            // of the first user, made at the first start
	BuildEnv   map[string]string // given to every build: mirrors and proxies; may hold passwords
	BuildCA    string            // file of certificates builds trust besides the stack's
	Buildpacks string            // directory below which an app may name a buildpack by its path
	BuildLimit time.Duration     // of one build
	SlugLimit  int64             // bytes
	APIRate    int               // API calls of one user an hour
	AttachForm string            // FormRendezvous or FormSSH
	AttachIdle time.Duration     // of a terminal in which nothing moves
	Keep       logs.Keep         // of each app's log
	Drains     outbound.Guard    // Ports are filled in when the doors are open
	DrainCA    string            // file of certificates receivers of log drains may have besides the host's
	Log        *slog.Logger
	Ready      func(Addresses) // called once every door is open; may be nil
}

// The forms in which clients are told to attach. Both are always served: this
// chooses what the API's attach_url is.
const (
	FormRendezvous = "rendezvous" // needs nothing of the client but trust in our CA
	FormSSH        = "ssh"        // needs ssh there; carries any bytes, and the window's size
)

// Addresses are where a coordinator really listens, for port 0.
type Addresses struct{ API, TLS, Attach, Fleet net.Addr }

// FromEnv reads the settings:
//
//	MANIFOLD_EMAIL          admin@<domain>   the first user
//	MANIFOLD_APP_DOMAIN     localhost    an app answers on <app>.<domain>
//	MANIFOLD_BACKOFF        classic      of apps that chose none; or progressive
//	MANIFOLD_BOOT_TIMEOUT   60s          for a web dyno to listen on $PORT (R10)
//	MANIFOLD_STOP_GRACE     30s          from SIGTERM to SIGKILL (R12)
//	MANIFOLD_CYCLE          24h          a dyno's age, after which another takes its place
//	MANIFOLD_CYCLE_JITTER   216m         more, at most, drawn for each dyno
//	MANIFOLD_CYCLE_AT_ONCE  10           dynos cycling at once in all; of one app a quarter of its dynos
//	MANIFOLD_FAILURES       10           requests in a row a web dyno did not answer, after which another takes its place
//	MANIFOLD_FAILURE_REST   10m          a dyno's age before that
//	MANIFOLD_DRAIN_TIMEOUT  30s          for routers to finish requests on a dyno that goes
//	MANIFOLD_START_GRACE    10s          after a start, for hosts and routers to come back
//	MANIFOLD_HOST_LOST      5m           of silence, then a host's dynos are placed elsewhere
//	MANIFOLD_ONEOFF_LIMIT   50           one-off dynos an app may run at once; of sizes over 1 GB a tenth
//	MANIFOLD_ATTACH_FORM    rendezvous   how `heroku run` connects; or ssh
//	MANIFOLD_ATTACH_IDLE    1h           without input and output, then a client is sent away
//	MANIFOLD_LOG_LINES      1500         log lines kept of an app, at least
//	MANIFOLD_LOG_TIME       168h         for which they are kept at most
//	MANIFOLD_DRAIN_LOOPBACK false        log drains and webhooks may lead to this host
//	MANIFOLD_DRAIN_CA                    file of certificates receivers of either may have too
//	MANIFOLD_BUILD_TIMEOUT  15m          of one build
//	MANIFOLD_SLUG_LIMIT     500          MB of one slug
//	MANIFOLD_API_RATE       4500         API calls of one user an hour
//	MANIFOLD_BUILD_ENV                   more variables to give to builds, by comma; NAME or PREFIX*
//	MANIFOLD_BUILD_CA                    file of certificates builds trust too
//	MANIFOLD_BUILDPACKS                  directory of buildpacks apps may name by path
func FromEnv() (Config, error) {
	def := scheduler.DefaultSettings()
	e := env{}
	c := Config{
		Settings: manifold.FromEnv(),
		Scheduler: scheduler.Settings{
			Domain:      e.text("MANIFOLD_APP_DOMAIN", def.Domain),
			Backoff:     manifold.Backoff(e.text("MANIFOLD_BACKOFF", string(def.Backoff))),
			BootTimeout: e.duration("MANIFOLD_BOOT_TIMEOUT", def.BootTimeout),
			Grace:       e.duration("MANIFOLD_STOP_GRACE", def.Grace),
			Cycle:       e.duration("MANIFOLD_CYCLE", def.Cycle),
			CycleJitter: e.duration("MANIFOLD_CYCLE_JITTER", def.CycleJitter),
			CycleAtOnce: e.number("MANIFOLD_CYCLE_AT_ONCE", def.CycleAtOnce),
			Failures:    e.number("MANIFOLD_FAILURES", def.Failures),
			FailureRest: e.duration("MANIFOLD_FAILURE_REST", def.FailureRest),
			Drain:       e.duration("MANIFOLD_DRAIN_TIMEOUT", def.Drain),
			StartGrace:  e.duration("MANIFOLD_START_GRACE", def.StartGrace),
			HostLost:    e.duration("MANIFOLD_HOST_LOST", def.HostLost),
			OneOffs:     e.number("MANIFOLD_ONEOFF_LIMIT", def.OneOffs),
		},
		BuildCA:    os.Getenv("MANIFOLD_BUILD_CA"),
		Buildpacks: os.Getenv("MANIFOLD_BUILDPACKS"),
		BuildLimit: e.duration("MANIFOLD_BUILD_TIMEOUT", 15*time.Minute),
		SlugLimit:  int64(e.number("MANIFOLD_SLUG_LIMIT", 500)) << 20,
		APIRate:    e.number("MANIFOLD_API_RATE", 4500),
		DrainCA:    os.Getenv("MANIFOLD_DRAIN_CA"),
		Keep: logs.Keep{
			Lines: e.number("MANIFOLD_LOG_LINES", logs.DefaultKeep.Lines),
			Time:  e.duration("MANIFOLD_LOG_TIME", logs.DefaultKeep.Time),
		},
		AttachForm: e.text("MANIFOLD_ATTACH_FORM", FormRendezvous),
		AttachIdle: e.duration("MANIFOLD_ATTACH_IDLE", time.Hour),
		Log:        slog.Default(),
	}
	c.Email = e.text("MANIFOLD_EMAIL", "admin@"+c.Scheduler.Domain)
	c.BuildEnv = compiler.PassThrough(os.Environ(), strings.FieldsFunc(os.Getenv("MANIFOLD_BUILD_ENV"), func(r rune) bool { return r == ',' }))
	if b := c.Scheduler.Backoff; b != manifold.BackoffClassic && b != manifold.BackoffProgressive {
		e.refuse("MANIFOLD_BACKOFF", "must be %s or %s", manifold.BackoffClassic, manifold.BackoffProgressive)
	}
	c.Drains = e.drains()
	if c.AttachForm != FormRendezvous && c.AttachForm != FormSSH {
		e.refuse("MANIFOLD_ATTACH_FORM", "must be %s or %s", FormRendezvous, FormSSH)
	}
	return c, e.err
}

// env reads variables and keeps the first error.
type env struct{ err error }

func (e *env) text(key, fallback string) string { return cmp.Or(os.Getenv(key), fallback) }

func (e *env) refuse(key, why string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf("%s "+why, append([]any{key}, args...)...)
	}
}

// maxDuration bounds what an operator may set: a month. Longer is a slip.
const maxDuration = 31 * 24 * time.Hour

func (e *env) duration(key string, fallback time.Duration) time.Duration {
	text := os.Getenv(key)
	if text == "" {
		return fallback
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > maxDuration {
		e.refuse(key, "must be a time such as 30s or 5m, at most %dh", maxDuration/time.Hour)
	}
	return d
}

func (e *env) number(key string, fallback int) int {
	text := os.Getenv(key)
	if text == "" {
		return fallback
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 || n > 1<<20 {
		e.refuse(key, "must be a number from 1 to %d", 1<<20)
	}
	return n
}

// drains reads where log drains and webhooks may not lead: to the dynos, whose network is
// the agent's setting, nor to this host unless it is said so.
func (e *env) drains() outbound.Guard {
	var g outbound.Guard
	var err error
	if g.Loopback, err = strconv.ParseBool(e.text("MANIFOLD_DRAIN_LOOPBACK", "false")); err != nil {
		e.refuse("MANIFOLD_DRAIN_LOOPBACK", "must be true or false")
	}
	pool, err := netip.ParsePrefix(e.text("MANIFOLD_POOL", manifold.DefaultPool))
	if err != nil {
		e.refuse("MANIFOLD_POOL", "must be a network such as %s", manifold.DefaultPool)
	}
	g.Nets = []netip.Prefix{pool}
	return g
}

// dir is a place of the coordinator's state.
func (c *Config) dir(names ...string) string {
	return filepath.Join(append([]string{c.Home, "coordinator"}, names...)...)
}

// stacks is where stack images lie; agents on this machine share it.
func (c *Config) stacks() string { return filepath.Join(c.Home, "stacks") }

// hookSocket is where git's pre-receive hook finds us, adminSocket where an
// operator's commands on this machine do.
func hookSocket(s manifold.Settings) string  { return filepath.Join(s.Run, "pre-receive.sock") }
func adminSocket(s manifold.Settings) string { return filepath.Join(s.Run, "coordinator.sock") }

// certNames are what a door's certificate must name: the loopback names, and
// the host of its address.
func certNames(addr string) []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host, _, err := net.SplitHostPort(addr); err == nil && host != "" && host != "localhost" {
		if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() && !ip.IsLoopback() {
			names = append(names, host)
		}
	}
	return names
}

// dialable is an address as a client on this machine would write it.
func dialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// JoinTokenFile is where a process on this machine finds a token to join with.
func JoinTokenFile(s manifold.Settings) string {
	return cmp.Or(os.Getenv("MANIFOLD_JOIN_TOKEN_FILE"), filepath.Join(s.Home, "coordinator", "join-token"))
}
