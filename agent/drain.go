package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"manifold"
	"manifold/supervisor"
)

// What an operator on this host may ask for. The coordinator alone decides
// where dynos run, so what needs a replacement elsewhere is a wish that the
// agent reports (manifold.Observation.Draining, manifold.Dyno.Replace) for as
// long as it stands:
//
//	drain    the host takes no new dynos; each formation dyno here is replaced
//	         on another host, out of the routers, and stopped. Where no other
//	         host can take it, it stays and serves.
//	restart  the same for one dyno, on any host. While the coordinator is away
//	         it is stopped here, and started again at once.
//	stop     now, with its grace. A formation dyno is started again at once,
//	         since it is still wanted; a one-off is not.

// drain begins or ends the emptying of this host. It outlives the agent.
func (a *agent) drain(on bool) error {
	var err error
	if on {
		if err = writeFile(a.home.draining(), nil); err == nil {
			err = syncFile(a.home.draining())
		}
	} else if err = os.Remove(a.home.draining()); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("remember whether this host is drained: %w", err)
	}
	a.mu.Lock()
	changed := a.draining != on
	a.draining = on
	a.mu.Unlock()
	if changed {
		a.log.Info("drain", "on", on)
		a.notice()
	}
	return nil
}

// loadDrain brings back what an agent before this one was told.
func (a *agent) loadDrain() {
	_, err := os.Stat(a.home.draining())
	a.draining = err == nil
}

// restart asks for another dyno in this one's place. inPlace says that the
// coordinator is away, so that this host does it: first the end, then the start.
func (d *driver) restart(ctx context.Context) (inPlace bool, err error) {
	if d.assignment.Kind != manifold.KindFormation {
		return false, cannot(d, "is a one-off dyno, which runs once: stop it, and run it again")
	}
	if _, state := d.look(); state == supervisor.Crashed {
		return true, d.halt(0) // nothing runs: no reason to wait for a replacement
	}
	d.mu.Lock()
	d.leave = true
	d.mu.Unlock()
	if d.a.observeOnce(ctx) == nil { // with all its patience: in place requests fail, which one that is only slow spares them
		return false, nil
	}
	d.mu.Lock()
	d.leave = false
	d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return false, err // who asked has left: that does not say that the coordinator is away
	}
	return true, d.halt(0)
}

// halt stops the dyno with a grace; 0 is its own.
func (d *driver) halt(grace time.Duration) error {
	if !d.stop(grace) {
		return cannot(d, "has too much to do to be stopped now: try again")
	}
	return nil
}

// thawOverdue thaws the dynos whose limit is over.
func (a *agent) thawOverdue() {
	a.mu.Lock()
	var due []*driver
	for _, d := range a.drivers {
		if d.overdue() {
			due = append(due, d)
		}
	}
	a.mu.Unlock()
	for _, d := range due {
		b, _, _ := d.held()
		if b == nil {
			continue
		}
		if err := d.thawOverdue(b); err != nil {
			d.log.Error("a dyno could not be thawed, will try again", "error", err)
		}
	}
}
