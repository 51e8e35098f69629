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
	// HealthEvery is the time between two checks of a dyno whose app wants
	// them, HealthTimeout how long it has to answer, and HealthFailures how
	// many must fail in a row.
	HealthEvery, HealthTimeout time.Duration
	HealthFailures             int
}

// DefaultPolicy is what users of the platform expect.
var DefaultPolicy = Policy{
	GoodRun: 10 * time.Minute,
	Classic: []time.Duration{0, 10 * time.Minute},
	Progressive: []time.Duration{
		0, 20 * time.Minute, 40 * time.Minute, 60 * time.Minute, 180 * time.Minute, 320 * time.Minute,
	},
	ForceSlack: 15 * time.Second, HangupEvery: 5 * time.Second, Hangups: 3,
	HealthEvery: 10 * time.Second, HealthTimeout: 5 * time.Second, HealthFailures: 3,
}

// Restarts says whether it is time to restart a dyno for the checks it failed.
// What fails may not be its own fault, but a database's: the waits of crashes
// apply. But where a crashed dyno spends them down, this one spends them up:
// it may answer other requests.
func (p Policy) Restarts(d Dyno, e Event) bool {
	if d.Plan.Health == "" {
		return false
	}
	n := d.Crashes + 1
	if p.healthyLong(d, e) {
		n = 1
	}
	up := e.At.Sub(d.UpAt)
	return up >= p.wait(d.Plan.Backoff, n, 0) || up < 0 // the clock was set back
}

// healthyLong is true of a run that was good before it failed its checks.
func (p Policy) healthyLong(d Dyno, e Event) bool { return e.Failing.Sub(d.UpAt) >= p.GoodRun }

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
