// Package bubble runs a test in simulated time. It must hold nothing else.
package bubble

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Test is synctest.Test on one processor. Go 1.26's race detector keeps one
// state for all the timers of a bubble, and crashes where two threads come to
// it at once ((*timer).unlockAndRun of its runtime): a test whose goroutines
// select on timers of their own died of that about once in ten runs. Tests
// that call t.Parallel must not use it: the setting is the process's.
func Test(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, f)
}
