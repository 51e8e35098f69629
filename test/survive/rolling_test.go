package survive

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"manifold/test/platform"
)

// TestRolling replaces dynos in every way there is, under requests and log
// lines: restarts, scaling up and down, and age. All the while they are
// cycled after seconds instead of a day, so the three happen at once, too.
func TestRolling(t *testing.T) {
	n := sizeOf(t)
	p := start(t, patient, "MANIFOLD_CYCLE=6s", "MANIFOLD_CYCLE_JITTER=3s")
	app := p.CreateApp(t)
	lines := newLedger(t)
	lines.follow(p, app)
	p.Call(t, "PATCH", "/apps/"+app+"/config-vars", map[string]string{"LINES": "200"}, nil)
	p.Push(t, repository(t), app)
	const few, many = 2, 4
	scale(t, p, app, few)
	serving(t, p, app, few)
	p.Answers(t, app, "/", "")
	requests := startLoad(t, p, []string{app}, n.requests)
	began := time.Now()
	for range n.restarts {
		before := serving(t, p, app, few)
		p.Call(t, "DELETE", "/apps/"+app+"/dynos", nil, nil)
		replaced(t, p, app, before, few)
	}
	for range n.scalings {
		scale(t, p, app, many)
		serving(t, p, app, many)
		scale(t, p, app, few)
		serving(t, p, app, few)
	}
	scale(t, p, app, many)
	platform.Eventually(t, 2*time.Minute+time.Duration(n.cycles)*15*time.Second, func() error {
		lines.mu.Lock()
		defer lines.mu.Unlock()
		if lines.cycled < n.cycles {
			return fmt.Errorf("%d dynos were cycled, not %d", lines.cycled, n.cycles)
		}
		return nil
	})
	took, machine := time.Since(began), busy()
	visited := requests.report()
	scale(t, p, app, 0)
	settled(t, p, app, 0)
	counted := lines.close()
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	left := p.Leftovers()
	fmt.Printf(`
dynos replaced     by %d rolling restarts, %d times up and down, %d cycles, in %.0f s, %s
requests           %s
log lines          %s
leaks              %d
`, n.restarts, n.scalings, lines.cycled, took.Seconds(), machine, visited, counted, len(left))
}

// serving waits until an app has dynos of exactly n names, and of each one that is
// up, and returns their runs. One that is being cycled has two: on a busy machine
// there is hardly a moment without.
func serving(t *testing.T, p *platform.Instance, app string, n int) (runs map[string]bool) {
	t.Helper()
	platform.Eventually(t, 90*time.Second, func() error {
		dynos, err := ps(p)
		if err != nil {
			return err
		}
		runs = map[string]bool{}
		up := map[string]bool{} // by name
		for _, d := range dynos {
			if d.App == app {
				runs[d.Run] = true
				up[d.Name] = up[d.Name] || d.State == "up"
			}
		}
		if len(up) != n || slices.Contains(slices.Collect(maps.Values(up)), false) {
			return fmt.Errorf("dynos are up: %v; %d should be", up, n)
		}
		return nil
	})
	return runs
}

// replaced waits until no run of before is there any more, and n others are up.
func replaced(t *testing.T, p *platform.Instance, app string, before map[string]bool, n int) {
	t.Helper()
	platform.Eventually(t, 90*time.Second, func() error {
		dynos, err := ps(p)
		if err != nil {
			return err
		}
		up := 0
		for _, d := range dynos {
			if d.App != app {
				continue
			}
			if before[d.Run] {
				return fmt.Errorf("%s is still run %s", d.Name, d.Run)
			}
			if d.State == "up" {
				up++
			}
		}
		if up < n {
			return fmt.Errorf("%d of %d dynos are up", up, n)
		}
		return nil
	})
}
