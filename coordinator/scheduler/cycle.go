package scheduler

import (
	"hash/fnv"
	"slices"
	"time"

	"manifold"
	"manifold/coordinator/store"
)

// cycleAt is when a dyno is old enough to be replaced. Its random part is
// drawn from its id, so that an app's dynos do not all go at once, and whoever
// asks again gets the same. It is zero where the app does not want cycling.
func (st *state) cycleAt(a manifold.Assignment) time.Time {
	app := st.stored.apps[a.App]
	if a.Kind != manifold.KindFormation || app == nil || app.frozen || !app.Feature(manifold.FeatureDailyCycling) {
		return time.Time{}
	}
	if !a.CycleAt.IsZero() {
		return a.CycleAt
	}
	h := fnv.New64a()
	h.Write([]byte(a.ID))
	at := a.CreatedAt.Add(st.settings.Cycle)
	if jitter := st.settings.CycleJitter; jitter > 0 {
		at = at.Add(time.Duration(h.Sum64() % uint64(jitter)))
	}
	return at
}

// cycles chooses the dynos to replace for their age, the oldest first. A dyno
// counts as cycling from here until its host has stopped it. There is never a
// storm, not even after a day without a coordinator: of one app a quarter of
// its dynos may be cycling at a time, or one, and CycleAtOnce in all. An app
// whose replacements crash holds up only itself.
//
// steady are the placements that are alone in their slot. Only one that is up
// is cycled: a crash makes a new run anyway.
func (st *state) cycles(steady []store.Placement) []action {
	var due []store.Placement
	for _, p := range steady {
		if at := st.cycleAt(p.Assignment); !at.IsZero() && !st.now.Before(at) && st.up(p) {
			due = append(due, p)
		}
	}
	if len(due) == 0 || !st.anyTaker() {
		return nil
	}
	perApp, inAll := map[string]int{}, 0
	crashing := st.crashing()
	for _, p := range st.stored.placements {
		if p.Cycled {
			perApp[p.Assignment.App]++
			if !crashing[slotOf(p)] {
				inAll++
			}
		}
	}
	slices.SortFunc(due, func(p, q store.Placement) int { return st.cycleAt(p.Assignment).Compare(st.cycleAt(q.Assignment)) })
	var actions []action
	for _, p := range due {
		app := p.Assignment.App
		if inAll >= st.settings.CycleAtOnce {
			break
		}
		if perApp[app] >= max(1, st.stored.apps[app].dynos()/4) {
			continue
		}
		perApp[app]++
		inAll++
		actions = append(actions, step(cycle, p))
	}
	return actions
}

// crashing names the slots that hold a crashed dyno.
func (st *state) crashing() map[slot]bool {
	all := map[slot]bool{}
	for _, p := range st.stored.placements {
		if p.Phase == store.Placed && st.dyno(p).State == manifold.StateCrashed {
			all[slotOf(p)] = true
		}
	}
	return all
}

// dynos is how many the app's formation asks for.
func (a *app) dynos() (n int) {
	for _, f := range a.formation {
		n += f.Quantity
	}
	return n
}
