package scheduler

import (
	"context"
	"errors"
	"io"
	"time"

	"manifold"
)

// ErrNoHost means that no live host can take a dyno.
var ErrNoHost = errors.New("no host is online to run it: start manifold-agent on a host and join it")

// Scheduler places dynos. All methods may be called by any goroutine while
// Run runs.
type Scheduler struct{}

// Run reconciles until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error { return nil }

// Dyno is one dyno as `ps` shows it: what its host last said of it, and what
// it was placed as. A dyno no host spoke of yet is starting.
type Dyno struct {
	manifold.Dyno
	AppName   string
	Host      string
	Kind      manifold.Kind
	Type      string // "web"
	Command   string
	Size      string // Size.Name
	Release   int    // version
	CreatedAt time.Time
}

// Dynos lists an app's dynos (App.ID), by type and number: of every slot the
// newest, and one-off dynos; builds are not among them.
func (s *Scheduler) Dynos(app string) []Dyno { return nil }

// Restart replaces the dynos of an app (App.ID) whose name matches. A crashed
// one that waits for its next try is replaced at once; one that is up goes
// when its replacement is up.
func (s *Scheduler) Restart(ctx context.Context, app string, match func(dyno string) bool) error {
	return nil
}

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
type Output struct {
	Image manifold.Image // for an Output with Image set: it is in the slug store
	Path  string         // else: a file below JobResult's directory
}

// JobResult is how a job ended. A job that failed (Status != 0) is not an
// error of RunJob. Outputs the job did not make are not in the map.
type JobResult struct {
	Result  manifold.Result
	Outputs map[string]Output
	dir     string
}

// Discard removes the files of Outputs; images stay in the slug store.
func (r JobResult) Discard() error { return nil }

// RunJob places a job and waits for its end. Cancelling ctx stops the job. It
// returns ErrNoHost when no host is live.
func (s *Scheduler) RunJob(ctx context.Context, j Job) (JobResult, error) { return JobResult{}, nil }
