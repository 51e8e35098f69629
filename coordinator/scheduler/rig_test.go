package scheduler

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/attach"
	"manifold/coordinator/fleet"
	"manifold/coordinator/logs"
	"manifold/coordinator/pki"
	"manifold/coordinator/store"
	"manifold/slugfs"
)

// patience is how long a test waits for what must happen: a machine may be busy
// with others' tests.
const patience = time.Minute

// rig is a real store, fleet and scheduler. Only agents and routers are made
// up, and they speak over real mTLS.
type rig struct {
	t     *testing.T
	dir   string
	store *store.Store
	ca    *pki.CA
	logs  *logs.Hub
	imgs  *slugfs.Store
	user  manifold.User
	set   Settings
	come  time.Duration // for clients of terminals

	mu    sync.Mutex
	addr  string // of the fleet, as of the last start
	sched *Scheduler
	fleet *fleet.Server
	room  *attach.Room
	halt  func()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), user: manifold.User{ID: uuid.NewString(), Email: "a@example.com"}, set: DefaultSettings(), come: patience}
	r.set.StartGrace, r.set.Drain = 2*time.Second, 10*patience // nobody waits for Drain in vain
	quiet := slog.New(slog.DiscardHandler)
	var err error
	r.store, err = store.Open(t.Context(), filepath.Join(r.dir, "store"), quiet)
	must(t, err)
	t.Cleanup(func() { must(t, r.store.Close()) })
	r.ca, err = pki.Open(func(key string, make func() ([]byte, error)) ([]byte, error) {
		return r.store.Once(t.Context(), key, make)
	})
	must(t, err)
	r.logs, err = logs.Open(filepath.Join(r.dir, "logs"))
	must(t, err)
	t.Cleanup(func() { must(t, r.logs.Close()) })
	r.imgs, err = slugfs.Open(filepath.Join(r.dir, "images"))
	must(t, err)
	t.Cleanup(func() { must(t, r.imgs.Close()) })
	return r
}

// start is a coordinator's start: nothing but the store and the disk is left
// of the one before.
func (r *rig) start() {
	r.t.Helper()
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(r.t.Output(), nil))
	}
	room := attach.New(attach.Config{TLS: &tls.Config{}, Come: r.come, Log: log})
	f, err := fleet.Open(fleet.Config{
		Cluster: r.store.Cluster(), Store: r.store, CA: r.ca, Names: []string{"127.0.0.1"}, Logs: r.logs, Images: r.imgs, Attach: room,
		Dir: filepath.Join(r.dir, "fleet"), JobsDir: filepath.Join(r.dir, "jobs"), Log: log,
	})
	must(r.t, err)
	s := New(Config{
		Settings: r.set, Store: r.store, Fleet: f, Attach: room, Log: log,
		Layers: func(string) ([]manifold.Image, error) { return []manifold.Image{{Digest: "sha256:stack"}}, nil },
		Tell:   func(app, process, text string) { r.logs.Write(app, manifold.SourceHeroku, process, text) },
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { must(r.t, f.Serve(ctx, ln)) })
	parts.Go(func() { must(r.t, s.Run(ctx)) })
	r.mu.Lock()
	r.addr, r.sched, r.fleet, r.room = ln.Addr().String(), s, f, room
	r.mu.Unlock()
	r.halt = sync.OnceFunc(func() {
		cancel()
		parts.Wait()
		must(r.t, f.Close())
	})
	r.t.Cleanup(r.halt)
}

func (r *rig) address() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addr
}

// app makes an app with a first release of code.
func (r *rig) app(types map[string]string) manifold.App {
	r.t.Helper()
	a, err := r.store.CreateApp(r.t.Context(), manifold.App{Stack: "cedar"}, r.user)
	must(r.t, err)
	r.deploy(a, types)
	return a
}

func (r *rig) deploy(a manifold.App, types map[string]string) manifold.Release {
	r.t.Helper()
	release, err := r.store.Deploy(r.t.Context(), a.ID, manifold.Slug{
		ID: uuid.NewString(), App: a.ID, Stack: "cedar", ProcessTypes: types, Image: manifold.Image{Digest: "sha256:slug"},
	}, "Deploy", r.user)
	must(r.t, err)
	return release
}

func (r *rig) scale(a manifold.App, typ string, quantity int) {
	r.t.Helper()
	_, err := r.store.UpdateFormation(r.t.Context(), a.ID, func(f []manifold.Formation) ([]manifold.Formation, error) {
		for i := range f {
			if f[i].Type == typ {
				f[i].Quantity = quantity
			}
		}
		return f, nil
	})
	must(r.t, err)
}

// peer is the part agents and routers share: an identity and a stream that is
// opened again when it breaks.
type peer struct {
	r      *rig
	id     manifold.Identity
	path   string
	take   func(line []byte)
	cancel func()
	saying sync.Mutex // held from what is said to the answer: the last word is what is so
}

func (r *rig) join(role, path string, take func([]byte)) *peer {
	r.t.Helper()
	secret, err := r.store.CreateJoinToken(r.t.Context(), time.Hour)
	must(r.t, err)
	id, err := manifold.Join(r.t.Context(), r.address(), secret+"."+r.ca.Fingerprint(), role, role)
	must(r.t, err)
	p := &peer{r: r, id: id, path: path, take: take}
	r.t.Cleanup(func() { p.halt() })
	return p
}

// follow opens the stream until halt. tell is called when the line is new and
// after each message.
func (p *peer) follow(tell func(*manifold.Link) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			link, err := manifold.NewLink(p.r.address(), p.id)
			if err != nil {
				panic(err)
			}
			_ = tell(link)
			_ = link.Stream(ctx, p.path, func(line []byte) error {
				p.take(line)
				return tell(link)
			})
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	p.cancel = sync.OnceFunc(func() { cancel(); <-done })
}

func (p *peer) halt() {
	if p.cancel != nil {
		p.cancel()
	}
}

// agent runs what it is told. Behave says into which state a new dyno comes.
type agent struct {
	*peer
	mu      sync.Mutex
	behave  func(manifold.Assignment) manifold.State
	applied int64
	dynos   map[string]manifold.Dyno
	told    []manifold.Desired
}

func (r *rig) agent() *agent {
	a := &agent{dynos: map[string]manifold.Dyno{}, behave: func(manifold.Assignment) manifold.State { return manifold.StateUp }}
	a.peer = r.join(manifold.RoleAgent, "/fleet/v1/desired", a.apply)
	a.follow(a.observe)
	return a
}

// come says into which state dynos come from now on.
func (a *agent) come(behave func(manifold.Assignment) manifold.State) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.behave = behave
}

func (a *agent) apply(line []byte) {
	var d manifold.Desired
	if err := json.Unmarshal(line, &d); err != nil {
		panic(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if d.Revision < a.applied {
		panic("a revision went back")
	}
	a.applied = d.Revision
	a.told = append(a.told, d)
	keep := map[string]manifold.Dyno{}
	for _, as := range d.Assignments {
		dyno, ok := a.dynos[as.ID]
		if !ok {
			dyno = manifold.Dyno{Assignment: as.ID, Run: "run-" + as.ID, App: as.App, Name: as.Dyno, State: a.behave(as), Since: time.Now(), Addr: "127.0.0.1:9"}
		}
		keep[as.ID] = dyno
	}
	a.dynos = keep
}

func (a *agent) observe(link *manifold.Link) error {
	a.saying.Lock()
	defer a.saying.Unlock()
	a.mu.Lock()
	o := manifold.Observation{Revision: a.applied}
	for _, d := range a.dynos {
		o.Dynos = append(o.Dynos, d)
	}
	a.mu.Unlock()
	return link.Post(context.Background(), "/fleet/v1/observed", o)
}

// set changes what the agent says of its dynos, and says it.
func (a *agent) set(change func(*manifold.Dyno)) {
	a.r.t.Helper()
	a.mu.Lock()
	for id, d := range a.dynos {
		change(&d)
		a.dynos[id] = d
	}
	a.mu.Unlock()
	link, err := manifold.NewLink(a.r.address(), a.id)
	must(a.r.t, err)
	must(a.r.t, a.observe(link))
}

// running lists the assignments a host runs, by dyno name.
func (a *agent) running() map[string][]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := map[string][]string{}
	for id, d := range a.dynos {
		all[d.Name] = append(all[d.Name], id)
	}
	return all
}

func (a *agent) runs(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.dynos[id]
	return ok
}

// one waits until a slot has exactly one dyno, other than those given.
func (a *agent) one(name string, not ...string) string {
	a.r.t.Helper()
	var got string
	eventually(a.r.t, "one new "+name+" runs alone", func() bool {
		ids := a.running()[name]
		if len(ids) != 1 || strings.Contains(strings.Join(not, " "), ids[0]) {
			return false
		}
		got = ids[0]
		return true
	})
	return got
}

// router takes tables and says what is open on withdrawn dynos.
type router struct {
	*peer
	mu     sync.Mutex
	tables []manifold.RouteTable
	open   map[string]int
	fails  map[string]int
}

func (r *rig) router() *router {
	rt := &router{}
	rt.peer = r.join(manifold.RoleRouter, "/fleet/v1/routes", func(line []byte) {
		var table manifold.RouteTable
		if err := json.Unmarshal(line, &table); err != nil {
			panic(err)
		}
		rt.mu.Lock()
		defer rt.mu.Unlock()
		rt.tables = append(rt.tables, table)
	})
	rt.follow(rt.ack)
	return rt
}

func (rt *router) ack(link *manifold.Link) error {
	rt.saying.Lock()
	defer rt.saying.Unlock()
	rt.mu.Lock()
	a := manifold.RouteAck{Draining: rt.open, Failing: rt.fails}
	if len(rt.tables) > 0 {
		a.Revision = rt.tables[len(rt.tables)-1].Revision
	}
	rt.mu.Unlock()
	return link.Post(context.Background(), "/fleet/v1/routes/ack", a)
}

// say changes the open requests and tells the coordinator.
func (rt *router) say(open map[string]int) {
	rt.r.t.Helper()
	rt.mu.Lock()
	rt.open = open
	rt.mu.Unlock()
	link, err := manifold.NewLink(rt.r.address(), rt.id)
	must(rt.r.t, err)
	must(rt.r.t, rt.ack(link))
}

// backends are the runs routed to for an app, in the newest table.
func (rt *router) backends(app string) []string {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if len(rt.tables) == 0 {
		return nil
	}
	return backends(rt.tables[len(rt.tables)-1], app)
}

func backends(table manifold.RouteTable, app string) (runs []string) {
	for _, route := range table.Routes {
		if route.App == app {
			for _, b := range route.Backends {
				runs = append(runs, b.Run)
			}
		}
	}
	return runs
}

// neverBare checks every table there was: once an app had a backend, it has
// one for as long as web dynos are wanted.
func (rt *router) neverBare(app string) {
	rt.r.t.Helper()
	rt.mu.Lock()
	defer rt.mu.Unlock()
	had := false
	for i, table := range rt.tables {
		for _, route := range table.Routes {
			if route.App != app || route.WebQuantity == 0 {
				continue
			}
			if had && len(route.Backends) == 0 {
				rt.r.t.Errorf("table %d of %d routes to nothing: %+v", i+1, len(rt.tables), route)
			}
			had = had || len(route.Backends) > 0
		}
	}
}

func (rt *router) routesTo(app, assignment string) bool {
	return strings.Contains(strings.Join(rt.backends(app), " "), assignment)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
		panic(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// stays checks that something does not happen for a while.
func stays(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if !ok() {
			t.Fatalf("did not stay so: %s", what)
		}
	}
}

func (r *rig) placements() []store.Placement {
	r.t.Helper()
	all, err := r.store.Placements(r.t.Context())
	must(r.t, err)
	return all
}

func (r *rig) phase(id string) store.Phase {
	for _, p := range r.placements() {
		if p.Assignment.ID == id {
			return p.Phase
		}
	}
	return "gone"
}

// kick has passes made while the test waits for one that only time brings.
func (r *rig) kick() {
	ctx, cancel := context.WithCancel(context.Background())
	var part sync.WaitGroup
	part.Go(func() {
		for ctx.Err() == nil {
			r.sched.wake()
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	r.t.Cleanup(func() { cancel(); part.Wait() })
}
