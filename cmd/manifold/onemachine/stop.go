package onemachine

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// teardownDeadline is the agent's own limit (60 s) and some.
	teardownDeadline = 70 * time.Second
	// hurryDeadline is how long killing every dyno may take.
	hurryDeadline = 20 * time.Second
	// daemonPatience is how long a daemon may take to end after SIGTERM.
	daemonPatience = 10 * time.Second
)

// stop takes the platform down and says what is left of it, if anything is.
// It does its work whatever the state of the daemons.
func (m *machine) stop() error {
	began := time.Now()
	var errs []error
	if agent := m.find("agent"); agent != nil {
		errs = append(errs, m.teardown(agent))
	}
	for i := len(m.daemons) - 1; i >= 0; i-- {
		m.daemons[i].stop(daemonPatience)
	}
	if left := remains(m.Settings, goneWithin); len(left) > 0 {
		errs = append(errs, leftoverError(left))
	}
	err := errors.Join(errs...)
	if err == nil {
		m.say("Stopped in %s; nothing of ours is left but %s", round(time.Since(began)), m.Settings.Home)
	}
	return err
}

func (m *machine) find(name string) *daemon {
	for _, d := range m.daemons {
		if d.name == name {
			return d
		}
	}
	return nil
}

// teardown has the agent stop every dyno and remove what is ours. An agent
// that is just being brought back gets the time to come up. Asked to hurry, it
// is told so while it is at it, and both requests end with the same answer.
func (m *machine) teardown(agent *daemon) error {
	if closed(agent.died) {
		return nil // it never came up, and that was said; leftovers says the rest
	}
	m.say("Stopping every dyno (those that do not heed SIGTERM are killed after 10 s; Ctrl-C again to hurry)")
	ctx, cancel := context.WithTimeout(context.Background(), teardownDeadline)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- m.askTeardown(ctx, agent, false) }()
	var err error
	select {
	case err = <-done:
	case <-m.Hurry:
		m.say("Killing every dyno now")
		soon, cancelSoon := context.WithTimeout(ctx, hurryDeadline)
		defer cancelSoon()
		err = m.askTeardown(soon, agent, true)
		cancel()
		<-done
	}
	if err != nil {
		return fmt.Errorf("tear the dynos down: %w", err)
	}
	return nil
}

// askTeardown asks until the agent answers or ends, as it does afterwards.
func (m *machine) askTeardown(ctx context.Context, agent *daemon, now bool) error {
	for {
		err := m.api.agentUp(ctx)
		if err == nil {
			agent.leave() // it ends by itself when it is done
			if err = m.api.teardown(ctx, now); err == nil {
				return nil
			}
		}
		select {
		case <-agent.ended:
			if agent.lastEnd() == "exit status 0" {
				return nil
			}
			return fmt.Errorf("the agent ended (%s) before it was done; the end of %s:\n%s", agent.lastEnd(), agent.logPath, agent.tail())
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}
