package supervisor

import (
	"time"

	"manifold"
)

// Policy holds the numbers of supervision. Each is a setting.
type Policy struct {
	// GoodRun is how long a run must have been up for its end to count as a
	// first crash again.
	GoodRun time.Duration
	// Classic and Progressive are the waits before the first, second, …
	// restart after a crash; the last one is repeated. Those of Progressive
	// are upper bounds: the wait is drawn between half of it and all.
	Classic     []time.Duration
	Progressive []time.Duration
	// ForceSlack is how much later than PID 1 the agent sends SIGKILL itself,
	// and how long it waits before it does so again.
	ForceSlack time.Duration
	// HangupEvery is the time between two SIGHUPs to a dyno whose client is
	// gone, Hangups how many there are; then it is left alone (R16).
	HangupEvery time.Duration
	Hangups     int
}

// DefaultPolicy is what users of the platform expect.
var DefaultPolicy = Policy{
	GoodRun: 10 * time.Minute,
	Classic: []time.Duration{0, 10 * time.Minute},
	Progressive: []time.Duration{
		0, 20 * time.Minute, 40 * time.Minute, 60 * time.Minute, 180 * time.Minute, 320 * time.Minute,
	},
	ForceSlack: 15 * time.Second, HangupEvery: 5 * time.Second, Hangups: 3,
}

// wait is how long a dyno that crashed for the nth time in a row stays down.
// jitter is drawn from [0, 1).
func (p Policy) wait(b manifold.Backoff, n int, jitter float64) time.Duration {
	waits := p.Classic
	if b == manifold.BackoffProgressive {
		waits = p.Progressive
	}
	if len(waits) == 0 {
		return 0
	}
	wait := waits[min(max(n, 1), len(waits))-1]
	if b == manifold.BackoffProgressive {
		wait -= time.Duration(jitter * float64(wait) / 2)
	}
	return wait
}
