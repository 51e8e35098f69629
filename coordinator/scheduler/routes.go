package scheduler

import (
	"cmp"
	"slices"
	"strings"

	"manifold"
	"manifold/coordinator/store"
)

// routes is what routers need: of every app, the web dynos that are up and not
// on their way out. The order is fixed, so that equal states give equal tables.
func (st *state) routes() []manifold.Route {
	// Routers refuse a table with a name twice, or one not in lower case. A domain
	// may have become an app's own name when the platform's domain was changed.
	own := func(a *app) string { return strings.ToLower(a.Name + "." + st.settings.Domain) }
	given := map[string]bool{}
	for _, a := range st.stored.apps {
		given[own(a)] = true
	}
	byApp := map[string]*manifold.Route{}
	for _, a := range st.stored.apps {
		r := &manifold.Route{
			App: a.ID, Name: a.Name, Hosts: []string{own(a)},
			Maintenance: a.Maintenance, Blank: a.release.Slug == "" && !a.frozen, Backends: []manifold.Backend{},
		}
		for _, d := range a.Domains {
			if !given[d.Hostname] {
				r.Hosts = append(r.Hosts, d.Hostname)
			}
		}
		for _, f := range a.formation {
			if f.Type == web {
				r.WebQuantity = f.Quantity
			}
		}
		byApp[a.ID] = r
	}
	filled := map[slot]bool{}
	for _, p := range st.stored.placements {
		r := byApp[p.Assignment.App]
		if r == nil || !p.Assignment.Web || p.Phase != store.Placed {
			continue
		}
		filled[slotOf(p)] = true
		if st.stored.apps[r.App].frozen { // what it wants is not known, what there is serves on
			r.WebQuantity++
		}
		switch d := st.dyno(p); {
		case d.State == manifold.StateUp && d.Addr != "":
			r.Backends = append(r.Backends, manifold.Backend{Run: d.Run, Dyno: p.Assignment.Dyno, Addr: d.Addr})
		case d.State == manifold.StateStarting, d.State == manifold.StateStopping: // by its host, which starts it again
			r.Starting++
		}
	}
	if st.anyTaker() {
		for _, want := range st.wanted() { // what is about to be placed has not crashed (H10)
			if typ, _, _ := strings.Cut(want.slot.dyno, "."); typ == web && want.obstacle == "" && !filled[want.slot] {
				byApp[want.slot.app].Starting++
			}
		}
	}
	routes := make([]manifold.Route, 0, len(byApp))
	for _, r := range byApp {
		slices.SortFunc(r.Backends, func(a, b manifold.Backend) int {
			return cmp.Or(cmp.Compare(a.Dyno, b.Dyno), cmp.Compare(a.Run, b.Run))
		})
		routes = append(routes, *r)
	}
	slices.SortFunc(routes, func(a, b manifold.Route) int { return cmp.Compare(a.App, b.App) })
	return routes
}
