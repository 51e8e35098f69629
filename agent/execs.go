package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/google/uuid"

	"manifold"
	"manifold/isolation"
)

// startExecs begins what is desired of processes in running dynos and was not
// begun yet. It is called with mu held. One that an agent before this one began
// is refused by the coordinator: its session is over.
func (a *agent) startExecs() {
	wanted := make(map[string]bool, len(a.desired.Execs))
	for _, x := range a.desired.Execs {
		wanted[x.ID] = true
		if a.execs[x.ID] || uuid.Validate(x.ID) != nil {
			continue
		}
		a.execs[x.ID] = true
		a.work.Go(func() { a.exec(a.ctx, x) })
	}
	maps.DeleteFunc(a.execs, func(id string, _ bool) bool { return !wanted[id] })
}

// exec runs one more process in a dyno, for the client of its session.
func (a *agent) exec(ctx context.Context, x manifold.Exec) {
	log := a.log.With("exec", x.ID, "assignment", x.Assignment)
	line, is, err := a.meet(ctx, x.ID)
	if err != nil {
		log.Debug("a process in a dyno was not started", "error", err)
		return
	}
	guest, err := a.startGuest(ctx, x, is)
	if err != nil {
		log.Info("a process in a dyno could not be started", "error", err)
		turnAway(line, err)
		return
	}
	defer guest.Close()
	log.Info("a process was started in a dyno")
	carry(ctx, line, guest.Stream, guest.Done(), guest.Status)
}

func (a *agent) startGuest(ctx context.Context, x manifold.Exec, is manifold.Attach) (*isolation.Guest, error) {
	a.mu.Lock()
	d := a.drivers[x.Assignment]
	a.mu.Unlock()
	if d == nil {
		return nil, errors.New("the dyno is not here any more")
	}
	b, port := d.running()
	if b == nil {
		return nil, fmt.Errorf("%s is not up", d.assignment.Dyno)
	}
	return enter(ctx, d.assignment, b, port, x, is)
}

// enter starts a process in a dyno, with the app's environment.
func enter(ctx context.Context, as manifold.Assignment, b box, port int, x manifold.Exec, is manifold.Attach) (*isolation.Guest, error) {
	as.Command = x.Command
	as.Env = maps.Clone(as.Env)
	if as.Env == nil {
		as.Env = map[string]string{}
	}
	maps.Copy(as.Env, x.Env)
	return b.Exec(ctx, isolation.Exec{
		Argv: argv(as), Env: environ(as, port), Dir: appHome, Attach: isolation.Attach(is),
	})
}
