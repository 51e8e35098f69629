// Package onemachine is `manifold run`: coordinator, router and agent on one
// machine, started as separate processes, watched, and taken down again with
// every dyno. It joins the rooms from outside, through the doors that anyone
// else uses (Platform API, git over HTTP, the agent's socket); it must never
// reach into their state.
//
//	preflight ▶ lock ▶ replace daemons of a killed run ▶ stack image
//	   ▶ coordinator ▶ router, agent ▶ sample app ▶ wait for Ctrl-C
//	   ▶ agent: teardown ▶ router, coordinator: SIGTERM ▶ look for leftovers
package onemachine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"manifold"
	"manifold/slugfs/stack"
)

// Config says what to run and where.
type Config struct {
	Settings manifold.Settings
	Programs string          // directory of manifold-agent and manifold-coordinator
	Out      io.Writer       // for the person at the terminal
	Hurry    <-chan struct{} // closed: stop dynos without their grace
}

// machine is one running platform.
type machine struct {
	Config
	daemons []*daemon // in the order they were started
	api     *client
}

// stackName is the stack that one-machine mode offers.
const stackName = "cedar"

// Run starts the platform, waits until ctx ends, and takes it down. It returns
// nil when the platform was up and nothing of it is left.
func Run(ctx context.Context, cfg Config) error {
	began := time.Now()
	m := &machine{Config: cfg, api: newClient(cfg.Settings)}
	if err := preflight(cfg); err != nil {
		return err
	}
	for _, dir := range []string{cfg.Settings.Home, cfg.Settings.Run} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	unlock, err := lock(cfg.Settings)
	if err != nil {
		return err
	}
	defer unlock()
	if err := m.replaceStale(); err != nil {
		return err
	}
	if err := portsFree(cfg.Settings); err != nil {
		return err
	}
	if err := m.stack(ctx); err != nil {
		return ignoreStop(ctx, err)
	}
	err = m.serve(ctx, began)
	return errors.Join(ignoreStop(ctx, err), m.stop())
}

// serve starts everything and returns when ctx ends or when starting failed.
func (m *machine) serve(ctx context.Context, began time.Time) error {
	if err := m.start(ctx); err != nil {
		return err
	}
	sample, err := m.sample(ctx)
	if err != nil {
		return err
	}
	if err := m.welcome(ctx, sample, time.Since(began)); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// stack builds the stack image if there is none yet.
func (m *machine) stack(ctx context.Context) error {
	dir := filepath.Join(m.Settings.Home, "stacks")
	stacks, err := stack.Load(dir)
	if err != nil {
		return fmt.Errorf("read the stack images in %s: %w", dir, err)
	}
	for _, s := range stacks {
		if s.Name == stackName {
			return nil
		}
	}
	m.say("Building the stack image %q from Debian packages (once, a few minutes)", stackName)
	began := time.Now()
	built, err := stack.Build(ctx, stackName, dir, indent(m.Out))
	if err != nil {
		return fmt.Errorf("build the stack image %q: %w", stackName, err)
	}
	m.say("Built stack %s %s in %s", built.Name, built.Version, round(time.Since(began)))
	return nil
}

// start brings up the three daemons and waits until each answers.
func (m *machine) start(ctx context.Context) error {
	env := daemonEnv(m.Settings)
	coordinator := filepath.Join(m.Programs, "manifold-coordinator")
	agent := filepath.Join(m.Programs, "manifold-agent")
	m.say("Starting coordinator, router and agent (logs in %s)", m.logDir())
	if err := m.launch(ctx, "coordinator", env, m.api.coordinatorUp, coordinator); err != nil {
		return err
	}
	if err := m.launch(ctx, "router", env, m.api.routerUp, coordinator, "router"); err != nil {
		return err
	}
	return m.launch(ctx, "agent", env, m.api.agentUp, agent)
}

// startDeadline is how long a daemon may take until it answers. The agent
// adopts what a former one left; the coordinator reads its store.
const startDeadline = 60 * time.Second

// launch starts one daemon and waits for its door to open. A daemon that dies
// before that is not tried again: the person sees the end of its log instead.
func (m *machine) launch(ctx context.Context, name string, env []string, up func(context.Context) error, argv ...string) error {
	d, err := startDaemon(m, name, env, argv)
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	m.daemons = append(m.daemons, d)
	deadline, cancel := context.WithTimeout(ctx, startDeadline)
	defer cancel()
	last := errors.New("it did not open its door")
	for {
		select {
		case <-d.died:
			return fmt.Errorf("%s ended while starting (%s); the end of %s:\n%s", name, d.lastEnd(), d.logPath, d.tail())
		case <-deadline.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%s does not answer after %s: %w; the end of %s:\n%s", name, startDeadline, last, d.logPath, d.tail())
		case <-time.After(50 * time.Millisecond):
		}
		if last = up(deadline); last == nil && d.keepUp() {
			return nil
		}
	}
}

func (m *machine) say(format string, args ...any) {
	fmt.Fprintf(m.Out, "-----> "+format+"\n", args...)
}

func (m *machine) logDir() string { return filepath.Join(m.Settings.Home, "log") }

// ignoreStop drops an error that is only our own stopping.
func ignoreStop(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func round(d time.Duration) time.Duration {
	if d > 10*time.Second {
		return d.Round(time.Second)
	}
	return d.Round(100 * time.Millisecond)
}
