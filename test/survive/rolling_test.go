package survive

import (
	"fmt"
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
	settled(t, p, app, few)
	p.Answers(t, app, "/", "")
	requests := startLoad(t, p, []string{app}, n.requests)
	began := time.Now()
	for range n.restarts {
		before := settled(t, p, app, few)
		p.Call(t, "DELETE", "/apps/"+app+"/dynos", nil, nil)
		replaced(t, p, app, before)
	}
	for range n.scalings {
		scale(t, p, app, many)
		settled(t, p, app, many)
		scale(t, p, app, few)
		settled(t, p, app, few)
	}
	scale(t, p, app, many)
	platform.Eventually(t, time.Minute+time.Duration(n.cycles)*15*time.Second, func() error {
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

// replaced waits until no run of before is there any more, and as many others
// are up.
func replaced(t *testing.T, p *platform.Instance, app string, before map[string]string) {
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
			if before[d.Name] == d.Run {
				return fmt.Errorf("%s is still run %s", d.Name, d.Run)
			}
			if d.State == "up" {
				up++
			}
		}
		if up < len(before) {
			return fmt.Errorf("%d of %d dynos are up", up, len(before))
		}
		return nil
	})
}
