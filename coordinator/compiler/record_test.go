package compiler

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"manifold"
	"manifold/coordinator/store"
	"manifold/test/bubble"
)

// A build's record is pending while it runs and final before its output ends.
func TestABuildIsWrittenDown(t *testing.T) {
	r := newRig(t, nil)
	started, err := r.Start(r.req)
	if err != nil || started.Status != manifold.BuildPending || started.Version != r.req.Commit || started.Stack != "cedar" {
		t.Fatalf("%+v, %v", started, err)
	}
	var out strings.Builder
	if err := r.cfg.Outputs.Copy(t.Context(), started.Output, &out); err != nil || !strings.Contains(out.String(), "Verifying deploy... done.") {
		t.Errorf("%v, the output is %q", err, out.String())
	}
	if last := r.store.builds[len(r.store.builds)-1]; len(r.store.builds) != 2 || last.ID != started.ID || last.Status != manifold.BuildSucceeded || last.Output != started.Output {
		t.Errorf("written down: %+v", r.store.builds)
	}
}

// Whoever has read a build's output to its end may begin the next one at once.
func TestOneBuildAfterTheOther(t *testing.T) {
	r := newRig(t, nil)
	entered, on := make(chan struct{}), make(chan struct{})
	r.runner.during = func(context.Context) { close(entered); <-on }
	started, err := r.Start(r.req)
	if err != nil {
		t.Fatal(err)
	}
	<-entered
	r.mu.Lock() // the build cannot give its place back
	close(on)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = r.cfg.Outputs.Copy(t.Context(), started.Output, io.Discard)
	}()
	select {
	case <-ended:
		t.Error("the output ended before the build gave its place back")
	case <-time.After(300 * time.Millisecond):
	}
	r.mu.Unlock()
	<-ended
	r.runner.during = nil
	next, err := r.Start(r.req)
	if err != nil {
		t.Fatalf("the next build: %v", err)
	}
	_ = r.cfg.Outputs.Copy(t.Context(), next.Output, io.Discard)
}

// So may whoever has read that it has ended, even if its release's command still
// runs.
func TestAPlaceIsFreeOnceABuildHasEnded(t *testing.T) {
	for _, status := range []string{manifold.BuildSucceeded, manifold.BuildFailed} {
		t.Run(status, func(t *testing.T) {
			var r *rig
			free := func(when string) {
				r.mu.Lock()
				defer r.mu.Unlock()
				if len(r.building) != 0 {
					t.Errorf("%s the app's place is still taken", when)
				}
			}
			r = newRig(t, func(c *Config) {
				c.Follow = func(_ context.Context, pending manifold.Release, _ io.Writer) (manifold.Release, error) {
					free("while the release's command runs")
					return pending, nil
				}
			})
			r.store.status = manifold.ReleasePending
			r.store.during = func(b manifold.Build) {
				if b.Status == status {
					free("when the build is written down as " + status)
				}
			}
			if status == manifold.BuildFailed {
				r.runner.err = errors.New("it fails")
			}
			_, _ = r.build(t)
			if last := r.store.builds[len(r.store.builds)-1]; last.Status != status {
				t.Errorf("written down: %+v", last)
			}
		})
	}
}

// A build does not look pending for ever because the store could not take its end.
func TestTheEndIsWrittenDownLater(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.store.full = errors.New("the disk is full")
		if _, err := r.build(t); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * retry)
		synctest.Wait()
		if last := r.store.builds[len(r.store.builds)-1]; last.Status != manifold.BuildSucceeded {
			t.Errorf("written down: %+v", r.store.builds)
		}
	})
}

func TestCancel(t *testing.T) {
	r := newRig(t, nil)
	entered := make(chan struct{})
	r.runner.during = func(ctx context.Context) { close(entered); <-ctx.Done() }
	started, err := r.Start(r.req)
	if err != nil {
		t.Fatal(err)
	}
	<-entered
	if _, err := r.Start(r.req); !errors.Is(err, ErrBusy) {
		t.Errorf("a second build: %v", err)
	}
	if r.Cancel(r.req.App.ID, "another") || r.Cancel("another", started.ID) || !r.Cancel(r.req.App.ID, started.ID) {
		t.Error("the wrong build was cancelled, or the right one was not")
	}
	var out strings.Builder
	if err := r.cfg.Outputs.Copy(t.Context(), started.Output, &out); err != nil || !strings.Contains(out.String(), "Build cancelled. Nothing was released.") {
		t.Errorf("%v, the output is %q", err, out.String())
	}
	if last := r.store.builds[len(r.store.builds)-1]; last.Status != manifold.BuildFailed || len(r.store.deployed) != 0 {
		t.Errorf("written down: %+v", r.store.builds)
	}
}

// Whoever was told that a build is cancelled may begin the next one at once,
// though its dyno takes a while to end.
func TestOneBuildAfterAnotherWasCancelled(t *testing.T) {
	r := newRig(t, nil)
	entered, cancelled := make(chan struct{}), make(chan bool)
	r.runner.during = func(ctx context.Context) {
		close(entered)
		<-ctx.Done()
		select {
		case <-cancelled:
			t.Error("it was cancelled before it had ended")
		case <-time.After(100 * time.Millisecond):
		}
	}
	started, err := r.Start(r.req)
	if err != nil {
		t.Fatal(err)
	}
	<-entered
	go func() { cancelled <- r.Cancel(r.req.App.ID, started.ID) }()
	_ = r.cfg.Outputs.Copy(t.Context(), started.Output, io.Discard)
	select {
	case <-cancelled:
	case <-time.After(cancelTime):
		t.Error("it ended, and Cancel waits still")
	}
}

// A build that is refused is kept by nothing: a client may ask again and again.
func TestARefusedBuildIsForgotten(t *testing.T) {
	r := newRig(t, nil)
	entered := make(chan struct{})
	r.runner.during = func(ctx context.Context) { close(entered); <-ctx.Done() }
	if _, err := r.Start(r.req); err != nil {
		t.Fatal(err)
	}
	<-entered
	kept := func() weak.Pointer[store.Author] {
		another := r.req
		another.Author = &store.Author{ID: "grace"}
		if _, err := r.Start(another); !errors.Is(err, ErrBusy) {
			t.Errorf("a second build: %v", err)
		}
		return weak.Make(another.Author)
	}()
	for range 100 {
		if runtime.GC(); kept.Value() == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a build that was refused is still kept")
}

func TestTarball(t *testing.T) {
	r := newRig(t, func(c *Config) { c.SourceLimit = 1 << 20 })
	pack := func(write func(*tar.Writer)) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		tw := tar.NewWriter(z)
		write(tw)
		tw.Close()
		z.Close()
		return b.Bytes()
	}
	good := pack(func(tw *tar.Writer) { _ = addBytes(tw, "./main.go", 0o644, []byte("package main\n")) })
	read := func(content []byte) (string, error) {
		r.req.Source = r.Tarball(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
		_, err := r.build(t)
		return r.out.String(), err
	}
	if out, err := read(good); err != nil || r.runner.input["source/./main.go"] != "package main\n" {
		t.Errorf("%v, %v\n%s", err, r.runner.input, out)
	}
	for want, content := range map[string][]byte{
		"no gzipped tar":        []byte("plain"),
		"The source is damaged": good[:len(good)-12],
		"is too large":          pack(func(tw *tar.Writer) { _ = addBytes(tw, "big", 0o644, make([]byte, 2<<20)) }),
		"leads out of it":       pack(func(tw *tar.Writer) { _ = addBytes(tw, "../x", 0o644, nil) }),
	} {
		if out, err := read(content); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s", want, err, out)
		}
	}
}

// The pusher reads the release command; that it failed is the release's failure,
// not the push's.
func TestReleaseCommand(t *testing.T) {
	status := manifold.ReleaseSucceeded
	r := newRig(t, func(c *Config) {
		c.Follow = func(_ context.Context, pending manifold.Release, w io.Writer) (manifold.Release, error) {
			_, _ = io.WriteString(w, "migrating\n")
			pending.Status = status
			return pending, nil
		}
	})
	r.store.status = manifold.ReleasePending
	if _, err := r.build(t); err != nil {
		t.Fatalf("%v\n%s", err, r.out.String())
	}
	r.says(t, "Release command declared", "Running release command...\n\nmigrating\nWaiting for release... done.", "deployed to Manifold")
	status = manifold.ReleaseFailed
	if got, err := r.build(t); err != nil || got.Status != manifold.ReleaseFailed || strings.Contains(r.out.String(), "deployed to Manifold") {
		t.Errorf("%+v %v\n%s", got, err, r.out.String())
	}
	r.says(t, "migrating", "Waiting for release... failed.", "The command of release v4 failed. The push is kept; what served before serves on")
}

// Once there is a release, its push has succeeded: also where nobody can say how
// its command ends.
func TestAReleaseCommandThatCannotBeFollowed(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Follow = func(_ context.Context, pending manifold.Release, _ io.Writer) (manifold.Release, error) {
			return pending, errors.New("the coordinator ends")
		}
	})
	r.store.status = manifold.ReleasePending
	if got, err := r.build(t); err != nil || got.Version != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	r.says(t, "Release v3 is made, and its command goes on", "heroku releases:output v3")
	if out := r.out.String(); strings.Contains(out, "Push failed") || strings.Contains(out, "not in your app") {
		t.Errorf("the pusher reads:\n%s", out)
	}
}

// hooked is a store of which a test does one thing itself.
type hooked struct {
	Store
	deploy, put func() error
}

func (h hooked) Deploy(context.Context, string, manifold.Slug, string, manifold.User) (manifold.Release, error) {
	return manifold.Release{}, h.deploy()
}

func (h hooked) PutBuild(ctx context.Context, b *manifold.Build) ([]string, error) {
	if h.put != nil {
		return nil, h.put()
	}
	return h.Store.PutBuild(ctx, b)
}

// Other apps build while a slug waits for its own app's release command.
func TestWhoWaitsToBeReleasedHoldsNoSlot(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	held := -1
	var r *rig
	r = newRig(t, func(c *Config) {
		c.Store = hooked{Store: c.Store, deploy: func() error { held = len(r.slots); cancel(); return store.ErrReleasing }}
	})
	if _, err := r.Build(ctx, r.req, &r.out); !errors.Is(err, context.Canceled) || held != 0 {
		t.Errorf("%v, %d build slots are held", err, held)
	}
	r.says(t, "Waiting for the command of another release to end")
}

// What a pusher is told to give their operator is in the coordinator's log.
func TestABuildThatCannotBegin(t *testing.T) {
	var log bytes.Buffer
	r := newRig(t, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		c.Store = hooked{Store: c.Store, put: func() error { return errors.New("the disk is full") }}
	})
	if _, err := r.build(t); err == nil {
		t.Error("it was built")
	}
	id := regexp.MustCompile(`this build's id: ([0-9a-f-]{36})`).FindStringSubmatch(r.out.String())
	if id == nil || !strings.Contains(log.String(), id[1]) || !strings.Contains(log.String(), "the disk is full") {
		t.Errorf("the pusher reads %q, the operator %q", r.out.String(), log.String())
	}
}
