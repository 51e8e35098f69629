package phase

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"manifold"
	"manifold/coordinator/logs"
	"manifold/coordinator/outputs"
	"manifold/coordinator/scheduler"
	"manifold/coordinator/store"
	"manifold/test/bubble"
)

// world is the store and the scheduler, of one release whose command an earlier
// coordinator has placed.
type world struct {
	release  manifold.Release
	failures []error // of Placement, one after the other
	ended    atomic.Bool
	end      chan bool
}

func (w *world) Changes(context.Context) <-chan struct{} { return nil }

func (w *world) ReleasePhases(context.Context) ([]store.ReleasePhase, error) {
	if w.ended.Load() {
		return nil, nil
	}
	return []store.ReleasePhase{{App: w.release.App, Release: w.release.ID, Version: 2, Begun: true}}, nil
}

func (w *world) BeginPhase(context.Context, store.ReleasePhase, store.Placement) error {
	return errors.New("it was begun")
}

func (w *world) EndPhase(_ context.Context, _ store.ReleasePhase, succeeded bool) error {
	w.ended.Store(true)
	w.end <- succeeded
	return nil
}

func (w *world) Placement(context.Context, string) (store.Placement, error) {
	if len(w.failures) > 0 {
		err := w.failures[0]
		w.failures = w.failures[1:]
		return store.Placement{}, err
	}
	return store.Placement{Assignment: manifold.Assignment{Dyno: "release.1"}}, nil
}

func (w *world) Release(context.Context, string, int) (manifold.Release, error) {
	return w.release, nil
}

func (w *world) Slug(context.Context, string) (manifold.Slug, error) {
	return manifold.Slug{}, errors.New("no slug")
}

func (w *world) Start(context.Context, scheduler.OneOff) (scheduler.Dyno, string, error) {
	return scheduler.Dyno{}, "", errors.New("never twice")
}

func (w *world) Await(context.Context, string) (scheduler.Ended, error) {
	return scheduler.Ended{Result: manifold.Result{Cause: manifold.CauseExit}}, nil
}

// A coordinator that takes over a command while the store is slow to answer
// waits for it; one that finds no dyno knows that the command was cut off.
func TestTakenOver(t *testing.T) {
	slow := errors.New("request timed out")
	for name, c := range map[string]struct {
		failures  []error
		succeeded bool
		says      string
	}{
		"a slow store":           {[]error{slow, slow, slow}, true, ""},
		"a dyno that is no more": {[]error{slow, store.ErrNotFound}, false, "was cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				hub, err := logs.Open(t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				defer hub.Close()
				kept, err := outputs.Open(t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				defer kept.Close()
				w := &world{failures: c.failures, end: make(chan bool, 1), release: manifold.Release{
					ID: "release", App: "app", Version: 2, Output: rand.Text(), CreatedAt: time.Now(), Status: manifold.ReleasePending,
				}}
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				done := make(chan error)
				go func() {
					done <- New(Config{Store: w, Dynos: w, Logs: hub, Outputs: kept, Log: slog.New(slog.DiscardHandler)}).Run(ctx)
				}()
				if got := <-w.end; got != c.succeeded {
					t.Errorf("succeeded: %v", got)
				}
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
				var out bytes.Buffer
				if err := kept.Copy(t.Context(), w.release.Output, &out); err != nil || !bytes.Contains(out.Bytes(), []byte(c.says)) {
					t.Errorf("the output is %q, %v", out.String(), err)
				}
			})
		})
	}
}

// Who follows a command reads its output also where it began and ended between
// two looks for it, however late the next look is.
func TestAnOutputThatWasThereInBetween(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		kept, err := outputs.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer kept.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var read bytes.Buffer
		done, name := make(chan struct{}), rand.Text()
		go func() {
			defer close(done)
			New(Config{Outputs: kept}).copy(ctx, name, &read)
		}()
		synctest.Wait() // it has looked once
		out, err := kept.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = out.Write([]byte("migrated"))
		out.Close()
		cancel()
		if <-done; read.String() != "migrated" {
			t.Errorf("read %q", read.String())
		}
	})
}
