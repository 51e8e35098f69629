package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/fleet"
	"manifold/coordinator/store"
)

// Bounds of a job's waits.
const (
	hostWait  = 10 * time.Second // for a host to come online
	lineWait  = 10 * time.Second // for the last log lines of a job that ended
	jobSlack  = 5 * time.Minute  // past TTL and Grace, for images, start and outputs
	storeWait = 10 * time.Second // for a write on the way out
)

// Job is a one-off dyno with an input and outputs: a build.
type Job struct {
	// Assignment says what to run: App, AppName, Dyno, Layers, Command, Env,
	// Size, TTL and Job are the caller's; ID, Kind, Grace and CreatedAt are
	// filled in where empty.
	Assignment manifold.Assignment
	// Input writes the job's standard input. It is called again when the
	// agent has to start reading anew, never twice at the same time.
	Input func(io.Writer) error
	// Log gets each line the job writes, in order, from one goroutine.
	Log func(manifold.LogLine)
}

// Output is what came home under one Output.Name.
type Output = fleet.JobOutput

// JobResult is how a job ended. A job that failed (Status != 0) is not an
// error of RunJob. Outputs the job did not make are not in the map.
type JobResult struct {
	Result  manifold.Result
	Outputs map[string]Output
	dir     string
}

// Discard removes the files of Outputs; images stay in the slug store.
func (r JobResult) Discard() error {
	if r.dir == "" {
		return nil
	}
	return os.RemoveAll(r.dir)
}

// RunJob places a job and waits for its end. Cancelling ctx stops the job. It
// returns ErrNoHost when no host is live. The caller discards the result.
func (s *Scheduler) RunJob(ctx context.Context, j Job) (JobResult, error) {
	a := j.Assignment
	fail := func(err error) (JobResult, error) { return JobResult{}, fmt.Errorf("run %s: %w", a.Dyno, err) }
	if a.Job == nil {
		return fail(errors.New("it is not a job"))
	}
	a.Kind = manifold.KindOneOff
	if a.ID == "" {
		a.ID = uuid.NewString()
	}
	if a.Grace == 0 {
		a.Grace = s.cfg.Settings.Grace
	}
	if a.CreatedAt.IsZero() {
		a.CreatedAt = time.Now().UTC()
	}
	host, err := s.hostFor(ctx, a)
	if err != nil {
		return fail(err)
	}
	door, err := s.cfg.Fleet.OpenJob(fleet.JobSpec{Assignment: a.ID, Host: host, Outputs: a.Job.Outputs, Input: j.Input, Log: j.Log})
	if err != nil {
		return fail(err)
	}
	s.own(a.ID, true)
	result, err := s.await(ctx, host, a, door)
	s.release(ctx, a.ID)
	var r JobResult
	r.Outputs, r.dir = s.cfg.Fleet.CloseJob(door)
	r.Result = result
	if err != nil {
		_, err := fail(err)
		return JobResult{}, errors.Join(err, r.Discard())
	}
	return r, nil
}

// hostFor chooses a host, waiting a little for one to come online.
func (s *Scheduler) hostFor(ctx context.Context, a manifold.Assignment) (string, error) {
	timeout := time.NewTimer(s.cfg.Settings.StartGrace + s.hostWait)
	defer timeout.Stop()
	for {
		st, changed := s.watch()
		if st != nil {
			if host := leastLoaded(st.load(), kin(a.App, a.Dyno)); host != "" {
				return host, nil
			}
		}
		select {
		case <-changed:
		case <-timeout.C:
			return "", ErrNoHost
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

func (s *Scheduler) own(id string, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if mine {
		s.jobs[id] = true
	} else {
		delete(s.jobs, id)
	}
}

// await places the job and waits until it is complete and its lines are here.
func (s *Scheduler) await(ctx context.Context, host string, a manifold.Assignment, door *fleet.Job) (manifold.Result, error) {
	p := store.Placement{Host: host, Assignment: a}
	if err := s.cfg.Store.PutPlacement(ctx, p); err != nil {
		return manifold.Result{}, err
	}
	var overdue <-chan time.Time
	if a.TTL > 0 {
		timer := time.NewTimer(a.TTL + a.Grace + jobSlack)
		defer timer.Stop()
		overdue = timer.C
	}
	for placed := false; ; {
		st, changed := s.watch()
		now, there := st.find(a.ID)
		d := st.dyno(p)
		switch {
		case d.State == manifold.StateComplete:
			bounded, cancel := context.WithTimeout(ctx, lineWait)
			defer cancel()
			_ = door.WaitLines(bounded, d.OutputSeq) // lines that were dropped at the source never come
			if d.Result == nil {
				return manifold.Result{Cause: manifold.CauseLost, At: d.Since}, nil
			}
			return *d.Result, nil
		case placed && (!there || now.Phase != store.Placed):
			return manifold.Result{}, fmt.Errorf("%w: its app was deleted", ErrStopped)
		case st.lost(host):
			return manifold.Result{}, errors.New("the host it ran on went away: try again")
		}
		placed = placed || there
		select {
		case <-changed:
		case <-ctx.Done():
			return manifold.Result{}, context.Cause(ctx)
		case <-overdue:
			return manifold.Result{}, errors.New("its host does not say how it ended: look at that host's agent")
		}
	}
}

// release lets the loop take the placement away. Whatever fails here is
// mended by the loop: a job nobody owns is stopped.
func (s *Scheduler) release(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeWait)
	defer cancel()
	if err := s.setPhase(ctx, id, store.Stopping); err != nil {
		s.cfg.Log.Warn("could not mark a job as ended", "assignment", id, "err", err)
	}
	s.own(id, false)
	s.wake()
}

// find returns a placement as the pass saw it.
func (st *state) find(id string) (store.Placement, bool) {
	for _, p := range st.stored.placements {
		if p.Assignment.ID == id {
			return p, true
		}
	}
	return store.Placement{}, false
}
