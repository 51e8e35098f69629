package agent

import (
	"context"
	"fmt"
	"time"

	"manifold/supervisor"
)

const (
	teardownGrace = 10 * time.Second // SIGTERM to SIGKILL
	teardownLimit = 60 * time.Second // for all dynos to be gone
	teardownFlush = 3 * time.Second  // for the last log lines to be shipped
)

// Teardown stops every dyno and removes all of ours from the host. What is
// desired is kept, so the next start brings the same dynos back; one-offs are
// not: they stay known as complete, since they must not run twice.
//
// now skips the dynos' grace, also that of a teardown under way: a second
// caller waits for the first one's and gets the same answer.
func (a *agent) Teardown(ctx context.Context, now bool) error {
	if now {
		a.hurry.Store(true)
	}
	a.tearing.Lock()
	defer a.tearing.Unlock()
	if a.torn {
		return nil
	}
	if err := a.takeDown(ctx); err != nil {
		return err
	}
	a.torn = true
	return nil
}

func (a *agent) takeDown(ctx context.Context) error {
	a.mu.Lock()
	a.halting = true
	a.mu.Unlock()
	a.log.Info("tearing down")
	if err := a.stopAll(ctx); err != nil {
		return err
	}
	for until := time.Now().Add(teardownFlush); !a.ship.idle() && time.Now().Before(until); {
		if !sleep(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
	boxes, err := a.boxes.Boxes()
	if err != nil {
		return fmt.Errorf("look for boxes left: %w", err)
	}
	for _, b := range boxes {
		a.discard(b)
	}
	if err := a.images.Unmount(); err != nil {
		return fmt.Errorf("unmount images: %w", err)
	}
	if err := a.boxes.Teardown(); err != nil {
		return fmt.Errorf("remove what is left on the host: %w", err)
	}
	return nil
}

// stopAll asks every driver to stop and waits until none holds a box. It asks
// again and again: a driver that was busy may have missed it.
func (a *agent) stopAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, teardownLimit)
	defer cancel()
	var killed time.Time
	for asked := map[*driver]bool{}; ; {
		running := 0
		a.mu.Lock()
		for _, d := range a.drivers {
			switch _, state := d.look(); state {
			case supervisor.Gone, supervisor.Complete:
				continue
			}
			running++
			asked[d] = asked[d] || d.stop(teardownGrace)
		}
		a.mu.Unlock()
		if running == 0 {
			return nil
		}
		if a.hurry.Load() && time.Since(killed) > time.Second {
			killed = time.Now()
			a.killAll()
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return fmt.Errorf("%d dynos did not end within %s: %w", running, teardownLimit, ctx.Err())
		}
	}
}

// killAll ends every box at once. It may be called again and again.
func (a *agent) killAll() {
	boxes, err := a.boxes.Boxes()
	if err != nil {
		a.log.Warn("dynos cannot be killed at once", "error", err)
	}
	for _, b := range boxes {
		if err := b.Kill(); err != nil {
			a.log.Warn("a dyno cannot be killed", "run", b.Run(), "error", err)
		}
	}
}
