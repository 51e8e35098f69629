package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"manifold/supervisor"
)

// A frozen dyno stands still until somebody thaws it, or its limit is over, or
// it is stopped. The order lies in the run's directory and goes with it, so
// an agent that finds it keeps the promise of the one before:
//
//	freeze   order to disk ─▶ out of the route table ─▶ cgroup.freeze
//	thaw     cgroup.freeze off ─▶ order away ─▶ back into the route table
//
// Its life goes on meanwhile: it is up, it can be stopped, restarted or
// released away. While it is frozen it has no address, so the scheduler takes
// it out of the route table; requests that are on it wait for the thaw, or for
// the router's 30 seconds (H12). Where the coordinator is away, routers keep
// sending to it, and those requests wait likewise.

// freezeOrder is agent-frozen.json in a run's directory.
type freezeOrder struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}

const freezeName = "agent-frozen.json"

func readFreeze(dir string) (o freezeOrder, err error) {
	text, err := os.ReadFile(filepath.Join(dir, freezeName))
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	return o, err
}

// freeze stops the dyno's processes for at most limit.
func (d *driver) freeze(ctx context.Context, limit time.Duration) (freezeOrder, error) {
	d.freezing.Lock()
	defer d.freezing.Unlock()
	b, _ := d.running()
	if b == nil {
		return freezeOrder{}, cannot(d, "is not up: only a dyno that is can be frozen")
	}
	now := time.Now().Round(0)
	order := freezeOrder{Since: now, Until: now.Add(limit)}
	text, err := json.Marshal(order)
	if err != nil {
		return order, err
	}
	if err := writeFile(filepath.Join(b.Dir(), freezeName), text); err != nil {
		return order, fmt.Errorf("freeze %s: %w", d.assignment.Dyno, err)
	}
	d.setFrozen(order.Until)
	_ = d.a.tell(ctx) // a coordinator that is away hears of it later
	if err := b.Freeze(ctx); err != nil {
		return order, errors.Join(err, d.release(b))
	}
	if up, _ := d.running(); up != b { // told to end while the coordinator was told: it must hear that
		return order, errors.Join(cannot(d, "is not up any more"), d.release(b))
	}
	d.log.Info("frozen", "run", b.Run(), "until", order.Until)
	return order, nil
}

// thaw lets the dyno's processes go on. One that is not frozen stays as it is.
func (d *driver) thaw(b box) error {
	d.freezing.Lock()
	defer d.freezing.Unlock()
	return d.release(b)
}

// thawOverdue thaws it if its limit is over, still.
func (d *driver) thawOverdue(b box) error {
	d.freezing.Lock()
	defer d.freezing.Unlock()
	if !d.overdue() {
		return nil
	}
	return d.release(b)
}

// overdue is also true of one that is to end: it may have been frozen just then.
func (d *driver) overdue() bool {
	until := d.frozen()
	_, _, state := d.held()
	return !until.IsZero() && (state != supervisor.Up || !time.Now().Before(until))
}

// release does what thaw says. The caller holds freezing.
func (d *driver) release(b box) error {
	if err := b.Thaw(); err != nil {
		return err
	}
	err := os.Remove(filepath.Join(b.Dir(), freezeName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("thaw %s: %w", d.assignment.Dyno, err)
	}
	if d.setFrozen(time.Time{}) {
		d.log.Info("thawed", "run", b.Run())
	}
	return nil
}
