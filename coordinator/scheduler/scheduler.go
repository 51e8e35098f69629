package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/attach"
	"manifold/coordinator/fleet"
	"manifold/coordinator/store"
)

// ErrNoHost means that no live host can take a dyno.
var ErrNoHost = errors.New("no host is online to run it: start manifold-agent on a host and join it")

// Settings are the times and names an operator may change. Zero values are
// not defaults: see DefaultSettings.
type Settings struct {
	Domain      string           // an app answers on <app>.Domain
	Backoff     manifold.Backoff // of apps that chose none
	BootTimeout time.Duration    // for a web dyno to listen on $PORT; then R10
	Grace       time.Duration    // from SIGTERM to SIGKILL
	Cycle       time.Duration    // a dyno's age, after which another takes its place
	CycleJitter time.Duration    // more, at most, drawn for each dyno
	CycleAtOnce int              // dynos cycling at once in all; of one app a quarter of its dynos
	Failures    int              // requests in a row a web dyno did not answer, after which another takes its place
	FailureRest time.Duration    // a dyno's age before that
	Drain       time.Duration    // at most, for routers to finish requests on a dyno that goes
	StartGrace  time.Duration    // after our start, for hosts and routers to come back
	HostLost    time.Duration    // of silence, after which a host's dynos are placed elsewhere
	OneOffs     int              // one-off dynos an app may run at once; of the larger sizes a tenth
}

// DefaultSettings are what Heroku does, where it says.
func DefaultSettings() Settings {
	return Settings{
		Domain: "localhost", Backoff: manifold.BackoffClassic,
		BootTimeout: 60 * time.Second, Grace: 30 * time.Second, Drain: 30 * time.Second,
		Cycle: 24 * time.Hour, CycleJitter: 216 * time.Minute, CycleAtOnce: 10,
		Failures: 10, FailureRest: 10 * time.Minute,
		StartGrace: 10 * time.Second, HostLost: 5 * time.Minute,
		OneOffs: 50,
	}
}

// Config says what a scheduler works with.
type Config struct {
	Settings Settings
	Store    *store.Store
	Fleet    *fleet.Server
	Attach   *attach.Room
	// Layers gives the images a dyno on a stack runs on, below its slug.
	Layers func(stack string) ([]manifold.Image, error)
	// Tell writes one of the platform's lines to an app's log. It may be nil.
	Tell func(app, process, text string)
	Log  *slog.Logger
}

// Scheduler places dynos. All methods may be called by any goroutine while
// Run runs.
type Scheduler struct {
	cfg      Config
	started  time.Time
	hostWait time.Duration
	kick     chan struct{}

	// The loop's own; nobody else touches them.
	stored    *stored // nil: read it again
	told      *stored // what revisions were given for
	toldExecs int     // and the execs' changes
	revisions map[string]int64
	withdrawn map[string]withdrawal
	dropped   map[string]int64
	said      map[string]string // slot → what was last said of it

	mu      sync.Mutex
	last    *state        // of the last pass; nil until the hosts are back
	changed chan struct{} // closed and renewed with each pass
	jobs    map[string]bool

	execs        map[string]execution // by id
	execsChanged int                  // how often

	oneOffs sync.Mutex // held while one is placed
}

// New makes a scheduler; Run makes it work.
func New(cfg Config) *Scheduler {
	return &Scheduler{
		cfg: cfg, started: time.Now(), hostWait: hostWait, kick: make(chan struct{}, 1),
		withdrawn: map[string]withdrawal{}, dropped: map[string]int64{}, said: map[string]string{},
		changed: make(chan struct{}), jobs: map[string]bool{}, execs: map[string]execution{},
	}
}

// How often a pass is made when nothing is heard.
const (
	tickBusy    = time.Second
	tickSettled = 15 * time.Second
)

// Run reconciles until ctx ends: at every change of the store or the fleet,
// every second while something is on its way, and now and then anyway.
func (s *Scheduler) Run(ctx context.Context) error {
	changes := s.cfg.Store.Changes(ctx)
	for {
		settled, err := s.reconcile(ctx)
		tick := tickBusy
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.cfg.Log.Error("could not reconcile; trying again", "err", err)
			s.stored = nil
		case settled:
			tick = tickSettled
		}
		timer := time.NewTimer(tick)
		select {
		case <-ctx.Done():
		case _, open := <-changes:
			if !open {
				changes = nil
			}
			s.stored = nil
		case <-s.cfg.Fleet.Changed():
		case <-s.kick:
		case <-timer.C:
			if settled {
				s.stored = nil // once in a while, in case we missed something: a stack was built
			}
		}
		timer.Stop()
	}
}

// reconcile makes passes until there is nothing to do for now. Each pass
// tells hosts and routers only what the store holds already.
func (s *Scheduler) reconcile(ctx context.Context) (settled bool, err error) {
	for range 64 { // more passes in a row than any change needs; the next tick goes on
		st, err := s.look(ctx)
		if err != nil {
			return false, err
		}
		if !s.ready(st) {
			return false, nil
		}
		s.publish(st)
		s.show(st)
		actions := plan(st)
		s.forget(actions)
		done := 0
		for _, a := range actions {
			changed, err := s.do(ctx, st, a)
			if err != nil {
				return false, err
			}
			if changed {
				done++
			}
		}
		if done == 0 {
			return st.settled(), nil
		}
		s.stored = nil
	}
	return false, nil
}

// ready holds everything back after a start until each host that joined has
// said what it runs, or had the time to. Acting earlier would take dynos for
// missing that are only not reported yet.
func (s *Scheduler) ready(st *state) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil || st.now.Sub(s.started) >= s.cfg.Settings.StartGrace {
		return true
	}
	for _, h := range st.stored.hosts {
		if st.hosts[h.ID].Seen.IsZero() {
			return false
		}
	}
	return true
}

// show makes the pass's state visible to Dynos and jobs.
func (s *Scheduler) show(st *state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = st
	close(s.changed)
	s.changed = make(chan struct{})
}

// watch returns the last pass's state, nil until there is one, and a channel
// that is closed with the next.
func (s *Scheduler) watch() (*state, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.changed
}

// publish tells each host what to run and routers where to route, and keeps
// from which revision on a placement is gone from there.
func (s *Scheduler) publish(st *state) {
	if s.told != st.stored || s.toldExecs != st.execsChanged {
		s.told, s.toldExecs, s.revisions = st.stored, st.execsChanged, map[string]int64{}
		for host, desired := range st.desired() {
			revision, err := s.cfg.Fleet.SetDesired(host, desired)
			if err != nil {
				s.cfg.Log.Error("could not tell a host what to run", "err", err)
				s.told = nil
				continue
			}
			s.revisions[host] = revision
		}
	}
	keep := map[string]bool{}
	routes, err := s.cfg.Fleet.SetRoutes(st.routes())
	if err != nil {
		s.cfg.Log.Error("could not tell routers the routes", "err", err)
	}
	for _, p := range st.stored.placements {
		id := p.Assignment.ID
		keep[id] = true
		if _, ok := s.withdrawn[id]; !ok && p.Phase == store.Retiring && err == nil {
			s.withdrawn[id] = withdrawal{routes, st.now}
		}
		if revision := s.revisions[p.Host]; p.Phase == store.Stopping && revision != 0 && s.dropped[id] == 0 {
			s.dropped[id] = revision
		}
	}
	for id := range s.withdrawn {
		if !keep[id] {
			delete(s.withdrawn, id)
		}
	}
	for id := range s.dropped {
		if !keep[id] {
			delete(s.dropped, id)
		}
	}
}

// do executes one action and says whether it changed the store.
func (s *Scheduler) do(ctx context.Context, st *state, a action) (changed bool, err error) {
	switch a.verb {
	case place:
		assignment := st.assignment(a.slot)
		a.id = uuid.NewString()
		assignment.ID, assignment.CreatedAt = a.id, time.Now().UTC()
		assignment.CycleAt = st.cycleAt(assignment)
		err = s.cfg.Store.PutPlacement(ctx, store.Placement{Host: a.host, Assignment: assignment})
	case retire, stop:
		err = s.setPhase(ctx, a.id, phases[a.verb])
		s.cfg.Attach.Cancel(a.id) // a client that still waits for it waits in vain
	case cycle:
		err = s.update(ctx, a.id, func(p *store.Placement) { p.Replace, p.Cycled = true, true })
	case revive:
		err = s.update(ctx, a.id, func(p *store.Placement) { p.Replace = true })
		if err == nil && s.cfg.Tell != nil {
			s.cfg.Tell(a.slot.app, a.slot.dyno, a.text)
		}
	case remove:
		err = s.cfg.Store.DeletePlacement(ctx, a.id)
	case say:
		if s.said[a.slot.key()] != a.text {
			s.said[a.slot.key()] = a.text
			s.cfg.Log.Warn("a dyno waits", "app", a.slot.app, "dyno", a.slot.dyno, "why", a.text)
			if s.cfg.Tell != nil {
				s.cfg.Tell(a.slot.app, a.slot.dyno, a.text)
			}
		}
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s %s of app %s: %w", a.verb, a.slot.dyno, a.slot.app, err)
	}
	s.cfg.Log.Info("dyno: "+string(a.verb), "app", a.slot.app, "dyno", a.slot.dyno, "assignment", a.id, "host", a.host)
	return true, nil
}

var phases = map[verb]store.Phase{retire: store.Retiring, stop: store.Stopping}

// setPhase moves a placement forward; one that is gone has arrived already.
func (s *Scheduler) setPhase(ctx context.Context, id string, to store.Phase) error {
	return s.update(ctx, id, func(p *store.Placement) {
		if p.Phase != store.Stopping {
			p.Phase = to
		}
	})
}

func (s *Scheduler) update(ctx context.Context, id string, change func(*store.Placement)) error {
	err := s.cfg.Store.UpdatePlacement(ctx, id, func(p *store.Placement) error {
		change(p)
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// forget drops what was said of slots that wait no longer.
func (s *Scheduler) forget(actions []action) {
	waits := map[string]bool{}
	for _, a := range actions {
		if a.verb == say {
			waits[a.slot.key()] = true
		}
	}
	for key := range s.said {
		if !waits[key] {
			delete(s.said, key)
		}
	}
}
