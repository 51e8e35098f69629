package scheduler

import (
	"fmt"
	"testing"

	"manifold"
	"manifold/coordinator/store"
)

// crowd is n apps with a web dyno each, all up.
func crowd(n int) *state {
	st := world()
	for i := range n {
		id := fmt.Sprintf("app-%d", i)
		st.stored.apps[id] = &app{
			App: manifold.App{ID: id, Name: id}, release: manifold.Release{Version: 3, Slug: "slug"},
			slug:      manifold.Slug{ProcessTypes: map[string]string{web: "serve"}},
			formation: []manifold.Formation{{Type: web, Quantity: 1, Size: manifold.DefaultSize}},
		}
		size, _ := manifold.ParseSize(manifold.DefaultSize)
		p := store.Placement{Host: "h1", Assignment: manifold.Assignment{
			ID: id, App: id, Dyno: "web.1", Kind: manifold.KindFormation, Release: 3, Command: "serve", Size: size, Web: true,
		}}
		st.stored.placements = append(st.stored.placements, p)
		st.observed[placed{"h1", id}] = manifold.Dyno{Assignment: id, Run: id, State: manifold.StateUp, Addr: "10.0.0.1:80"}
	}
	return st
}

// A pass over news from the hosts: no store is read.
func BenchmarkPlanAndRoutes1000Apps(b *testing.B) {
	st := crowd(1000)
	for b.Loop() {
		if len(plan(st)) != 0 || len(st.routes()) != 1001 {
			b.Fatal("the crowd is not steady")
		}
	}
}
