package scheduler

import (
	"fmt"

	"manifold/coordinator/store"
)

// revivals chooses the web dynos to replace because routers say that they do
// not answer. What they do not answer may not be their fault: the database all
// of them wait for is down. So the old one serves on until a new one is up,
// of one app a quarter of its dynos may be on their way at a time, or one, and
// one that is not old enough was just tried: nothing is gained by the next.
func (st *state) revivals(steady []store.Placement) (actions []action) {
	failing := st.failing()
	if len(failing) == 0 {
		return nil
	}
	underWay := map[string]int{} // by app
	for _, p := range st.stored.placements {
		if p.Replace {
			underWay[p.Assignment.App]++
		}
	}
	for _, p := range steady {
		a := p.Assignment
		n := failing[st.dyno(p).Run]
		if !a.Web || n < st.settings.Failures || !st.up(p) || st.now.Sub(a.CreatedAt) < st.settings.FailureRest ||
			underWay[a.App] >= max(1, st.stored.apps[a.App].dynos()/4) {
			continue
		}
		underWay[a.App]++
		revived := step(revive, p)
		revived.text = fmt.Sprintf("Replacing a dyno that did not answer its last %d requests", n)
		actions = append(actions, revived)
	}
	return actions
}

// failing is how many requests in a row a run did not answer, as the live
// router says that saw the fewest: a dyno that one of them reaches is alive.
// A router that says nothing of it may not have asked.
func (st *state) failing() map[string]int {
	all := map[string]int{}
	for _, r := range st.routers {
		if !r.Live {
			continue
		}
		for run, n := range r.Failing {
			if had, ok := all[run]; !ok || n < had {
				all[run] = n
			}
		}
	}
	return all
}
