package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"manifold"
	"manifold/agent/door"
	"manifold/isolation"
	"manifold/supervisor"
)

// The agent's hands: what the door has it do (door.Acts).

// Drain is the door's.
func (a *agent) Drain(ctx context.Context, on bool) (told bool, err error) {
	if err := a.drain(on); err != nil {
		return false, err
	}
	return a.tell(ctx) == nil, nil
}

// find returns the driver of an assignment, which may have gone meanwhile.
func (a *agent) find(assignment string) (*driver, error) {
	if d := a.driver(assignment); d != nil {
		return d, nil
	}
	return nil, &door.Refusal{Status: http.StatusNotFound, ID: "not_found", Message: "the dyno is not here any more"}
}

// cannot is the refusal of an act that the dyno's state forbids.
func cannot(d *driver, why string, args ...any) error {
	return &door.Refusal{Status: http.StatusConflict, ID: "conflict", Message: d.assignment.Dyno + " " + fmt.Sprintf(why, args...)}
}

// Restart is the door's.
func (a *agent) Restart(ctx context.Context, assignment string) (inPlace bool, err error) {
	d, err := a.find(assignment)
	if err != nil {
		return false, err
	}
	return d.restart(ctx)
}

// Stop is the door's.
func (a *agent) Stop(assignment string, grace time.Duration) error {
	d, err := a.find(assignment)
	if err != nil {
		return err
	}
	return d.halt(grace)
}

// Freeze is the door's.
func (a *agent) Freeze(ctx context.Context, assignment string, limit time.Duration) (time.Time, error) {
	d, err := a.find(assignment)
	if err != nil {
		return time.Time{}, err
	}
	order, err := d.freeze(ctx, limit)
	return order.Until, err
}

// Thaw is the door's.
func (a *agent) Thaw(assignment string) error {
	d, err := a.find(assignment)
	if err != nil {
		return err
	}
	b, _, _ := d.held()
	if b == nil {
		return cannot(d, "has no processes")
	}
	return d.thaw(b)
}

// Keep is the door's.
func (a *agent) Keep(assignment string, on bool) error {
	d, err := a.find(assignment)
	if err != nil {
		return err
	}
	if _, state := d.look(); state == supervisor.Complete {
		return cannot(d, "has ended, and nothing is left of it")
	}
	return d.keep(on)
}

// Exec is the door's: a shell for whoever may open the socket, also in a dyno
// that is still on its way up or down.
func (a *agent) Exec(ctx context.Context, assignment string, e manifold.Exec) (carried func(io.ReadWriteCloser), err error) {
	d, err := a.find(assignment)
	if err != nil {
		return nil, err
	}
	b, port, state := d.held()
	if b == nil {
		return nil, cannot(d, "is %s: it has no processes to join", state)
	}
	if until := d.frozen(); !until.IsZero() {
		return nil, cannot(d, "is frozen, and whatever is started in it would be too: thaw it first")
	}
	guest, err := enter(ctx, d.assignment, b, port, e, e.Attach)
	if errors.Is(err, isolation.ErrTooOld) {
		return nil, cannot(d, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	return func(line io.ReadWriteCloser) {
		defer guest.Close()
		carry(a.ctx, line, guest.Stream, guest.Done(), guest.Status)
	}, nil
}

// Autopsies is the door's.
func (a *agent) Autopsies() ([]door.Autopsy, error) { return a.morgue.list() }

// DropAutopsy is the door's.
func (a *agent) DropAutopsy(run string) error { return a.morgue.remove(run) }
