package agent

import (
	"time"

	"manifold"
	"manifold/supervisor"
)

// What others than the driver itself see of a dyno: the coordinator, the
// socket, and whoever wants to join its processes.

// show makes the dyno visible to the coordinator and on the socket.
func (d *driver) show() {
	dyno := d.rec.Dyno
	v := manifold.Dyno{
		Assignment: d.assignment.ID, Run: dyno.Run, App: d.assignment.App, Name: d.assignment.Dyno,
		State: dyno.State.Public(), Since: dyno.Since, Crashes: dyno.Crashes, Result: dyno.Result,
	}
	if dyno.State == supervisor.Crashed {
		v.NextTry = dyno.Due
	}
	if dyno.State == supervisor.Crashed || dyno.State == supervisor.Complete {
		v.OutputSeq = dyno.Lines
	}
	if d.assignment.Web && d.box != nil && holdsProcesses(dyno.State) {
		v.Addr = addrPort(d.box.Addr(), dyno.Port)
	}
	d.mu.Lock()
	d.view, d.state, d.asked = v, dyno.State, dyno.Withdrawn
	d.live, d.port, d.shown = nil, dyno.Port, *d.rec
	if d.box != nil {
		d.logs = d.box.LogDir()
	} else {
		d.logs = d.runFile(dyno.Run, manifold.SourceApp)
	}
	if holdsProcesses(dyno.State) {
		d.live = d.box
	}
	if d.live == nil {
		d.until = time.Time{}
	}
	d.mu.Unlock()
	d.a.notice()
}

// running returns the box of a dyno that is up, and its $PORT.
func (d *driver) running() (box, int) {
	b, port, state := d.held()
	if state != supervisor.Up {
		return nil, 0
	}
	return b, port
}

// held returns the box of a dyno that has processes, whether they serve yet or
// end already, its $PORT and where it stands.
func (d *driver) held() (box, int, supervisor.State) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.live, d.port, d.state
}

// look returns what show made visible. A frozen dyno has no address: nobody
// shall be sent to it.
func (d *driver) look() (manifold.Dyno, supervisor.State) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.view
	v.Replace = d.leave && d.state != supervisor.Gone
	if !d.until.IsZero() {
		v.Addr = ""
	}
	return v, d.state
}

// setFrozen notes until when the dyno is frozen at most; zero: it is not. It
// says whether that is news.
func (d *driver) setFrozen(until time.Time) (changed bool) {
	d.mu.Lock()
	changed = !d.until.Equal(until)
	d.until = until
	d.mu.Unlock()
	if changed {
		d.a.notice()
	}
	return changed
}

// frozen returns what setFrozen noted.
func (d *driver) frozen() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.until
}
