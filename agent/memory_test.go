package agent

import (
	"slices"
	"testing"
	"time"

	"manifold"
	"manifold/isolation"
)

func TestMemoryOverQuotaIsToldEveryTwentySeconds(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		const mib = 1 << 20
		w.host.onStart = func(b *fakeBox) error {
			b.memory = isolation.Memory{RSS: 400 * mib, Shared: 50 * mib, Swap: 150 * mib, Cache: 9 << 30}
			return nil
		}
		a := fakeAssignment()
		a.Size = manifold.Size{Name: "Standard-1X", Memory: 512 * mib}
		w.start()
		w.want(a)
		time.Sleep(65 * time.Second)
		if d := w.dyno(a); d.State != manifold.StateUp || d.Crashes != 0 {
			t.Errorf("the dyno is %+v", d)
		}
		want := []string{"Process running mem=600M(117.2%)", "Error R14 (Memory quota exceeded)"}
		if got := w.up.heroku(); !slices.Equal(got[len(got)-6:], slices.Concat(want, want, want)) {
			t.Errorf("after a minute over its quota the log says %q", got)
		}
	})
}
