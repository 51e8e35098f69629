package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"manifold"
	"manifold/isolation"
	"manifold/test/bubble"
)

// inTime runs a test in simulated time.
func inTime(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		test(t, w)
		if w.stop != nil {
			w.stop()
		}
	})
}

func TestCrashesOfOneDay(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		w.host.onStart = func(b *fakeBox) error {
			time.AfterFunc(time.Second, func() { b.end(&isolation.Exit{Status: 0, At: time.Now()}) })
			return nil
		}
		a := fakeAssignment()
		w.start()
		w.want(a)
		time.Sleep(2 * time.Second)
		if _, starts := w.host.count(); starts != 2 {
			t.Errorf("%d starts after the first crash, want a second at once", starts)
		}
		time.Sleep(24*time.Hour - 10*time.Second)
		if _, starts := w.host.count(); starts < 143 || starts > 146 {
			t.Errorf("%d starts in a day of crashes", starts)
		}
		if boxes, _ := w.host.count(); boxes > 1 {
			t.Errorf("%d boxes are left of them", boxes)
		}
		if logs, _ := filepath.Glob(filepath.Join(w.home.dynos(), "*", "runs", "*")); len(logs) > 1 {
			t.Errorf("%d logs are left, all shipped", len(logs))
		}
	})
}

func TestSlowFetchHoldsUpNobody(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		w.images.fetch = func(ctx context.Context, img manifold.Image) error {
			if img.Digest == "sha256:slow" {
				<-ctx.Done()
			}
			return ctx.Err()
		}
		slow, quick := fakeAssignment(), fakeAssignment()
		slow.Layers = []manifold.Image{{Digest: "sha256:slow"}}
		w.start()
		w.want(slow, quick)
		time.Sleep(time.Second)
		if s := w.dyno(quick).State; s != manifold.StateUp {
			t.Errorf("the quick one is %q", s)
		}
		if s := w.dyno(slow).State; s != manifold.StateStarting {
			t.Errorf("the slow one is %q", s)
		}
		w.want(quick)
		time.Sleep(time.Second)
		if s := w.dyno(slow).State; s != "" {
			t.Errorf("the slow one, no longer wanted, is %q", s)
		}
	})
}

func TestFetchWaitsForTheCoordinator(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		var back atomic.Bool
		w.images.fetch = func(context.Context, manifold.Image) error {
			if !back.Load() {
				return errors.New("connection refused")
			}
			return nil
		}
		a := fakeAssignment()
		w.start()
		w.want(a)
		time.Sleep(3 * time.Hour)
		if d := w.dyno(a); d.State != manifold.StateStarting || d.Crashes != 0 {
			t.Errorf("without the coordinator it is %+v", d)
		}
		back.Store(true)
		time.Sleep(11 * time.Second)
		if d := w.dyno(a); d.State != manifold.StateUp {
			t.Errorf("with the coordinator it is %+v", d)
		}
	})
}

func TestImageThatIsWrongIsALaunchFailure(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		w.images.fetch = func(context.Context, manifold.Image) error {
			return &manifold.StatusError{Status: 404, Body: manifold.ErrorBody{Message: "no such image"}}
		}
		a := fakeAssignment()
		w.start()
		w.want(a)
		time.Sleep(time.Second)
		d := w.dyno(a)
		if d.State != manifold.StateCrashed || d.Result.Cause != manifold.CauseLaunch || !strings.Contains(d.Result.Detail, "no such image") {
			t.Errorf("it is %+v, %+v", d, d.Result)
		}
	})
}

// A coordinator on a busy machine is slow to take a restart's wish, and not
// away: the dyno stays until it has replaced it.
func TestRestartIsLeftToASlowCoordinator(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		w.up.slow = 5 * time.Second
		a := fakeAssignment()
		agent := w.start()
		agent.uplink.set(nil) // it has joined; what is said goes to w.up
		w.want(a)
		time.Sleep(time.Second)
		before := w.dyno(a)
		inPlace, err := agent.Restart(t.Context(), a.ID)
		time.Sleep(time.Second)
		if now := w.dyno(a); inPlace || err != nil || now.Run != before.Run || now.State != manifold.StateUp {
			t.Errorf("in place: %t, %v; it was %+v and is %+v", inPlace, err, before, now)
		}
	})
}

// An agent dies over a start, and PID 1, which was not told what to run, takes
// its time to see that: nothing ran, so nothing crashed.
func TestStartThatWasCutShortIsNoCrash(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		w.host.onStart = func(b *fakeBox) error {
			w.host.onStart = nil
			b.unbegun = true
			w.host.boxes[b.spec.Run] = b
			time.AfterFunc(5*time.Second, func() { b.end(nil) })
			runtime.Goexit() // the agent is dead
			return nil
		}
		a := fakeAssignment()
		w.start()
		w.want(a)
		time.Sleep(time.Second)
		w.stop()
		w.start()
		time.Sleep(10 * time.Second)
		if d := w.dyno(a); d.State != manifold.StateUp || d.Crashes != 0 || d.Result != nil {
			t.Errorf("it is %+v, %+v", d, d.Result)
		}
	})
}

// What the coordinator is told at the door's wish does not overtake what it is
// being told: it would end with the older.
func TestTheNewestObservationComesLast(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		agent := w.start()
		up := &slowUp{fakeUp: w.up}
		agent.up = up
		agent.uplink.set(nil) // it has joined
		first := make(chan error, 1)
		go func() { first <- agent.observeOnce(t.Context()) }()
		time.Sleep(time.Millisecond)
		if told, err := agent.Drain(t.Context(), true); !told || err != nil {
			t.Errorf("told: %t, %v", told, err)
		}
		if err := <-first; err != nil {
			t.Error(err)
		}
		if n := len(up.seen); n != 2 || !up.seen[n-1].Draining {
			t.Errorf("the coordinator saw %+v", up.seen)
		}
	})
}

// slowUp takes a second for its first message.
type slowUp struct {
	*fakeUp
	began bool
	seen  []manifold.Observation
}

func (u *slowUp) Post(ctx context.Context, path string, v any) error {
	o, ok := v.(manifold.Observation)
	if !ok {
		return u.fakeUp.Post(ctx, path, v)
	}
	u.mu.Lock()
	first := !u.began
	u.began = true
	u.mu.Unlock()
	if first {
		time.Sleep(time.Second)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen = append(u.seen, o)
	return nil
}

func TestHungPID1IsKilled(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		w.host.onStart = func(b *fakeBox) error { b.deaf = true; return nil }
		a := fakeAssignment()
		w.start()
		w.want(a)
		time.Sleep(time.Second)
		w.want()
		time.Sleep(40 * time.Second)
		if s := w.dyno(a).State; s != manifold.StateStopping {
			t.Errorf("before its time was up it is %q", s)
		}
		time.Sleep(10 * time.Second)
		if s := w.dyno(a).State; s != "" {
			t.Errorf("after its time was up it is %q", s)
		}
	})
}

func TestBoxThatDoesNotGoIsTriedAgain(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		w.host.onStart = func(b *fakeBox) error { b.stuck = 3; return nil }
		a := fakeAssignment()
		w.start()
		w.want(a)
		time.Sleep(time.Second)
		w.want()
		time.Sleep(10 * time.Second)
		if boxes, _ := w.host.count(); boxes != 0 {
			t.Errorf("%d boxes are left", boxes)
		}
	})
}

func TestDynoIsNotStartedWithoutARecord(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		a := fakeAssignment()
		w.start()
		if err := os.Remove(w.home.dynos()); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(w.home.dynos(), nil, 0o600); err != nil { // nothing can be made below it
			t.Fatal(err)
		}
		w.want(a)
		time.Sleep(time.Second)
		if _, starts := w.host.count(); starts != 0 {
			t.Errorf("%d boxes were started that no record names", starts)
		}
		if d := w.dyno(a); d.State != manifold.StateCrashed || d.Result.Cause != manifold.CauseLaunch {
			t.Errorf("it is %+v", d)
		}
		if err := os.Remove(w.home.dynos()); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(w.home.dynos(), 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Minute)
		if d := w.dyno(a); d.State != manifold.StateUp {
			t.Errorf("once the disk works it is %+v", d)
		}
	})
}

func TestRebootIsNoCrash(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		a, one := fakeAssignment(), fakeAssignment()
		one.Kind, one.Dyno, one.Web = manifold.KindOneOff, "run.1", false
		w.start()
		w.want(a, one)
		time.Sleep(time.Second)
		w.stop()
		w.host.mu.Lock()
		for _, b := range w.host.boxes {
			b.end(nil)
		}
		w.host.mu.Unlock()
		w.boot = "boot-2"
		w.start() // without a word from the coordinator
		time.Sleep(time.Second)
		if d := w.dyno(a); d.State != manifold.StateUp || d.Crashes != 0 || d.Result.Cause != manifold.CauseLost {
			t.Errorf("the formation dyno is %+v", d)
		}
		if d := w.dyno(one); d.State != manifold.StateComplete || d.Result.Cause != manifold.CauseLost {
			t.Errorf("the one-off is %+v", d)
		}
	})
}

// TestAgentDiesAtEveryPoint lives four whole lives, again and again, with
// the agent dying at the first point, the second, … and another taking over.
// However it dies, the end is the same, and so is the log.
func TestAgentDiesAtEveryPoint(t *testing.T) {
	lives := map[string]struct {
		assignment func() manifold.Assignment
		live       func(w *world, a manifold.Assignment)
		log        []string
	}{
		"start and stop": {
			fakeAssignment,
			func(w *world, a manifold.Assignment) {
				w.until(func() bool { return w.dyno(a).State == manifold.StateUp })
				w.withdraw(a)
			},
			[]string{
				"State changed from created to starting", "Starting process with command `run`", "State changed from starting to up",
				"Stopping all processes with SIGTERM", "Process exited with status 143",
			},
		},
		"crash and start again": {
			fakeAssignment,
			func(w *world, a manifold.Assignment) {
				w.until(func() bool { return w.dyno(a).State == manifold.StateUp })
				first := w.dyno(a).Run
				w.host.only(w.t).end(&isolation.Exit{Status: 9, At: time.Now()})
				w.until(func() bool { return w.dyno(a).State == manifold.StateUp && w.dyno(a).Run != first })
				if c := w.dyno(a).Crashes; c != 1 {
					w.t.Errorf("%d crashes", c)
				}
				w.withdraw(a)
			},
			[]string{
				"State changed from created to starting", "Starting process with command `run`", "State changed from starting to up",
				"Process exited with status 9", "State changed from up to crashed",
				"State changed from crashed to starting", "Starting process with command `run`", "State changed from starting to up",
				"Stopping all processes with SIGTERM", "Process exited with status 143",
			},
		},
		"cycle": {
			fakeAssignment,
			func(w *world, a manifold.Assignment) {
				b := fakeAssignment()
				w.until(func() bool { return w.dyno(a).State == manifold.StateUp })
				w.want(a, b)
				w.until(func() bool { return w.dyno(b).State == manifold.StateUp })
				w.desire(manifold.Desired{Assignments: []manifold.Assignment{b}, Cycling: []string{a.ID}})
				w.until(func() bool {
					boxes, _ := w.host.count()
					return w.dyno(a).State == "" && boxes == 1
				})
				w.withdraw(b)
			},
			[]string{
				"State changed from created to starting", "Starting process with command `run`", "State changed from starting to up",
				"State changed from created to starting", "Starting process with command `run`", "State changed from starting to up",
				"Cycling", "Stopping all processes with SIGTERM", "Process exited with status 143",
				"Stopping all processes with SIGTERM", "Process exited with status 143",
			},
		},
		"health": {
			func() manifold.Assignment {
				a := fakeAssignment()
				a.Env = map[string]string{manifold.HealthCheckVar: "/health"}
				return a
			},
			func(w *world, a manifold.Assignment) {
				w.until(func() bool { return w.dyno(a).State == manifold.StateUp })
				first := w.dyno(a).Run
				w.setWorks(func(run string) error {
					if run == first {
						return errors.New("status 503")
					}
					return nil
				})
				w.until(func() bool { return w.dyno(a).State == manifold.StateUp && w.dyno(a).Run != first })
				if d := w.dyno(a); d.Crashes != 1 || d.Result.Cause != manifold.CauseHealth || d.Result.Detail != "3 times in a row GET /health: status 503" {
					w.t.Errorf("it is %+v after %+v", d, d.Result)
				}
				w.withdraw(a)
			},
			[]string{
				"State changed from created to starting", "Starting process with command `run`", "State changed from starting to up",
				"Health check failed: 3 times in a row GET /health: status 503", "Restarting",
				"Stopping all processes with SIGTERM", "Process exited with status 143", "State changed from up to crashed",
				"State changed from crashed to starting", "Starting process with command `run`", "State changed from starting to up",
				"Stopping all processes with SIGTERM", "Process exited with status 143",
			},
		},
		"job": {
			func() manifold.Assignment {
				a := fakeAssignment()
				a.Kind, a.Dyno, a.Web = manifold.KindOneOff, "build.1", false
				a.Job = &manifold.Job{Outputs: []manifold.Output{{Name: "slug", Path: "/", Image: true}}}
				return a
			},
			func(w *world, a manifold.Assignment) {
				w.until(func() bool { return w.dyno(a).State == manifold.StateUp })
				w.host.only(w.t).end(&isolation.Exit{Status: 0, At: time.Now(), Lines: 5})
				w.until(func() bool { return w.dyno(a).State == manifold.StateComplete })
				if d := w.dyno(a); d.Result.Cause != manifold.CauseExit || d.Result.Status != 0 || d.OutputSeq != 5 || w.up.puts == 0 {
					w.t.Errorf("complete with %+v, %+v, %d uploads", d, d.Result, w.up.puts)
				}
				w.withdraw(a)
			},
			nil,
		},
	}
	points := 0
	for name, life := range lives {
		for n := 1; ; n++ {
			died := false
			inTime(t, func(t *testing.T, w *world) {
				dead := w.dieAt(n)
				a := life.assignment()
				w.start()
				w.want(a)
				life.live(w, a)
				died = dead()
				time.Sleep(time.Minute) // the last lines go home
				if boxes, starts := w.host.count(); boxes != 0 || starts != max(1, len(life.log)/5) {
					t.Errorf("%s, point %d: %d boxes are left, %d were started", name, n, boxes, starts)
				}
				if left, _ := filepath.Glob(filepath.Join(w.home.dynos(), "*")); len(left) > 0 {
					t.Errorf("%s, point %d: %v is left", name, n, left)
				}
				got, want := w.up.heroku(), slices.Clone(life.log)
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("%s, point %d: the log says\n%s", name, n, strings.Join(got, "\n"))
				}
			})
			if !died || t.Failed() {
				break
			}
			points++
		}
	}
	if points < 30 {
		t.Errorf("only %d points", points)
	}
	t.Log(points, "points")
}

// until waits for ok. When the agent has died, another takes over.
func (w *world) until(ok func() bool) {
	w.t.Helper()
	for range 1200 {
		time.Sleep(100 * time.Millisecond)
		if ok() {
			return
		}
		if w.fault != nil && w.agent.ctx.Err() == nil && w.dead() {
			w.stop()
			w.fault = nil
			w.start()
		}
	}
	w.t.Fatalf("waited in vain; %s", fmt.Sprintf("%+v", w.agent.observation()))
}

func (w *world) withdraw(a manifold.Assignment) {
	w.t.Helper()
	w.want()
	w.until(func() bool {
		boxes, _ := w.host.count()
		return w.dyno(a).State == "" && boxes == 0
	})
}
