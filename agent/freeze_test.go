package agent

import (
	"errors"
	"io/fs"
	"runtime"
	"testing"
	"time"

	"manifold"
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
