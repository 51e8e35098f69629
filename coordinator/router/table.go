package router

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"manifold"
)

// table is a RouteTable made ready for look-ups. It never changes; the next
// one takes its place, and superseded is closed then.
type table struct {
	revision   int64
	known      bool // false until the first table came, from the coordinator or from disk
	hosts      map[string]*route
	superseded chan struct{}
}

// route is one app's entry.
type route struct {
	manifold.Route
	dynos []*dyno
	open  *atomic.Int64 // requests in progress; outlives tables
}

// find returns the app for a Host header's value: the exact name first, then
// the wildcard of its parent domain. Port and letter case do not matter.
func (t *table) find(host string) *route {
	name := host
	if i := strings.LastIndexByte(name, ':'); i >= 0 && !strings.HasSuffix(name, "]") {
		name = name[:i]
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if r := t.hosts[name]; r != nil {
		return r
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		return t.hosts["*."+parent]
	}
	return nil
}

// pick draws one of the dynos that are not in quarantine and were not tried,
// each as likely as the other. It returns nil if there is none.
func (r *route) pick(now time.Time, tried []*dyno) *dyno {
	var room [16]*dyno
	fit := room[:0]
	for _, d := range r.dynos {
		if d.quarantined(now) || contains(tried, d) {
			continue
		}
		fit = append(fit, d)
	}
	if len(fit) == 0 {
		return nil
	}
	return fit[rand.IntN(len(fit))]
}

func contains(dynos []*dyno, d *dyno) bool {
	for _, x := range dynos {
		if x == d {
			return true
		}
	}
	return false
}

// tables holds the table in force and the dynos it names, and the dynos it no
// longer names that still have requests open.
//
//	apply:   new table in force ─▶ withdrawn dynos marked ─▶ their open requests counted ─▶ ack
//	request: dyno chosen ─▶ counted on it ─▶ marked? then count back and choose again
//
// So no request can be on a withdrawn dyno without being counted in the ack,
// and none fails because a table changed.
type tables struct {
	current atomic.Pointer[table]
	drained func() // called when a withdrawn dyno's last request ends; never blocks

	mu       sync.Mutex
	cluster  string
	dynos    map[string]*dyno         // by run and address
	draining map[*dyno]struct{}       // withdrawn; some have no request open any more
	open     map[string]*atomic.Int64 // by app
}

func newTables(drained func()) *tables {
	t := &tables{drained: drained, dynos: map[string]*dyno{}, draining: map[*dyno]struct{}{}, open: map[string]*atomic.Int64{}}
	t.current.Store(&table{superseded: make(chan struct{})})
	return t
}

// apply puts the table in raw in force. A table that is not whole and sound
// is refused, and the one in force stays.
func (t *tables) apply(raw []byte) error {
	var wire manifold.RouteTable
	if err := json.Unmarshal(raw, &wire); err != nil {
		return fmt.Errorf("read route table: %w", err)
	}
	if err := check(wire); err != nil {
		return fmt.Errorf("route table %d: %w", wire.Revision, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cluster != "" && wire.Cluster != t.cluster {
		return fmt.Errorf("route table %d is of cluster %.64q, this router belongs to %q", wire.Revision, wire.Cluster, t.cluster)
	}
	next := &table{revision: wire.Revision, known: true, hosts: map[string]*route{}, superseded: make(chan struct{})}
	dynos, open := map[string]*dyno{}, map[string]*atomic.Int64{}
	for _, w := range wire.Routes {
		r := &route{Route: w, open: t.open[w.App]}
		if r.open == nil {
			r.open = new(atomic.Int64)
		}
		open[w.App] = r.open
		for _, b := range w.Backends {
			key := b.Run + " " + b.Addr
			d := t.dynos[key]
			if d == nil {
				d = newDyno(b, t.drained)
			}
			dynos[key] = d
			r.dynos = append(r.dynos, d)
		}
		for _, h := range w.Hosts {
			next.hosts[h] = r
		}
	}
	old := t.current.Swap(next)
	close(old.superseded)
	for key, d := range t.dynos {
		if dynos[key] == nil {
			d.withdraw()
			t.draining[d] = struct{}{}
		}
	}
	t.dynos, t.open = dynos, open
	return nil
}

// belong says whose tables are taken from now on.
func (t *tables) belong(cluster string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cluster = cluster
}

// failingFrom is how many requests in a row make a dyno worth a word.
const failingFrom = 5

// ack says what is in force now.
func (t *tables) ack() manifold.RouteAck {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := manifold.RouteAck{Revision: t.current.Load().revision}
	for d := range t.draining {
		n := d.open.Load()
		if n == 0 {
			delete(t.draining, d)
			continue
		}
		if a.Draining == nil {
			a.Draining = map[string]int{}
		}
		a.Draining[d.Run] += int(n)
	}
	for _, d := range t.dynos {
		if n := d.failed.Load(); n >= failingFrom {
			if a.Failing == nil {
				a.Failing = map[string]int{}
			}
			a.Failing[d.Run] = int(n)
		}
	}
	return a
}

// reap closes connections to dynos that were idle for too long.
func (t *tables) reap(before time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range t.dynos {
		d.reap(before)
	}
}

// check refuses a table that would send requests astray. It asks only for
// what this router uses: fields and routes it does not know are no harm.
func check(wire manifold.RouteTable) error {
	if wire.Cluster == "" {
		return errors.New("it names no cluster")
	}
	apps, hosts := map[string]bool{}, map[string]bool{}
	for _, r := range wire.Routes {
		if r.App == "" || apps[r.App] {
			return fmt.Errorf("app %.64q is missing its id or is there twice", r.App)
		}
		apps[r.App] = true
		for _, h := range r.Hosts {
			if h == "" || len(h) > 253 || h != strings.ToLower(h) || strings.ContainsAny(strings.TrimPrefix(h, "*."), "*:/ ") {
				return fmt.Errorf("app %.64q: host %.300q is malformed", r.App, h)
			}
			if hosts[h] {
				return fmt.Errorf("app %.64q: host %.300q is another app's too", r.App, h)
			}
			hosts[h] = true
		}
		for _, b := range r.Backends {
			if addr, err := netip.ParseAddrPort(b.Addr); err != nil || addr.Port() == 0 || b.Run == "" {
				return fmt.Errorf("app %.64q: dyno %.64q, run %.64q, has the address %.64q", r.App, b.Dyno, b.Run, b.Addr)
			}
			if _, _, err := manifold.SplitDynoName(b.Dyno); err != nil {
				return fmt.Errorf("app %.64q: %w", r.App, err)
			}
		}
	}
	return nil
}
