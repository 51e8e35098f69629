package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/fleet"
	"manifold/coordinator/store"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// world is a state to plan from: app "app" at release 3 with a slug, host
// "h1" live, long after the coordinator's start.
func world(change ...func(*state)) *state {
	slug := manifold.Slug{ID: "slug", ProcessTypes: map[string]string{"web": "serve", "worker": "work"}}
	st := &state{
		now: epoch.Add(time.Hour), started: epoch, settings: DefaultSettings(),
		stored: &stored{
			hosts: []manifold.Host{{ID: "h1"}},
			apps: map[string]*app{"app": {
				App:     manifold.App{ID: "app", Name: "quiet-river-1"},
				release: manifold.Release{Version: 3, Slug: "slug"}, slug: slug,
			}},
		},
		hosts:    map[string]fleet.Host{},
		observed: map[placed]manifold.Dyno{}, withdrawn: map[string]withdrawal{}, dropped: map[string]int64{}, jobs: map[string]bool{},
	}
	live("h1")(st)
	for _, c := range change {
		c(st)
	}
	return st
}

func live(host string) func(*state) {
	return func(st *state) {
		st.hosts[host] = fleet.Host{ID: host, Live: true, Seen: st.now, Observation: manifold.Observation{Revision: 100}}
		if !slices.Contains(st.stored.hosts, manifold.Host{ID: host}) {
			st.stored.hosts = append(st.stored.hosts, manifold.Host{ID: host})
		}
	}
}

func silent(host string, since time.Duration) func(*state) {
	return func(st *state) { st.hosts[host] = fleet.Host{ID: host, Seen: st.now.Add(-since)} }
}

func formation(typ string, quantity int) func(*state) {
	return func(st *state) {
		a := st.stored.apps["app"]
		a.formation = append(a.formation, manifold.Formation{Type: typ, Quantity: quantity, Size: "Standard-1X"})
	}
}

func release(version int, slug string) func(*state) {
	return func(st *state) { st.stored.apps["app"].release = manifold.Release{Version: version, Slug: slug} }
}

// dyno adds a placement on h1 that fits release version, and what h1 says of
// it ("" is nothing yet). Later ones are newer.
func dyno(id, name string, version int, seen manifold.State, change ...func(*store.Placement)) func(*state) {
	return func(st *state) {
		size, _ := manifold.ParseSize("Standard-1X")
		typ, _, _ := strings.Cut(name, ".")
		p := store.Placement{Host: "h1", Assignment: manifold.Assignment{
			ID: id, App: "app", Dyno: name, Kind: manifold.KindFormation, Release: version, Size: size, Web: typ == web,
			Command: st.stored.apps["app"].slug.ProcessTypes[typ], CreatedAt: epoch.Add(time.Duration(len(st.stored.placements)) * time.Second),
		}}
		for _, c := range change {
			c(&p)
		}
		st.stored.placements = append(st.stored.placements, p)
		if seen != "" {
			st.observed[placed{p.Host, id}] = manifold.Dyno{Assignment: id, Run: "run-" + id, State: seen, Addr: "10.0.0.1:80"}
		}
	}
}

func draining(host string) func(*state) {
	return func(st *state) {
		h := st.hosts[host]
		h.Observation.Draining = true
		st.hosts[host] = h
	}
}

// asked is a host's wish for another dyno in an assignment's place.
func asked(host, id string) func(*state) {
	return func(st *state) {
		d := st.observed[placed{host, id}]
		d.Replace = true
		st.observed[placed{host, id}] = d
	}
}

func on(host string) func(*store.Placement) { return func(p *store.Placement) { p.Host = host } }

func phase(p store.Phase) func(*store.Placement) { return func(q *store.Placement) { q.Phase = p } }
func replace(p *store.Placement)                 { p.Replace = true }
func job(p *store.Placement) {
	p.Assignment.Kind, p.Assignment.Job = manifold.KindOneOff, &manifold.Job{}
}
func oneOff(p *store.Placement) { p.Assignment.Kind = manifold.KindOneOff }

func withdrawnFor(id string, revision int64, since time.Duration) func(*state) {
	return func(st *state) { st.withdrawn[id] = withdrawal{revision, st.now.Add(-since)} }
}

func dropped(id string, revision int64) func(*state) {
	return func(st *state) { st.dropped[id] = revision }
}

func routerSays(acked int64, draining map[string]int) func(*state) {
	return func(st *state) {
		st.routers = append(st.routers, fleetRouter{ID: "r", Live: true, Acked: acked, Draining: draining})
	}
}

func deadRouter(st *state)  { st.routers = append(st.routers, fleetRouter{ID: "dead", Acked: 1}) }
func justStarted(st *state) { st.started = st.now.Add(-time.Second) }

const up, starting, crashed = manifold.StateUp, manifold.StateStarting, manifold.StateCrashed

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name string
		st   *state
		want string
	}{
		{"nothing wanted", world(), ""},
		{"no code yet", world(release(2, ""), formation("web", 1)), ""},
		{"first deploy", world(formation("web", 1)), "place app/web.1@h1"},
		{"steady", world(formation("web", 1), dyno("a", "web.1", 3, up)), ""},
		{"placed, not reported yet", world(formation("web", 1), dyno("a", "web.1", 3, "")), ""},
		{"crashed: its agent brings it back", world(formation("web", 1), dyno("a", "web.1", 3, crashed)), ""},

		{"scale up", world(formation("web", 3), dyno("a", "web.1", 3, up)), "place app/web.2@h1, place app/web.3@h1"},
		{"scale down takes the highest", world(formation("web", 1), dyno("a", "web.1", 3, up), dyno("b", "web.2", 3, up)), "retire b"},
		{"scale down of a worker", world(formation("worker", 0), dyno("a", "worker.1", 3, up)), "stop a"},
		{"type gone from the formation", world(formation("web", 1), dyno("a", "web.1", 3, up), dyno("b", "clock.1", 3, up)), "stop b"},
		{"size changed", world(func(st *state) {
			st.stored.apps["app"].formation = []manifold.Formation{{Type: "web", Quantity: 1, Size: "Standard-2X"}}
		}, dyno("a", "web.1", 3, up)), "place app/web.1@h1"},

		{"deploy: new one first", world(formation("web", 1), dyno("a", "web.1", 2, up)), "place app/web.1@h1"},
		{"deploy: new one starting", world(formation("web", 1), dyno("a", "web.1", 2, up), dyno("b", "web.1", 3, starting)), ""},
		{"deploy: new one up", world(formation("web", 1), dyno("a", "web.1", 2, up), dyno("b", "web.1", 3, up)), "retire a"},
		{"deploy: new one crashes, old one serves on", world(formation("web", 1), dyno("a", "web.1", 2, up), dyno("b", "web.1", 3, crashed)), ""},
		{"deploy: worker likewise", world(formation("worker", 1), dyno("a", "worker.1", 2, up), dyno("b", "worker.1", 3, starting)), ""},
		{"deploy: worker up", world(formation("worker", 1), dyno("a", "worker.1", 2, up), dyno("b", "worker.1", 3, up)), "stop a"},
		{"deploy over a crashed one", world(formation("web", 1), dyno("a", "web.1", 2, crashed), dyno("b", "web.1", 3, starting)), "stop a"},
		{"deploy over a starting one", world(formation("web", 1), dyno("a", "web.1", 2, starting), dyno("b", "web.1", 3, starting)), "stop a"},
		{"deploy over a deploy: the one that serves stays", world(formation("web", 1),
			dyno("a", "web.1", 1, up), dyno("b", "web.1", 2, starting), dyno("c", "web.1", 3, starting)), "stop b"},

		{"restart", world(formation("web", 1), dyno("a", "web.1", 3, up, replace)), "place app/web.1@h1"},
		{"restart: replacement up", world(formation("web", 1), dyno("a", "web.1", 3, up, replace), dyno("b", "web.1", 3, up)), "retire a"},
		{"restart cuts a crashed one's wait short", world(formation("web", 1), dyno("a", "web.1", 3, crashed, replace), dyno("b", "web.1", 3, "")), "stop a"},
		{"two alike: the newer stays", world(formation("web", 1), dyno("a", "web.1", 3, up), dyno("b", "web.1", 3, up)), "retire a"},

		{"app deleted", world(dyno("a", "web.1", 3, up), dyno("b", "worker.1", 3, up), dyno("c", "build.1", 0, up, job),
			func(st *state) { delete(st.stored.apps, "app"); st.jobs["c"] = true }), "retire a, stop b, stop c"},
		{"damaged records change nothing", world(dyno("a", "web.1", 3, up), func(st *state) {
			st.stored.apps["app"] = &app{frozen: true}
		}), ""},

		{"no host", world(formation("web", 1), silent("h1", time.Minute)), "say app/web.1"},
		{"no host for a new release: the old stays", world(formation("web", 1), dyno("a", "web.1", 2, up), silent("h1", time.Minute)), "say app/web.1"},
		{"no stack", world(formation("web", 1), func(st *state) { st.stored.apps["app"].obstacle = "Waiting" }), "say app/web.1"},
		{"a silent host is not a dead one", world(formation("web", 1), dyno("a", "web.1", 3, up), live("h2"), silent("h1", time.Minute)), ""},
		{"a lost host's dynos go elsewhere", world(formation("web", 1), dyno("a", "web.1", 3, up), live("h2"), silent("h1", time.Hour)), "place app/web.1@h2"},
		{"all hosts lost: wait", world(formation("web", 1), dyno("a", "web.1", 3, up), silent("h1", time.Hour)), ""},
		{"spread", world(formation("web", 4), dyno("a", "web.1", 3, up), live("h2"), live("h3")),
			"place app/web.2@h2, place app/web.3@h3, place app/web.4@h1"},

		{"drain: a replacement elsewhere first", world(formation("web", 1), dyno("a", "web.1", 3, up), live("h2"), draining("h1")), "place app/web.1@h2"},
		{"drain: the replacement is up", world(formation("web", 1), dyno("a", "web.1", 3, up), live("h2"),
			dyno("b", "web.1", 3, up, on("h2")), draining("h1")), "retire a"},
		{"drain of a single host: it stays, and says so", world(formation("web", 1), dyno("a", "web.1", 3, up), draining("h1")), "say app/web.1"},
		{"drain: the other host is silent", world(formation("web", 1), dyno("a", "web.1", 3, up), live("h2"), silent("h2", time.Minute), draining("h1")), "say app/web.1"},
		{"drain of all hosts: nothing goes round", world(formation("web", 1), dyno("a", "web.1", 3, up), live("h2"), draining("h1"), draining("h2")), "say app/web.1"},
		{"no new dyno on a draining host", world(formation("web", 2), dyno("a", "web.1", 3, up, on("h2")), live("h2"), draining("h1")), "place app/web.2@h2"},
		{"one-offs on a draining host run to their end", world(dyno("a", "run.1", 3, up, oneOff), live("h2"), draining("h1")), ""},
		{"its host asks for another", world(formation("web", 1), dyno("a", "web.1", 3, up), asked("h1", "a")), "place app/web.1@h1"},
		{"its host asked, the other is up", world(formation("web", 1), dyno("a", "web.1", 3, up), asked("h1", "a"), dyno("b", "web.1", 3, up)), "retire a"},

		{"orphan job", world(dyno("a", "build.1", 0, up, job)), "stop a"},
		{"job someone waits for", world(dyno("a", "build.1", 0, up, job), func(st *state) { st.jobs["a"] = true }), ""},
		{"one-off runs", world(dyno("a", "run.1", 3, up, oneOff)), ""},
		{"one-off ended", world(dyno("a", "run.1", 3, manifold.StateComplete, oneOff)), "stop a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := describe(plan(c.st)); got != c.want {
				t.Errorf("plan is %q, want %q", got, c.want)
			}
		})
	}
}

func TestPlanTheWayOut(t *testing.T) {
	retiring := dyno("a", "web.1", 2, up, phase(store.Retiring))
	stopping := func(seen manifold.State) func(*state) { return dyno("a", "web.1", 2, seen, phase(store.Stopping)) }
	open := map[string]int{"run-a": 1}
	for _, c := range []struct {
		name string
		st   *state
		want string
	}{
		{"table not told yet", world(retiring), ""},
		{"router has not taken note", world(retiring, withdrawnFor("a", 50, time.Second), routerSays(49, nil)), ""},
		{"router has open requests", world(retiring, withdrawnFor("a", 50, time.Second), routerSays(50, open)), ""},
		{"another dyno drains", world(retiring, withdrawnFor("a", 50, time.Second), routerSays(50, map[string]int{"run-b": 1})), "stop a"},
		{"router is done", world(retiring, withdrawnFor("a", 50, time.Second), routerSays(51, nil)), "stop a"},
		{"one of two routers is done", world(retiring, withdrawnFor("a", 50, time.Second), routerSays(50, nil), routerSays(50, open)), ""},
		{"dead routers do not block", world(retiring, withdrawnFor("a", 50, time.Second), deadRouter, routerSays(50, nil)), "stop a"},
		{"no router at all", world(retiring, withdrawnFor("a", 50, time.Second)), "stop a"},
		{"no router back yet after our start", world(retiring, withdrawnFor("a", 50, time.Second), justStarted), ""},
		{"draining is bounded", world(retiring, withdrawnFor("a", 50, 30*time.Second), routerSays(50, open)), "stop a"},
		{"crashed while draining", world(dyno("a", "web.1", 2, crashed, phase(store.Retiring)), withdrawnFor("a", 50, time.Second), routerSays(50, open)), "stop a"},

		{"host not told yet", world(stopping("")), ""},
		{"host has not taken note", world(stopping(""), dropped("a", 101)), ""},
		{"still running", world(stopping(up), dropped("a", 100)), ""},
		{"still stopping", world(stopping(manifold.StateStopping), dropped("a", 100)), ""},
		{"gone", world(stopping(""), dropped("a", 100)), "remove a"},
		{"only a memory of before our start", world(stopping(""), dropped("a", 100), func(st *state) {
			st.hosts["h1"] = fleet.Host{ID: "h1", Live: true, Observation: manifold.Observation{Revision: 100}}
		}), ""},
		{"host silent for a while", world(stopping(up), dropped("a", 100), silent("h1", time.Minute)), ""},
		{"host lost", world(stopping(up), dropped("a", 100), silent("h1", time.Hour)), "remove a"},
		{"host lost before our start counts from our start", world(stopping(up), dropped("a", 100), silent("h1", time.Hour), justStarted), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := describe(plan(c.st)); got != c.want {
				t.Errorf("plan is %q, want %q", got, c.want)
			}
		})
	}
}

func describe(actions []action) string {
	var all []string
	for _, a := range actions {
		switch a.verb {
		case place:
			all = append(all, fmt.Sprintf("place %s@%s", a.slot.key(), a.host))
		case say:
			all = append(all, "say "+a.slot.key())
		default:
			all = append(all, fmt.Sprintf("%s %s", a.verb, a.id))
		}
	}
	return strings.Join(all, ", ")
}

func TestRoutes(t *testing.T) {
	st := world(formation("web", 3), formation("worker", 1),
		dyno("a", "web.1", 3, up), dyno("b", "web.2", 3, starting), dyno("c", "web.3", 3, ""), dyno("d", "web.1", 2, up, phase(store.Retiring)),
		dyno("e", "worker.1", 3, up), dyno("f", "web.2", 2, crashed), dyno("g", "web.3", 2, up, phase(store.Stopping)))
	st.stored.apps["app"].Maintenance = true
	st.stored.apps["blank"] = &app{App: manifold.App{ID: "blank", Name: "blank"}}
	got := fmt.Sprintf("%+v", st.routes())
	want := fmt.Sprintf("%+v", []manifold.Route{
		{App: "app", Name: "quiet-river-1", Hosts: []string{"quiet-river-1.localhost"}, Maintenance: true, WebQuantity: 3,
			Backends: []manifold.Backend{{Run: "run-a", Dyno: "web.1", Addr: "10.0.0.1:80"}}, Starting: 2},
		{App: "blank", Name: "blank", Hosts: []string{"blank.localhost"}, Blank: true, Backends: []manifold.Backend{}},
	})
	if got != want {
		t.Errorf("routes are\n%s, want\n%s", got, want)
	}
}

// A dyno that is wanted and not placed yet is on its way: requests wait for it,
// unless it cannot be placed.
func TestRoutesBeforeThePlacement(t *testing.T) {
	two := formation("web", 2)
	for _, c := range []struct {
		name string
		st   *state
		want int
	}{
		{"none is placed", world(two, formation("worker", 1)), 2},
		{"one has crashed", world(two, dyno("a", "web.1", 3, crashed)), 1},
		{"one is up, one starts", world(two, dyno("a", "web.1", 3, up), dyno("b", "web.2", 3, "")), 1},
		{"one is leaving", world(formation("web", 1), dyno("a", "web.1", 2, up, phase(store.Retiring))), 1},
		{"no host", world(two, silent("h1", time.Minute)), 0},
		{"no stack", world(two, func(st *state) { st.stored.apps["app"].obstacle = "Waiting for stack" }), 0},
	} {
		if got := c.st.routes()[0].Starting; got != c.want {
			t.Errorf("%s: %d are starting, want %d", c.name, got, c.want)
		}
	}
}

// An app whose records are damaged keeps its dynos, and they their requests.
func TestRoutesOfAFrozenApp(t *testing.T) {
	st := world(dyno("a", "web.1", 3, up), dyno("b", "web.2", 3, starting), dyno("c", "worker.1", 3, up))
	st.stored.apps["app"] = &app{App: st.stored.apps["app"].App, frozen: true}
	if got := describe(plan(st)); got != "" {
		t.Errorf("plan is %q", got)
	}
	if r := st.routes()[0]; r.Blank || r.WebQuantity != 2 || len(r.Backends) != 1 || r.Starting != 1 {
		t.Errorf("its route is %+v", r)
	}
}

// An operator who gives the platform another domain, however that is written,
// leaves no name twice: what an app has by its own name is not also a domain.
func TestRoutesOfAnotherDomain(t *testing.T) {
	st := world()
	st.settings.Domain = "Apps.Example.com"
	st.stored.apps["shop"] = &app{App: manifold.App{ID: "shop", Name: "shop"}}
	st.stored.apps["site"] = &app{App: manifold.App{ID: "site", Name: "site", Domains: []manifold.Domain{
		{Hostname: "shop.apps.example.com"}, {Hostname: "site.apps.example.com"}, {Hostname: "www.example.com"},
	}}}
	var hosts []string
	for _, r := range st.routes() {
		hosts = append(hosts, r.Hosts...)
	}
	if got, want := strings.Join(hosts, " "), "quiet-river-1.apps.example.com shop.apps.example.com site.apps.example.com www.example.com"; got != want {
		t.Errorf("hosts are %s, want %s", got, want)
	}
}

// A host speaks for its own dynos only.
func TestNoHostSpeaksForAnother(t *testing.T) {
	st := world(formation("web", 1), live("h2"), dyno("a", "web.1", 2, up), dyno("b", "web.1", 3, starting))
	st.observed[placed{"h2", "b"}] = manifold.Dyno{Assignment: "b", State: up, Addr: "10.9.9.9:80"}
	if got := describe(plan(st)); got != "" {
		t.Errorf("plan is %q: h2 was believed about a dyno of h1", got)
	}
	if got := fmt.Sprint(st.routes()); strings.Contains(got, "10.9.9.9") {
		t.Errorf("routes are %s", got)
	}
}

func TestPlanRevivals(t *testing.T) {
	alone := formation("web", 1)
	failing := func(n int, runs ...string) func(*state) {
		return func(st *state) {
			all := map[string]int{}
			for _, run := range runs {
				all[run] = n
			}
			st.routers = append(st.routers, fleetRouter{ID: fmt.Sprint("r", len(st.routers)), Live: true, Failing: all})
		}
	}
	for _, c := range []struct {
		name string
		st   *state
		want string
	}{
		{"does not answer", world(alone, dyno("a", "web.1", 3, up), failing(10, "run-a")), "revive a"},
		{"few requests", world(alone, dyno("a", "web.1", 3, up), failing(9, "run-a")), ""},
		{"another router reaches it", world(alone, dyno("a", "web.1", 3, up), failing(50, "run-a"), failing(5, "run-a")), ""},
		{"a dead router says so", world(alone, dyno("a", "web.1", 3, up), failing(50, "run-a"), func(st *state) { st.routers[0].Live = false }), ""},
		{"too young", world(alone, dyno("a", "web.1", 3, up, func(p *store.Placement) {
			p.Assignment.CreatedAt = epoch.Add(55 * time.Minute)
		}), failing(50, "run-a")), ""},
		{"on its way: the old one serves on", world(alone, dyno("a", "web.1", 3, up, replace), dyno("b", "web.1", 3, starting), failing(50, "run-a")), ""},
		{"crashed meanwhile", world(alone, dyno("a", "web.1", 3, crashed), failing(50, "run-a")), ""},
		{"all of an app: one after the other", world(formation("web", 3), dyno("a", "web.1", 3, up), dyno("b", "web.2", 3, up), dyno("c", "web.3", 3, up),
			failing(10, "run-a", "run-b", "run-c")), "revive a"},
		{"the next waits for the first", world(formation("web", 2), dyno("a", "web.1", 3, up, replace), dyno("b", "web.2", 3, up),
			failing(10, "run-a", "run-b")), "place app/web.1@h1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := describe(plan(c.st)); got != c.want {
				t.Errorf("plan is %q, want %q", got, c.want)
			}
		})
	}
}

func TestAssignmentsFollowFeatures(t *testing.T) {
	for _, c := range []struct {
		features map[string]bool
		operator manifold.Backoff
		metrics  bool
		backoff  manifold.Backoff
	}{
		{nil, manifold.BackoffClassic, false, manifold.BackoffClassic},
		{nil, manifold.BackoffProgressive, false, manifold.BackoffProgressive},
		{map[string]bool{manifold.FeatureRuntimeMetrics: true}, manifold.BackoffClassic, true, manifold.BackoffClassic},
		{map[string]bool{manifold.FeatureProgressiveBackoff: true}, manifold.BackoffClassic, false, manifold.BackoffProgressive},
		{map[string]bool{manifold.FeatureProgressiveBackoff: false}, manifold.BackoffProgressive, false, manifold.BackoffClassic},
	} {
		st := world(formation("web", 1), func(st *state) {
			st.stored.apps["app"].Features, st.settings.Backoff = c.features, c.operator
		})
		if a := st.assignment(slot{"app", "web.1"}); a.RuntimeMetrics != c.metrics || a.Backoff != c.backoff {
			t.Errorf("%v on a platform with %s: %v, %s", c.features, c.operator, a.RuntimeMetrics, a.Backoff)
		}
	}
}
