package agent

import (
	"errors"
	"io/fs"
	"runtime"
	"testing"
	"time"

	"manifold"
	"manifold/agent/door"
)

// Two people freeze and thaw at the same moment: whoever is last is heeded, and
// a dyno that stands still has a limit.
func TestFreezeAndThawAtOnce(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		a := fakeAssignment()
		agent := w.start()
		w.want(a)
		w.until(func() bool { return w.dyno(a).State == manifold.StateUp })
		box := w.host.only(t)
		thawed := make(chan error, 1)
		box.onFreeze = func() {
			go func() { thawed <- agent.Thaw(a.ID) }()
			for range 10_000 { // it may overtake us, or wait
				runtime.Gosched()
			}
		}
		if _, err := agent.Freeze(t.Context(), a.ID, time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := <-thawed; err != nil {
			t.Fatal(err)
		}
		_, err := readFreeze(box.Dir())
		if box.still.Load() || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it stands still: %v; its order: %v", box.still.Load(), err)
		}
	})
}

// TestFreezeOfADynoThatIsToldToEnd: what is frozen as it gets SIGTERM would
// never see it, and be killed at the end of its grace.
func TestFreezeOfADynoThatIsToldToEnd(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		a := fakeAssignment()
		agent := w.start()
		w.want(a)
		w.until(func() bool { return w.dyno(a).State == manifold.StateUp })
		box := w.host.only(t)
		box.slow = 20 * time.Second
		box.onFreeze = func() {
			if err := agent.Stop(a.ID, 0); err != nil {
				t.Error(err)
			}
			w.until(func() bool { return w.dyno(a).State == manifold.StateStopping })
		}
		var refused *door.Refusal
		if _, err := agent.Freeze(t.Context(), a.ID, time.Minute); !errors.As(err, &refused) || box.still.Load() {
			t.Errorf("it says %v; it stands still: %v", err, box.still.Load())
		}
		box.still.Store(true) // one that was frozen between its SIGTERM and the moment it shows
		agent.driver(a.ID).setFrozen(time.Now().Add(time.Minute))
		time.Sleep(reconcileEvery + time.Second)
		if box.still.Load() {
			t.Error("it stands still until it is killed")
		}
	})
}
