// Package agent is the host daemon: it makes what the coordinator desires
// into running dynos, takes over those an agent before it left, and reports
// what it sees and what they log.
//
// A dyno must never notice its agent: not its death, its upgrade, a slow disk
// or a coordinator that is away. So intent is recorded before it is acted on
// (records.go), every effect can be done twice (supervisor), the cgroup tree
// is the truth on start-up, and nothing waits for the coordinator but what
// only it can give. The agent must never decide where a dyno runs or what is
// desired, never touch what does not carry the instance's mark, and never put
// a secret into argv, a log or an error.
//
//	link.go       join, and the stream of what is desired
//	reconcile.go  desired × drivers; adoption
//	driver.go     one dyno's life: record, effects, events (view.go: as others see it)
//	launch.go     images → box → process; readiness
//	health.go     whether a dyno that is up still works
//	jobs.go       a build's input and outputs
//	attach.go     a client's terminal or pipes; execs.go more processes in a dyno
//	runlog.go     one run's two log streams on disk
//	ship.go       their way to the coordinator; tail.go sees writes
//	observe.go    what the coordinator is told
//	hands.go      what the door has the agent do: drain.go, freeze.go, autopsy.go
//	examine.go    the doctor's facts
//	evidence.go   what is kept of a run that ended
//	eyes.go       what an SRE is shown at the door (package door); teardown.go
//	notify.go     what systemd is told; pulse.go which loops make progress
package agent

import (
	"context"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"manifold"
	"manifold/agent/door"
	"manifold/agent/why"
	"manifold/isolation"
	"manifold/supervisor"
)

type agent struct {
	cfg    Config
	log    *slog.Logger
	home   home
	boot   string
	policy supervisor.Policy
	// sampleEvery is how often a dyno's memory is looked at.
	sampleEvery time.Duration

	boxes  boxHost
	images imageStore
	uplink *uplink
	fresh  manifold.Identity // as the coordinator gave it, until it is written down; join's own
	up     coordinator       // the same, or a test's
	shelf  shelf
	morgue morgue
	ship   *shipper

	ended    *why.Store    // what is known of runs that ended
	releases *why.Releases // and of what they ran
	events   *door.Events  // nil in some tests

	works func(ctx context.Context, url, host string, timeout time.Duration) error // health.go, or a test's

	// fault is called before each record and each effect: tests have the
	// agent die there. Nil outside tests.
	fault func(point string)

	ctx     context.Context // ends when the agent does
	work    sync.WaitGroup  // everything started on ctx
	pulse   *pulse
	heard   atomic.Bool   // the coordinator took the last observation
	starts  chan struct{} // bounds boxes being built at once
	changed chan struct{} // something to observe
	telling chan struct{} // held while the coordinator is told: an older message that came last would be believed

	mu       sync.Mutex
	id       manifold.Identity
	desired  manifold.Desired
	unsaved  bool  // desired is not on disk yet
	known    bool  // desired was loaded or received: else nothing may be stopped by it
	applied  int64 // revision of desired that was reconciled
	drivers  map[string]*driver
	execs    map[string]bool      // those desired and begun
	halting  bool                 // torn down: nothing is begun any more
	draining bool                 // this host is to be emptied (drain.go)
	healed   map[string]time.Time // by app: when one of its dynos was last restarted for its health

	tearing sync.Mutex // held while a teardown is under way
	torn    bool
	hurry   atomic.Bool // teardown kills instead of waiting
}

// Run runs the agent until ctx ends, and then leaves the dynos running, or
// until it was told to tear everything down. It returns an error if it could
// not start; a second agent on the same home is one such case.
func Run(ctx context.Context, cfg Config) error {
	h := home{filepath.Join(cfg.Home, "agent")}
	images, err := h.open(filepath.Join(cfg.Home, "stacks"))
	if err != nil {
		return err
	}
	defer images.Close()
	boot, err := bootID()
	if err != nil {
		return err
	}
	host, err := isolation.Open(cfg.isolation(h))
	if err != nil {
		return err
	}
	defer host.Close()
	a := newAgent(cfg, h, boot)
	a.policy, a.sampleEvery = cfg.Policy, cfg.SampleEvery
	a.boxes, a.images = realHost{host}, images
	a.up = a.uplink
	return a.run(ctx)
}

func newAgent(cfg Config, h home, boot string) *agent {
	return &agent{
		cfg: cfg, log: cfg.Log, home: h, boot: boot, policy: supervisor.DefaultPolicy, sampleEvery: defaultSample,
		shelf: shelf{h.dynos(), cfg.Log}, morgue: morgue{h.autopsies(), cfg.Log}, uplink: newUplink(),
		ended: why.NewStore(h.ended()), releases: why.NewReleases(h.releases()),
		starts:  make(chan struct{}, max(4, 2*runtime.NumCPU())),
		changed: make(chan struct{}, 1), telling: make(chan struct{}, 1), pulse: newPulse(),
		works: works, drivers: map[string]*driver{}, execs: map[string]bool{}, healed: map[string]time.Time{},
	}
}

// run starts the loops, waits for the end and for all of them.
func (a *agent) run(ctx context.Context) error {
	var err error
	if a.events, err = door.OpenEvents(a.home.events(), a.log); err != nil {
		return err
	}
	defer a.events.Close()
	ctx, stop := context.WithCancel(ctx)
	defer a.work.Wait()
	defer stop()
	a.ctx = ctx
	a.ship = newShipper(a.shelf, a.up, a.log)
	a.ship.pulse = a.pulse
	tail, err := newTail(a.ship.touch, a.ship.touchAll)
	if err != nil {
		a.log.Warn("logs are followed by polling only", "error", err)
	} else {
		a.ship.tail = tail
		a.work.Go(func() { tail.run(ctx) })
	}
	socket, err := door.Listen(a.cfg.Run, a.log)
	if err != nil {
		return err
	}
	defer socket.Close()
	if err := a.begin(); err != nil {
		return err
	}
	d, err := door.New(door.Config{Agent: a, Dir: a.home.dir, Events: a.events, Log: a.log})
	if err != nil {
		return err
	}
	a.work.Go(func() { a.ship.run(ctx) })
	a.work.Go(func() { a.join(ctx); a.follow(ctx) })
	a.work.Go(func() { a.observe(ctx) })
	a.work.Go(func() { a.every(ctx, "reconciliation", reconcileEvery, a.repair) })
	a.work.Go(func() { a.collectImages(ctx) })
	a.work.Go(func() { a.notifySystemd(ctx) })
	torndown := make(chan struct{})
	a.work.Go(func() {
		defer d.Close()
		if d.Serve(ctx, socket) {
			close(torndown)
		}
	})
	select {
	case <-ctx.Done():
		a.log.Info("ends; the dynos run on")
	case <-torndown:
		a.log.Info("ends; the host was torn down")
	}
	return nil
}

// begin adopts what is there and starts what was desired last, without
// waiting for the coordinator.
func (a *agent) begin() error {
	if err := a.leaveSettings(); err != nil {
		a.log.Warn("the doctor will not know this agent's settings", "error", err)
	}
	if id, err := readIdentity(a.home); err == nil {
		a.setIdentity(id)
	}
	a.loadDrain()
	if err := a.loadDesired(); err != nil {
		return err
	}
	if err := a.adopt(); err != nil {
		return err
	}
	a.reconcile()
	return nil
}

func (a *agent) reach(point string) {
	if a.fault != nil {
		a.fault(point)
	}
}

// reconcileEvery is the time between two repairs.
const reconcileEvery = 5 * time.Second

func (a *agent) every(ctx context.Context, loop string, d time.Duration, do func()) {
	defer a.pulse.end(loop)
	for a.pulse.beat(loop); sleep(ctx, d); a.pulse.beat(loop) {
		do()
	}
}

func (a *agent) setIdentity(id manifold.Identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.id = id
}

func (a *agent) identity() manifold.Identity {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.id
}
