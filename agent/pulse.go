package agent

import (
	"fmt"
	"sync"
	"time"
)

// stuckAfter is how long one turn of a loop may take. The longest that is
// right is a post to the coordinator that times out and the pause after it,
// 40 s; the rest is for disks and hosts under load, since what follows costs
// the agent its life, though no dyno's.
const stuckAfter = 2 * time.Minute

// pulse knows when each of the agent's loops last began a turn: log shipping,
// observation, reconciliation and every dyno's driver. A loop that hangs, on a
// lock or on a disk, shows by its silence, and the watchdog is not fed. The
// stream of what is desired is not among them: it may rightly be silent for
// hours, and the line's pings end a dead one.
type pulse struct {
	mu   sync.Mutex
	last map[string]time.Time // by loop
}

func newPulse() *pulse { return &pulse{last: map[string]time.Time{}} }

// beat says that the loop begins a turn, end that there will be none any more.
func (p *pulse) beat(loop string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last[loop] = time.Now()
}

func (p *pulse) end(loop string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.last, loop)
}

// check is an error that names a loop that hangs, if there is one.
func (p *pulse) check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for loop, at := range p.last {
		if since := time.Since(at); since > stuckAfter {
			return fmt.Errorf("the agent's loop of %s makes no progress: its last turn began %v ago", loop, since.Round(time.Second))
		}
	}
	return nil
}
