package agent

import (
	"context"
	"errors"
	"time"

	"manifold/agent/door"
)

// What the door shows of the agent.

// Health says how the agent is.
func (a *agent) Health() door.Health {
	dropped := a.ship.logsDropped()
	a.mu.Lock()
	defer a.mu.Unlock()
	return door.Health{Status: "ok", Host: a.id.ID, Dynos: len(a.drivers), Revision: a.applied, LogsDropped: dropped}
}

// Alive takes the lock that every loop needs: one that hangs shows.
func (a *agent) Alive(ctx context.Context) error {
	got := make(chan string, 1)
	go func() { got <- a.identity().ID }() // an agent that never gets the lock is killed by its watchdog
	select {
	case <-got:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(5 * time.Second):
		return errors.New("the agent's loops make no progress")
	}
}

// Statuses are the dynos on this host.
func (a *agent) Statuses() []door.Status {
	list := []door.Status{}
	for _, dyno := range a.observation().Dynos {
		if d := a.driver(dyno.Assignment); d != nil {
			as := d.assignment
			_, state := d.look()
			list = append(list, door.Status{
				Dyno: dyno, AppName: as.AppName, Kind: as.Kind, Release: as.Release, Size: as.Size.Name, Step: state, FrozenUntil: d.frozen(),
			})
		}
	}
	return list
}

// driver is the one of an assignment, or nil.
func (a *agent) driver(assignment string) *driver {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.drivers[assignment]
}
