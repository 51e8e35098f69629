package agent

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/agent/why"
	"manifold/isolation"
	"manifold/supervisor"
)

// driver lives one assignment's life: it owns its record, asks the supervisor
// what each event leads to, records that, and carries it out. What takes long
// (images, box, uploads) happens beside it and comes back as an event, so a
// slow fetch holds up nobody, not even the stop of its own dyno.
//
//	reconcile ──Stop──▶ ┌────────┐ ──▶ record.json ──▶ effects
//	timer ──────Due───▶ │ driver │ ──▶ background: launch, probe, collect
//	box ────────Ended─▶ └────────┘ ◀── their events
type driver struct {
	a          *agent
	log        *slog.Logger
	assignment manifold.Assignment // never changes; anyone may read it

	mail chan message
	done chan struct{} // closed when run returns

	// All below belongs to run.
	rec        *record
	box        box // of the present run
	runLog     *runLog
	timer      *time.Timer
	load       supervisor.Load // of the present run, since this agent's start
	background *task
	probe      context.CancelFunc
	check      context.CancelFunc // ends the health checks of the present run
	group      sync.WaitGroup
	evidence   *why.Run // of the present run, once its box has ended

	traces traces

	freezing sync.Mutex // held while it is frozen or thawed: one at a time

	mu    sync.Mutex
	view  manifold.Dyno // the last one shown
	state supervisor.State
	asked bool      // it was withdrawn
	live  box       // of the present run, while it has processes
	port  int       // its $PORT
	until time.Time // it is frozen; then it is thawed at the latest
	leave bool      // somebody on this host asked for another one in its place
	shown record    // as the view was made of it
	logs  string    // where the app's lines are
}

// message is an event on its way to its driver, with the box it is about.
type message struct {
	event supervisor.Event
	box   box
	found *why.Run           // when it ended
	line  io.ReadWriteCloser // to the client, of a box that was launched with one
	do    func()             // in place of an event: something with the driver's own
}

// task is a launch or a collection under way.
type task struct{ cancel context.CancelFunc }

func newDriver(a *agent, rec *record, found box) *driver {
	d := &driver{
		a: a, assignment: rec.Assignment, rec: rec, box: found,
		log: a.log.With("app", rec.Assignment.AppName, "dyno", rec.Assignment.Dyno, "assignment", rec.Assignment.ID),
		// Few events can be under way at once: a task's, the box's end, stops.
		mail: make(chan message, 8),
		done: make(chan struct{}),
	}
	d.timer = time.NewTimer(time.Hour)
	d.timer.Stop()
	if found != nil {
		if order, err := readFreeze(found.Dir()); err == nil {
			d.until = order.Until
		}
	}
	d.show()
	return d
}

// run drives the dyno until it is gone, or ctx ends: then its processes go on
// and its record says where it stands.
func (d *driver) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer close(d.done)
	defer d.group.Wait()
	defer d.timer.Stop()
	defer cancel()
	sample := time.NewTicker(d.a.sampleEvery)
	defer sample.Stop()
	alive := time.NewTicker(stuckAfter / 4) // samples may be further apart than a pulse may be
	defer alive.Stop()
	loop := "dyno " + d.assignment.AppName + "/" + d.assignment.Dyno + " " + d.assignment.ID
	defer d.a.pulse.end(loop)
	d.a.pulse.beat(loop)
	d.resume(ctx)
	for d.rec.Dyno.State != supervisor.Gone {
		d.a.pulse.beat(loop)
		select {
		case <-ctx.Done():
			return
		case m := <-d.mail:
			if m.do != nil {
				m.do()
				continue
			}
			d.take(ctx, m)
		case <-d.timer.C:
			d.step(ctx, supervisor.Event{Kind: supervisor.Due, Due: d.rec.Dyno.Due, Run: d.rec.Dyno.Run})
		case <-sample.C:
			d.sample(ctx)
		case <-alive.C:
		}
	}
}

// resume begins a new dyno, or picks up where the agent before this one died:
// the effects of its last step are carried out again.
func (d *driver) resume(ctx context.Context) {
	dyno := d.rec.Dyno
	if dyno.State == supervisor.Created {
		d.step(ctx, supervisor.Event{Kind: supervisor.Want})
		return
	}
	if dyno.Run != "" {
		d.openLog(holdsProcesses(dyno.State) || dyno.State == supervisor.Starting || dyno.State == supervisor.Cancelling)
	}
	if holdsProcesses(dyno.State) {
		if d.box == nil {
			d.lost(ctx)
			return
		}
		d.watch(ctx, d.box)
	}
	for _, e := range d.rec.Effects {
		d.do(ctx, e)
	}
	if dyno.State == supervisor.Up && d.assignment.Attach != nil {
		d.attend(ctx, d.box, nil)
	}
}

// holdsProcesses is true where the run's box must be there.
func holdsProcesses(s supervisor.State) bool {
	switch s {
	case supervisor.Booting, supervisor.Overdue, supervisor.Up, supervisor.Ailing, supervisor.Stopping:
		return true
	}
	return false
}

// lost is the end of a run whose box is gone without a trace.
func (d *driver) lost(ctx context.Context) {
	d.step(ctx, supervisor.Event{Kind: supervisor.Ended, Exit: supervisor.Exit{
		Lost: true, HostLost: d.rec.Boot != d.a.boot,
	}})
}

// take applies a message.
func (d *driver) take(ctx context.Context, m message) {
	if m.box != nil && m.event.Run == d.rec.Dyno.Run {
		d.box, d.rec.Dyno.Addr = m.box, m.box.Addr()
		if m.event.Kind == supervisor.Launched {
			d.watch(ctx, m.box)
		}
		d.evidence = m.found
	}
	if m.event.Kind == supervisor.Unhealthy {
		m.event.Held = d.mustBear(m.event)
	}
	d.step(ctx, m.event)
	if m.event.Kind == supervisor.Launched && d.assignment.Attach != nil {
		d.attend(ctx, m.box, m.line)
	}
}

// step moves the dyno by one event: first on paper, then in the world.
func (d *driver) step(ctx context.Context, e supervisor.Event) {
	before := d.rec.Dyno
	e.At = time.Now().Round(0)
	e.Jitter = rand.Float64()
	begins := e.Kind == supervisor.Want || e.Kind == supervisor.Due && before.State == supervisor.Crashed
	switch {
	case begins:
		e.Run, e.Port = uuid.NewString(), cmp.Or(before.Port, drawPort())
	case e.Run == "":
		e.Run = before.Run
	}
	after, effects := d.a.policy.Step(before, e)
	if len(effects) == 0 && reflect.DeepEqual(before, after) {
		return
	}
	d.a.reach("record")
	d.rec.Dyno, d.rec.Effects = after, effects
	if begins {
		d.rec.Boot, d.box, d.runLog, d.load = d.a.boot, nil, nil, supervisor.Load{}
		d.rec.Runs, d.rec.Began, d.evidence = d.rec.Runs+1, e.At, nil
		d.traces.reset()
	}
	if err := d.a.shelf.put(d.rec); err != nil {
		d.log.Error("a dyno's record could not be written", "error", err)
		if begins {
			// A process that no record names would be killed by the next
			// agent: rather none, and another try later.
			d.step(ctx, supervisor.Event{Kind: supervisor.LaunchFailed, Detail: err.Error()})
			return
		}
	}
	if begins {
		d.openLog(true)
	}
	if before.State != after.State {
		d.log.Info("dyno moved", "run", after.Run, "from", before.State, "to", after.State, "event", e.Kind)
		d.tell(before, e)
	}
	if after.State != supervisor.Booting && d.probe != nil {
		d.probe()
		d.probe = nil
	}
	if after.State != supervisor.Up && d.check != nil {
		d.check()
		d.check = nil
	}
	d.lookBefore(ctx, before.State)
	for _, effect := range effects {
		d.do(ctx, effect)
	}
	if after.Result != before.Result && after.Result != nil {
		d.writeDown(before, e, effects)
	}
	d.show()
}

// do carries out one effect. All of them may have been carried out before.
func (d *driver) do(ctx context.Context, e supervisor.Effect) {
	d.a.reach(string(e.Do))
	switch e.Do {
	case supervisor.Say:
		if d.runLog != nil {
			d.a.ship.say(d.runLog, e.Seq, e.At, e.Text)
		}
	case supervisor.SetDue:
		wait := time.Until(e.At)
		if e.In > 0 {
			wait = min(wait, e.In)
		}
		d.timer.Reset(wait)
	case supervisor.Launch:
		d.start(ctx, d.launch)
	case supervisor.Collect:
		d.start(ctx, d.collect)
	case supervisor.Cancel:
		d.cancel(ctx)
	case supervisor.Probe:
		d.startProbe(ctx)
	case supervisor.Check:
		d.startCheck(ctx)
	case supervisor.Term:
		d.signal("stop", box.Stop)
	case supervisor.Kill:
		d.signal("kill", box.Kill)
	case supervisor.Hangup:
		d.signal("hang up on", box.Hangup)
	case supervisor.Remove:
		d.remove()
	case supervisor.Forget:
		if err := d.a.shelf.remove(d.assignment.ID); err != nil {
			d.log.Error("a record could not be removed", "error", err)
		}
	}
}

func (d *driver) signal(what string, send func(box) error) {
	if d.box == nil {
		return
	}
	if err := send(d.box); err != nil {
		d.log.Error("could not "+what+" a dyno, will try again", "run", d.box.Run(), "error", err)
	}
}

// start runs work beside the driver and posts the event it returns.
func (d *driver) start(ctx context.Context, work func(context.Context, supervisor.Dyno, box) message) {
	taskCtx, cancel := context.WithCancel(ctx)
	d.background = &task{cancel}
	dyno, b := d.rec.Dyno, d.box
	d.group.Go(func() {
		defer cancel()
		m := work(taskCtx, dyno, b)
		m.event.Run = dyno.Run
		if !d.post(ctx, m) && m.line != nil {
			_, _ = m.line.Close(), m.box.Attached().Close() // nobody will carry them
		}
	})
}

// cancel calls the task under way off. Where there is none (the agent died
// meanwhile) it is begun already called off, so that its event comes all the
// same.
func (d *driver) cancel(ctx context.Context) {
	if d.background == nil {
		work := d.launch
		if d.rec.Dyno.State == supervisor.Collecting {
			work = d.collect
		}
		d.start(ctx, work)
	}
	d.background.cancel()
}

// post delivers an event unless the agent is ending: then the next one finds
// out by itself.
func (d *driver) post(ctx context.Context, m message) bool {
	select {
	case d.mail <- m:
		return true
	case <-ctx.Done():
		return false
	}
}

// stop asks for the dyno's end. It may be called by anyone, again and again,
// and never waits: it is false where the mailbox is full, and asked again.
func (d *driver) stop(grace time.Duration) bool {
	return d.ask(supervisor.Event{Kind: supervisor.Stop, Grace: grace})
}

// withdraw is stop for a dyno that is no longer desired; cycled, for its age.
func (d *driver) withdraw(cycled bool) bool {
	return d.withdrawn() || d.ask(supervisor.Event{Kind: supervisor.Stop, Withdrawn: true, Cycled: cycled})
}

func (d *driver) ask(e supervisor.Event) bool {
	select {
	case d.mail <- message{event: e}:
		return true
	default:
		return false
	}
}

func (d *driver) withdrawn() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

// watch waits for the end of a box's processes.
func (d *driver) watch(ctx context.Context, b box) {
	if d.runLog != nil {
		d.a.ship.attach(d.runLog, b.LogDir())
	}
	run := d.rec.Dyno.Run
	boot := d.rec.Boot
	d.group.Go(func() {
		select {
		case <-b.Done():
		case <-ctx.Done():
			return
		}
		x, err := b.Exit()
		exit := supervisor.Exit{
			Status: x.Status, OOM: x.OOM, Forced: x.Forced, Expired: x.Expired, At: x.At, Lines: x.Lines,
			Memory: x.Peak,
		}
		if err != nil {
			if !errors.Is(err, isolation.ErrNoRecord) {
				d.log.Error("an exit record cannot be read", "run", run, "error", err)
			}
			exit = supervisor.Exit{Lost: true, HostLost: boot != d.a.boot, OOM: x.OOM, Memory: x.Peak}
		}
		d.post(ctx, message{
			event: supervisor.Event{Kind: supervisor.Ended, Run: run, Exit: exit}, box: b, found: d.gather(run, b, x),
		})
	})
}

// remove takes the present run's box away and lets its log go home.
func (d *driver) remove() {
	d.autopsy()
	if d.runLog != nil {
		if d.box != nil {
			if err := d.runLog.adopt(d.box.LogDir()); err != nil {
				d.log.Error("a run's last lines may be lost", "run", d.rec.Dyno.Run, "error", err)
			}
		}
		d.a.ship.finish(d.runLog, time.Now())
		d.runLog = nil
	}
	if d.box == nil {
		return
	}
	b := d.box
	d.box = nil
	if err := b.Remove(); err != nil {
		d.log.Error("a box could not be removed, will try again", "run", b.Run(), "error", err)
		d.a.work.Go(func() { d.a.remove(b) })
	}
}

func (d *driver) openLog(create bool) {
	l, err := d.a.ship.open(d.assignment, d.rec.Dyno.Run, create)
	if err != nil {
		// The dyno matters more than its log.
		d.log.Error("a run's log cannot be opened: its lines are not shipped", "run", d.rec.Dyno.Run, "error", err)
	}
	d.runLog = l
}
