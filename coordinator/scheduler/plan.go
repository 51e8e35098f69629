package scheduler

import (
	"cmp"
	"slices"
	"time"

	"manifold"
	"manifold/coordinator/store"
)

// verb is what to do next with one placement. Each is one write to the store,
// and doing it twice is doing it once.
type verb string

const (
	place  verb = "place"  // a new placement for the slot, on host
	cycle  verb = "cycle"  // old: to be replaced
	revive verb = "revive" // does not answer: to be replaced; text says so
	retire verb = "retire" // out of the route table
	stop   verb = "stop"   // out of Desired
	remove verb = "remove" // its host does not run it any more
	say    verb = "say"    // nothing can be done; text says why
)

type action struct {
	verb verb
	slot slot
	host string // of the placement
	id   string // of the placement, when there is one
	text string // of say and revive
}

// slot is a place in an app's formation that one dyno fills.
type slot struct{ app, dyno string }

func (s slot) key() string { return s.app + "/" + s.dyno }

// plan says what to do next, from the whole state and nothing else.
//
//	a slot's placements             keeper up?   then
//	no keeper, a host is live                    place one; it is the keeper from now on
//	no keeper, no host                           say so; what is there stays
//	keeper's host is draining       no other     say so; it stays
//	keeper and others               yes          the others leave
//	keeper and others               no           the others that are not up leave; one that is up serves on,
//	                                             unless the app turned preboot off: then it leaves too
//	one, up, and old                             ask to replace it (cycle.go)
//	one, up, and does not answer                 the same (revive.go)
//	slot not wanted any more                     all leave
//
// The keeper is the newest placement that is what the formation and the
// current release want and that nobody asked to replace, here or on its host. A placement leaves
// in steps, each durable before the next, so that a coordinator killed in
// between goes on from the step it reached:
//
//	placed ──(web and up)──▶ retiring ──(routers done, or Drain over)──▶ stopping ──(host reports it no more)──▶ gone
//	   └──────(else)──────────────────────────────────────────────────────▲
func plan(st *state) []action {
	var actions []action
	load := st.load()
	bySlot := map[slot][]store.Placement{}
	for _, p := range st.stored.placements {
		if p.Assignment.Kind == manifold.KindFormation && p.Phase == store.Placed {
			bySlot[slotOf(p)] = append(bySlot[slotOf(p)], p)
		}
	}
	wanted := map[slot]bool{}
	var steady []store.Placement // alone in their slot, and what it wants
	for _, want := range st.wanted() {
		wanted[want.slot] = true
		keeper := st.keeper(bySlot[want.slot], want)
		if keeper == nil {
			actions = append(actions, st.fill(want, load))
			continue
		}
		if st.draining(keeper.Host) {
			actions = append(actions, action{verb: say, slot: want.slot, text: "Staying on a host that is being drained: no other host is online to take it"})
		} else if len(bySlot[want.slot]) == 1 {
			steady = append(steady, *keeper)
		}
		for _, p := range bySlot[want.slot] {
			if p.Assignment.ID != keeper.Assignment.ID && (st.up(*keeper) || !st.up(p) || !want.preboot) {
				actions = append(actions, st.leave(p))
			}
		}
	}
	for _, p := range st.stored.placements {
		if a, ok := st.onward(p, wanted); ok {
			actions = append(actions, a)
		}
	}
	return append(append(actions, st.cycles(steady)...), st.revivals(steady)...)
}

// onward is the next step of a placement that no slot's rule speaks of.
func (st *state) onward(p store.Placement, wanted map[slot]bool) (action, bool) {
	a := p.Assignment
	app := st.stored.apps[a.App]
	switch {
	case p.Phase == store.Retiring && st.drained(p):
		return step(stop, p), true
	case p.Phase == store.Stopping && st.gone(p):
		return step(remove, p), true
	case p.Phase != store.Placed, app != nil && app.frozen:
		return action{}, false
	case a.Kind == manifold.KindFormation && !wanted[slotOf(p)],
		app == nil,
		a.Job != nil && !st.jobs[a.ID], // whoever waited for it is gone
		a.Job == nil && a.Kind == manifold.KindOneOff && !st.stored.awaited[a.ID] && (st.dyno(p).State == manifold.StateComplete || st.lost(p.Host)):
		return st.leave(p), true
	}
	return action{}, false
}

func slotOf(p store.Placement) slot { return slot{p.Assignment.App, p.Assignment.Dyno} }

// keeper is the newest of a slot's placements that fits what is wanted. One on
// a host that is lost or draining does not, while another host could take its
// place.
func (st *state) keeper(placed []store.Placement, want want) *store.Placement {
	var best *store.Placement
	for i, p := range placed {
		a := p.Assignment
		fits := !p.Replace && !st.dyno(p).Replace && a.Release == want.release && a.Size.Name == want.size.Name && a.Command == want.command
		if !fits || (st.lost(p.Host) || st.draining(p.Host)) && st.anyTaker() {
			continue
		}
		if best == nil || newer(a, best.Assignment) {
			best = &placed[i]
		}
	}
	return best
}

func newer(a, b manifold.Assignment) bool {
	return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID)) > 0
}

// fill places a dyno on the live host with the fewest dynos of its kind, and
// of those on the one with the least memory given away.
func (st *state) fill(want want, load map[string]*load) action {
	if want.obstacle != "" {
		return action{verb: say, slot: want.slot, text: want.obstacle}
	}
	host := leastLoaded(load, want.kin())
	if host == "" {
		return action{verb: say, slot: want.slot, text: "Waiting for a host: " + st.noTaker()}
	}
	load[host].add(want.kin(), want.size.Memory)
	return action{verb: place, slot: want.slot, host: host}
}

// load is what a live host was given.
type load struct {
	memory int64
	kin    map[string]int // app and process type → dynos
}

func (l *load) add(kin string, memory int64) {
	l.memory += memory
	l.kin[kin]++
}

// load counts what each host that takes dynos was given and still runs.
func (st *state) load() map[string]*load {
	all := map[string]*load{}
	for _, h := range st.stored.hosts {
		if st.takes(h.ID) {
			all[h.ID] = &load{kin: map[string]int{}}
		}
	}
	for _, p := range st.stored.placements {
		if l := all[p.Host]; l != nil {
			l.add(kin(p.Assignment.App, p.Assignment.Dyno), p.Assignment.Size.Memory)
		}
	}
	return all
}

func leastLoaded(all map[string]*load, kin string) string {
	best := ""
	for id, l := range all {
		if best == "" || cmp.Or(
			cmp.Compare(l.kin[kin], all[best].kin[kin]),
			cmp.Compare(l.memory, all[best].memory),
			cmp.Compare(id, best)) < 0 {
			best = id
		}
	}
	return best
}

// leave is the first step out: through the routers when they may know it.
func (st *state) leave(p store.Placement) action {
	if p.Assignment.Web && st.up(p) {
		return step(retire, p)
	}
	return step(stop, p)
}

func step(v verb, p store.Placement) action {
	return action{verb: v, slot: slotOf(p), host: p.Host, id: p.Assignment.ID}
}

// withdrawal is since which route table, and when, a dyno is not routed to.
type withdrawal struct {
	revision int64
	at       time.Time
}

// drained says whether a retiring dyno may get its SIGTERM: every live router
// serves a table without it and has no request open on it, or it had Drain's
// time, or it is not up any more. Routers get StartGrace to come back after a
// start of ours before their absence counts.
func (st *state) drained(p store.Placement) bool {
	w, ok := st.withdrawn[p.Assignment.ID]
	switch {
	case !ok:
		return false // the next pass publishes the table first
	case st.now.Sub(w.at) >= st.settings.Drain, !st.up(p):
		return true
	case st.now.Sub(st.started) < st.settings.StartGrace:
		return false
	}
	run := st.dyno(p).Run
	return !slices.ContainsFunc(st.routers, func(r fleetRouter) bool {
		return r.Live && (r.Acked < w.revision || r.Draining[run] > 0)
	})
}

// gone says whether a stopping placement's host has taken note and does not
// run it any more, or is not coming back.
func (st *state) gone(p store.Placement) bool {
	h := st.hosts[p.Host]
	if st.lost(p.Host) {
		return true // if the host does come back, Desired will not name it
	}
	told := st.dropped[p.Assignment.ID]
	_, reported := st.observed[placed{p.Host, p.Assignment.ID}]
	return told != 0 && !h.Seen.IsZero() && h.Observation.Revision >= told && !reported
}

// lost says whether a host has been silent for HostLost.
func (st *state) lost(host string) bool {
	h := st.hosts[host]
	seen := h.Seen
	if seen.Before(st.started) {
		seen = st.started // before that we could not have heard it
	}
	return !h.Live && st.now.Sub(seen) >= st.settings.HostLost
}

// draining says whether a host asked to be emptied.
func (st *state) draining(host string) bool { return st.hosts[host].Observation.Draining }

// takes says whether new dynos may be placed on a host.
func (st *state) takes(host string) bool { return st.hosts[host].Live && !st.draining(host) }

func (st *state) anyTaker() bool {
	return slices.ContainsFunc(st.stored.hosts, func(h manifold.Host) bool { return st.takes(h.ID) })
}

// noTaker says why there is none.
func (st *state) noTaker() string {
	if slices.ContainsFunc(st.stored.hosts, func(h manifold.Host) bool { return st.hosts[h.ID].Live }) {
		return "every host that is online is being drained: manifold host undrain on one of them"
	}
	return ErrNoHost.Error()
}

// settled says whether only news can bring something to do: no bound runs.
func (st *state) settled() bool {
	return !slices.ContainsFunc(st.stored.placements, func(p store.Placement) bool { return p.Phase != store.Placed })
}
