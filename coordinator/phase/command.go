package phase

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"manifold"
	"manifold/coordinator/logs"
	"manifold/coordinator/scheduler"
	"manifold/coordinator/store"
)

// lineWait is how long the last lines of a command that ended may take: they
// come as soon as their host can send them.
const lineWait = 30 * time.Second

// command is one release command.
type command struct {
	*Room
	phase   store.ReleasePhase
	release manifold.Release
	out     io.Writer
}

// run brings the command to its end; nil is success. An error's text says
// what the command did, for the app's owner: "exited with status 1".
func (c *command) run(ctx context.Context) error {
	dyno, err := c.begin(ctx)
	if err != nil {
		return err
	}
	copying, cancel := context.WithCancel(ctx)
	copied := make(chan struct{})
	lines := make(chan scheduler.Ended, 1)
	go func() {
		defer close(copied)
		c.copy(copying, dyno, lines)
	}()
	ended, err := c.cfg.Dynos.Await(ctx, c.release.ID)
	if err == nil {
		lines <- ended
		timeout := time.NewTimer(lineWait)
		select {
		case <-copied:
		case <-timeout.C: // lines that were dropped at the source never come
		case <-ctx.Done():
		}
		timeout.Stop()
	}
	cancel()
	<-copied
	return judge(ended, err)
}

// begin places the command, or finds it where an earlier coordinator did, and
// returns the name of its dyno.
func (c *command) begin(ctx context.Context) (dyno string, err error) {
	if c.phase.Begun {
		return c.find(ctx)
	}
	slug, err := c.cfg.Store.Slug(ctx, c.release.Slug)
	if err != nil {
		return "", fmt.Errorf("was not started: its slug cannot be read: %w", err)
	}
	size, err := manifold.ParseSize(manifold.DefaultSize)
	if err != nil {
		return "", err
	}
	c.say("Running release v%d commands by user %s", c.release.Version, c.release.User)
	d, _, err := c.cfg.Dynos.Start(ctx, scheduler.OneOff{
		App: c.phase.App, Type: manifold.TypeRelease, Command: slug.ProcessTypes[manifold.TypeRelease],
		Size: size, TTL: Limit, Release: &c.release, ID: c.release.ID,
		Keep: func(ctx context.Context, p store.Placement) error { return c.cfg.Store.BeginPhase(ctx, c.phase, p) },
	})
	if err != nil {
		return "", fmt.Errorf("was not started: %w", err)
	}
	return d.Name, nil
}

// patience is how often what the store does not tell is asked for again.
const patience = 30

// find returns the name of the dyno that an earlier coordinator placed. A store
// that does not answer for a moment says nothing about the command.
func (c *command) find(ctx context.Context) (dyno string, err error) {
	for range patience {
		p, failed := c.cfg.Store.Placement(ctx, c.release.ID)
		switch {
		case failed == nil:
			return p.Assignment.Dyno, nil
		case errors.Is(failed, store.ErrNotFound):
			return "", errors.New("was cut off: the coordinator was restarted, and nothing is known of how it ended")
		case ctx.Err() != nil:
			return "", ctx.Err()
		}
		err = failed
		c.pause(ctx)
	}
	return "", fmt.Errorf("is lost: %w", err)
}

// judge words how a command ended.
func judge(ended scheduler.Ended, err error) error {
	switch r := ended.Result; {
	case errors.Is(err, scheduler.ErrStopped):
		return errors.New("was stopped")
	case err != nil:
		return fmt.Errorf("is lost: %w", err)
	case r.Cause == manifold.CauseExit && r.Status == 0:
		return nil
	case r.Cause == manifold.CauseExit:
		return fmt.Errorf("exited with status %d", r.Status)
	case r.Cause == manifold.CauseTTL:
		return fmt.Errorf("ran longer than %s", Limit)
	case r.Cause == manifold.CauseOOM:
		return errors.New("needed more memory than its dyno has (R15)")
	case r.Cause == manifold.CauseSignal:
		return fmt.Errorf("was killed (status %d)", r.Status)
	default:
		return fmt.Errorf("did not end by itself (%s) %s", r.Cause, r.Detail)
	}
}

// copy writes the dyno's lines to the output, from its first on, until all
// that ended speaks of were written.
func (c *command) copy(ctx context.Context, dyno string, ended <-chan scheduler.Ended) {
	filter := logs.Filter{Source: manifold.SourceApp, Dyno: dyno}
	lines, tail, err := c.cfg.Logs.Follow(c.phase.App, filter)
	if err != nil {
		c.cfg.Log.Error("the output of a release command cannot be read", "app", c.phase.App, "err", err)
		return
	}
	defer tail.Close()
	began := c.release.CreatedAt.Add(-time.Minute) // hosts' clocks differ
	for _, l := range lines {
		if l.Time.After(began) { // else another release's, whose dyno had this name
			c.print(l)
		}
	}
	var end *scheduler.Ended
	for {
		// Asked before the lines are read: what it counts is among them.
		complete := end != nil && c.cfg.Logs.Reached(c.phase.App, end.Stream) >= end.Lines
		bounded, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		lines, err := tail.Next(bounded)
		cancel()
		for _, l := range lines {
			c.print(l)
		}
		switch {
		case len(lines) > 0:
			continue
		case complete, ctx.Err() != nil, err != nil && !errors.Is(err, context.DeadlineExceeded):
			return
		}
		select {
		case e := <-ended:
			end = &e
		default:
		}
	}
}

func (c *command) print(l logs.Line) { _, _ = io.WriteString(c.out, l.Text+"\n") }

// tell leaves the end in the app's log.
func (c *command) tell(failure error) {
	if failure == nil {
		c.say("Release v%d created by user %s", c.release.Version, c.release.User)
		return
	}
	c.say("Release v%d failed: its command %s", c.release.Version, failure)
}

func (c *command) say(format string, args ...any) {
	c.cfg.Logs.Write(c.phase.App, manifold.SourceApp, "api", fmt.Sprintf(format, args...))
}
