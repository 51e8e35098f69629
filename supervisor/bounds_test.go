package supervisor

import (
	"testing"
	"time"

	"manifold"
)

// TestGraceBeyondThePlans: PID 1 knows the plan's grace and keeps to it, so the
// log names that, whatever somebody at the host's door asked for.
func TestGraceBeyondThePlans(t *testing.T) {
	l := newLife(t, Plan{})
	l.on(Event{Kind: Launched}).is(Up)
	l.on(Event{Kind: Stop, Grace: time.Hour}).is(Stopping).said = nil
	l.after(DefaultGrace).on(Event{Kind: Ended, Exit: Exit{Status: 137, Forced: true}}).is(Gone)
	l.says(
		"Error R12 (Exit timeout) -> At least one process failed to exit within 30 seconds of SIGTERM",
		"Stopping remaining processes with SIGKILL",
		"Process exited with status 137",
	)
}

// TestClockSetBackBetweenSamples: what is said of a dyno's memory must not put
// its timer off by as much as the clock was set back.
func TestClockSetBackBetweenSamples(t *testing.T) {
	for name, c := range map[string]struct {
		plan  Plan
		until Event // the timer is set
		wait  time.Duration
	}{
		"booting":    {Plan{Web: true, Quota: 1}, Event{Kind: Launched}, DefaultBootTimeout},
		"hanging up": {Plan{Kind: manifold.KindOneOff, Attached: true, Quota: 1}, Event{Kind: ClientLost}, DefaultPolicy.HangupEvery},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLife(t, c.plan)
			l.on(Event{Kind: Launched})
			if c.until.Kind != Launched {
				l.on(c.until)
			}
			l.after(-time.Hour)
			set := l.at
			for range 3 {
				l.on(Event{Kind: Sampled, Memory: 2})
				if wait := l.d.Due.Sub(set); wait > c.wait {
					t.Errorf("the timer goes off %s after the clock was set back, want %s", wait, c.wait)
				}
				l.after(time.Second)
			}
		})
	}
}
