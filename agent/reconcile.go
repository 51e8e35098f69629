package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"manifold"
	"manifold/supervisor"
)

// accept checks what the coordinator desires, keeps it for the agent's next
// start and makes it so. An error leaves all as it was.
func (a *agent) accept(d manifold.Desired) error {
	if cluster := a.identity().Cluster; d.Cluster != cluster {
		return fmt.Errorf("the coordinator speaks for cluster %q, this host belongs to %q: nothing was changed; "+
			"to move the host, stop its dynos and remove %s", d.Cluster, cluster, a.home.identity())
	}
	a.mu.Lock()
	known := a.desired
	a.mu.Unlock()
	if known.Cluster == d.Cluster && d.Revision < known.Revision {
		return fmt.Errorf("the coordinator sent revision %d after %d: nothing was changed", d.Revision, known.Revision)
	}
	a.mu.Lock()
	a.desired, a.known, a.unsaved = d, true, true
	a.mu.Unlock()
	a.saveDesired()
	a.reconcile()
	if err := syncFile(a.home.desired()); err != nil { // after the dynos were started: off their way
		a.log.Error("what is desired could not be synced to disk", "error", err)
	}
	return nil
}

// saveDesired writes what is desired down, if that was not done yet. Running
// what could not be written down is better than a host that a full disk has
// cut off: it is tried again with every reconciliation, and until it works a
// reboot would start the older set.
func (a *agent) saveDesired() {
	a.mu.Lock()
	d, unsaved := a.desired, a.unsaved
	a.mu.Unlock()
	if !unsaved {
		return
	}
	text, err := json.Marshal(d)
	if err == nil {
		err = writeFile(a.home.desired(), text)
	}
	if err != nil {
		a.log.Error("what is desired could not be saved, will try again", "error", err)
		return
	}
	a.mu.Lock()
	a.unsaved = a.desired.Revision != d.Revision
	a.mu.Unlock()
}

// repair does again what a full mailbox, a full disk or a failed effect left
// undone.
func (a *agent) repair() {
	a.thawOverdue()
	a.saveDesired()
	a.reconcile()
}

// loadDesired brings back what was desired last. A file that cannot be used
// is set aside: then the records say what runs on, and the coordinator the
// rest.
func (a *agent) loadDesired() error {
	text, err := os.ReadFile(a.home.desired())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read what was desired last: %w", err)
	}
	var d manifold.Desired
	if err := json.Unmarshal(text, &d); err != nil {
		a.log.Error("what was desired last cannot be read: set aside, waiting for the coordinator",
			"file", a.home.desired()+".corrupt", "error", err)
		return setAside(a.home.desired())
	}
	a.desired, a.known = d, true
	return nil
}

// reconcile compares what is desired with the dynos there are, begins what is
// missing and stops what is too much. It blocks on nothing.
func (a *agent) reconcile() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.halting || !a.known {
		return
	}
	wanted := make(map[string]bool, len(a.desired.Assignments))
	for _, as := range a.desired.Assignments {
		wanted[as.ID] = true
		if a.drivers[as.ID] != nil {
			continue
		}
		if err := checkAssignment(as); err != nil {
			// One bad assignment must not keep the others from running.
			a.log.Error("an assignment is refused", "assignment", as.ID, "error", err)
			continue
		}
		rec := &record{Assignment: as, Dyno: supervisor.New(supervisor.PlanOf(as), time.Now())}
		a.startDriver(rec, nil)
	}
	for id, d := range a.drivers {
		if !wanted[id] {
			d.withdraw(slices.Contains(a.desired.Cycling, id))
		}
	}
	a.startExecs()
	if a.applied != a.desired.Revision {
		a.applied = a.desired.Revision
		a.notice()
	}
}

// startDriver is called with mu held. found is the run's box, if there is one.
func (a *agent) startDriver(rec *record, found box) {
	d := newDriver(a, rec, found)
	a.drivers[rec.Assignment.ID] = d
	a.work.Go(func() {
		if err := a.releases.Note(rec.Assignment, time.Now()); err != nil {
			a.log.Warn("what a release changed will not be known", "error", err)
		}
		d.run(a.ctx)
		if a.ctx.Err() != nil {
			return
		}
		a.mu.Lock()
		delete(a.drivers, rec.Assignment.ID)
		a.mu.Unlock()
		a.reconcile() // it may be wanted again
	})
}

// adopt takes over what an agent before this one left: records, boxes, logs.
// Boxes that no record names are killed and removed.
func (a *agent) adopt() error {
	records, err := a.shelf.load()
	if err != nil {
		return err
	}
	boxes, err := a.boxes.Boxes()
	if err != nil {
		return fmt.Errorf("look for running dynos: %w", err)
	}
	byRun := make(map[string]box, len(boxes))
	for _, b := range boxes {
		byRun[b.Run()] = b
	}
	named := make(map[string]bool, len(records))
	for _, rec := range records {
		named[rec.Dyno.Run] = true
	}
	// Before any driver runs: it might begin a run that is not in named.
	if err := a.ship.recover(named, time.Now()); err != nil {
		return fmt.Errorf("look for unshipped logs: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, rec := range records {
		found := byRun[rec.Dyno.Run]
		delete(byRun, rec.Dyno.Run)
		a.log.Info("adopted", "app", rec.Assignment.AppName, "dyno", rec.Assignment.Dyno, "run", rec.Dyno.Run,
			"state", rec.Dyno.State, "box", found != nil)
		a.startDriver(rec, found)
	}
	for run, b := range byRun {
		a.log.Warn("a box that no record names is killed and removed", "run", run)
		a.work.Go(func() { a.discard(b) })
	}
	return nil
}

// discard kills a box and removes it.
func (a *agent) discard(b box) {
	if err := b.Kill(); err != nil {
		a.log.Error("a box could not be killed", "run", b.Run(), "error", err)
	}
	select {
	case <-b.Done():
	case <-a.ctx.Done():
		return
	}
	a.remove(b)
}

// remove takes a box away, again and again until it is gone or ctx ends.
func (a *agent) remove(b box) {
	pause := backoff{first: 100 * time.Millisecond, last: time.Minute}
	for {
		err := b.Remove()
		if err == nil {
			return
		}
		a.log.Error("a box could not be removed, will try again", "run", b.Run(), "error", err)
		if !pause.wait(a.ctx) {
			return
		}
	}
}

// collectImages drops the images that no assignment here names, now and then.
func (a *agent) collectImages(ctx context.Context) {
	for sleep(ctx, 10*time.Minute) {
		a.morgue.prune(time.Now())
		freed, err := a.images.Collect(a.imageWanted)
		if err != nil {
			a.log.Error("old images could not be collected", "error", err)
		} else if freed > 0 {
			a.log.Info("old images collected", "bytes", freed)
		}
	}
}

// imageWanted says whether an assignment names the image now: one may come
// while images are collected, and find its own still here.
func (a *agent) imageWanted(digest string) bool {
	names := func(as manifold.Assignment) bool {
		return slices.ContainsFunc(as.Layers, func(img manifold.Image) bool { return img.Digest == digest })
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.drivers {
		if names(d.assignment) {
			return true
		}
	}
	return slices.ContainsFunc(a.desired.Assignments, names)
}
