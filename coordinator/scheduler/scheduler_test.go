package scheduler

import (
	"slices"
	"strings"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/logs"
	"manifold/coordinator/store"
)

var types = map[string]string{"web": "serve", "worker": "work"}

func TestDeployWithoutAGap(t *testing.T) {
	r := newRig(t)
	r.start()
	agent, router := r.agent(), r.router()
	app := r.app(types)
	old := agent.one("web.1")
	eventually(t, "the first dyno is routed", func() bool { return router.routesTo(app.ID, old) })

	router.say(map[string]int{"run-" + old: 1}) // a request that takes its time
	r.deploy(app, types)
	eventually(t, "both run, only the new one is routed", func() bool {
		return len(agent.running()["web.1"]) == 2 && len(router.backends(app.ID)) == 1 && !router.routesTo(app.ID, old)
	})
	stays(t, "the old one gets no SIGTERM while a request is open on it", func() bool { return agent.runs(old) })
	if got := r.phase(old); got != store.Retiring {
		t.Errorf("the old one is %q", got)
	}
	router.say(nil)
	fresh := agent.one("web.1", old)
	eventually(t, "the old placement is gone", func() bool { return r.phase(old) == "gone" })
	if !router.routesTo(app.ID, fresh) {
		t.Errorf("routed to %v, want the new one", router.backends(app.ID))
	}
	router.neverBare(app.ID)
}

func TestDeployThatCrashesLeavesTheOldServing(t *testing.T) {
	r := newRig(t)
	r.start()
	agent, router := r.agent(), r.router()
	agent.come(func(a manifold.Assignment) manifold.State {
		if a.Command == "crash" {
			return manifold.StateCrashed
		}
		return manifold.StateUp
	})
	app := r.app(types)
	old := agent.one("web.1")
	eventually(t, "the old one is routed", func() bool { return router.routesTo(app.ID, old) })
	r.deploy(app, map[string]string{"web": "crash"})
	eventually(t, "the new one was tried", func() bool { return len(agent.running()["web.1"]) == 2 })
	stays(t, "the old one serves", func() bool { return router.routesTo(app.ID, old) && agent.runs(old) })
	r.deploy(app, types)
	agent.one("web.1", old)
	eventually(t, "old and crashed are gone", func() bool { return len(r.placements()) == 1 })
}

func TestScaleAndShow(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent()
	app := r.app(types)
	first := agent.one("web.1")
	r.scale(app, "web", 3)
	r.scale(app, "worker", 1)
	eventually(t, "all four run", func() bool { return len(agent.running()) == 4 })
	eventually(t, "all four are shown up", func() bool {
		var names []string
		for _, d := range r.sched.Dynos(app.ID) {
			if d.State != manifold.StateUp {
				return false
			}
			names = append(names, d.Name+" "+d.Type+" "+d.Command+" "+d.Size)
		}
		return strings.Join(names, ", ") == "web.1 web serve Standard-1X, web.2 web serve Standard-1X, web.3 web serve Standard-1X, worker.1 worker work Standard-1X"
	})
	r.scale(app, "web", 1)
	eventually(t, "the highest went", func() bool {
		running := agent.running()
		return len(running) == 2 && len(running["web.1"]) == 1 && running["web.1"][0] == first
	})
}

func TestRestart(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent()
	app := r.app(types)
	r.scale(app, "worker", 1)
	web1, worker1 := agent.one("web.1"), agent.one("worker.1")
	must(t, r.sched.Restart(t.Context(), app.ID, func(dyno string) bool { return dyno == "web.1" }))
	again := agent.one("web.1", web1)
	if got := agent.one("worker.1"); got != worker1 {
		t.Errorf("worker.1 was restarted too")
	}
	agent.set(func(d *manifold.Dyno) {
		if d.Assignment == again {
			d.State, d.NextTry = manifold.StateCrashed, time.Now().Add(time.Hour)
		}
	})
	must(t, r.sched.Restart(t.Context(), app.ID, func(string) bool { return true }))
	agent.one("web.1", web1, again)
	agent.one("worker.1", worker1)
}

func TestDeletedAppStops(t *testing.T) {
	r := newRig(t)
	r.start()
	agent, router := r.agent(), r.router()
	app := r.app(types)
	r.scale(app, "worker", 2)
	eventually(t, "it runs", func() bool { return len(agent.running()) == 3 && len(router.backends(app.ID)) == 1 })
	must(t, r.store.DeleteApp(t.Context(), app.ID))
	eventually(t, "nothing runs, nothing is kept", func() bool { return len(agent.running()) == 0 && len(r.placements()) == 0 })
}

func TestDeadRouterBlocksForDrainOnly(t *testing.T) {
	r := newRig(t)
	r.set.Drain, r.set.StartGrace = 700*time.Millisecond, 10*time.Millisecond
	r.start()
	agent, router := r.agent(), r.router()
	app := r.app(types)
	old := agent.one("web.1")
	eventually(t, "routed", func() bool { return router.routesTo(app.ID, old) })
	router.say(map[string]int{"run-" + old: 3})
	router.halt() // it counts as live for 15 s more, with requests open
	start := time.Now()
	r.deploy(app, types)
	agent.one("web.1", old)
	if took := time.Since(start); took < r.set.Drain || !r.fleet.Routers()[0].Live {
		t.Errorf("the old one went after %v, want about %v, while the router counts", took, r.set.Drain)
	}
}

func TestNoHostIsSaidOnce(t *testing.T) {
	r := newRig(t)
	r.start()
	app := r.app(types)
	said := func() (n int) {
		lines, err := r.logs.Recent(app.ID, logs.Filter{}, 100)
		must(t, err)
		for _, l := range lines {
			if strings.Contains(l.Text, "no host is online") && l.Process == "web.1" {
				n++
			}
		}
		return n
	}
	eventually(t, "it is said", func() bool { return said() == 1 })
	r.scale(app, "worker", 1)
	stays(t, "it is said once", func() bool { return said() == 1 })
	agent := r.agent()
	agent.one("web.1")
}

// The coordinator ends at each step of a deploy and another one starts. Dynos
// must not notice and the deploy must come to its end; at no time may the app
// be without a routed dyno.
func TestCoordinatorRestartsAtEachStep(t *testing.T) {
	r := newRig(t)
	r.set.StartGrace = 5 * time.Second // for host and router to come back
	r.start()
	agent, router := r.agent(), r.router()
	app := r.app(types)
	old := agent.one("web.1")
	eventually(t, "routed", func() bool { return router.routesTo(app.ID, old) })
	restart := func() {
		t.Helper()
		r.halt()
		r.start()
	}

	restart() // nothing under way
	stays(t, "nothing changes", func() bool { return agent.one("web.1") == old && router.routesTo(app.ID, old) })

	agent.come(func(manifold.Assignment) manifold.State { return manifold.StateStarting })
	router.say(map[string]int{"run-" + old: 1})
	r.deploy(app, types)
	eventually(t, "the new one starts", func() bool { return len(agent.running()["web.1"]) == 2 })
	restart() // new one starting
	stays(t, "both are there, the old one serves", func() bool {
		return len(agent.running()["web.1"]) == 2 && router.routesTo(app.ID, old)
	})
	agent.set(func(d *manifold.Dyno) { d.State = manifold.StateUp })
	eventually(t, "the old one is retiring", func() bool { return r.phase(old) == store.Retiring && !router.routesTo(app.ID, old) })
	restart() // old one retiring, a request open on it
	stays(t, "the old one is spared", func() bool { return agent.runs(old) && !router.routesTo(app.ID, old) })
	router.say(nil)
	fresh := agent.one("web.1", old)
	eventually(t, "the old placement is gone", func() bool { return r.phase(old) == "gone" })

	agent.halt() // it runs on, unheard
	r.scale(app, "web", 0)
	eventually(t, "it is on its way out", func() bool { return r.phase(fresh) == store.Stopping })
	restart() // stopping, its host away
	if got := r.phase(fresh); got != store.Stopping {
		t.Errorf("phase is %q", got)
	}
	agent.follow(agent.observe)
	eventually(t, "all is gone", func() bool { return len(r.placements()) == 0 && len(agent.running()) == 0 })
	router.neverBare(app.ID)
}

// A coordinator that comes back before its hosts do must hold still.
func TestNothingIsDoneBeforeHostsAreBack(t *testing.T) {
	r := newRig(t)
	r.start()
	agent, router := r.agent(), r.router()
	app := r.app(types)
	old := agent.one("web.1")
	eventually(t, "routed", func() bool { return router.routesTo(app.ID, old) })
	eventually(t, "observed up", func() bool { d := r.sched.Dynos(app.ID); return len(d) == 1 && d[0].State == manifold.StateUp })
	agent.halt()
	r.halt()
	router.mu.Lock()
	router.tables = nil
	router.mu.Unlock()
	began := time.Now()
	r.start()
	// The host stays away past the grace: its dynos are what it last said.
	eventually(t, "the table is told", func() bool {
		router.mu.Lock()
		defer router.mu.Unlock()
		return len(router.tables) > 0
	})
	if took := time.Since(began); took < r.set.StartGrace {
		t.Errorf("a table was told after %s", took)
	}
	if !router.routesTo(app.ID, old) {
		t.Errorf("the table after a restart routes to %v, want %s, which runs on unheard", router.backends(app.ID), old)
	}
	if all := r.placements(); len(all) != 1 || all[0].Assignment.ID != old {
		t.Errorf("placements are %+v", all)
	}
}

// A dyno that is old is replaced like one that was restarted, its host is told
// why it goes, and routers always have one to go to.
func TestCyclingWithoutAGap(t *testing.T) {
	r := newRig(t)
	r.set.Cycle, r.set.CycleJitter = 2*time.Second, time.Millisecond
	r.start()
	agent, router := r.agent(), r.router()
	app := r.app(types)
	first := agent.one("web.1")
	eventually(t, "the first dyno is routed", func() bool { return router.routesTo(app.ID, first) })
	r.kick() // nothing else is heard for a while
	second := agent.one("web.1", first)
	router.neverBare(app.ID)
	agent.mu.Lock()
	defer agent.mu.Unlock()
	told := false
	for _, d := range agent.told {
		told = told || len(d.Cycling) == 1 && d.Cycling[0] == first
		for _, as := range d.Assignments {
			if age := as.CycleAt.Sub(as.CreatedAt); age < r.set.Cycle || age > r.set.Cycle+r.set.CycleJitter {
				t.Errorf("%s carries a moment %v after it was made", as.ID, age)
			}
		}
	}
	if !told {
		t.Errorf("the host was not told that %s went for its age; %s is there now", first, second)
	}
}

// A dyno that routers get no answer from is replaced without a gap, and the
// app's log says why.
func TestDynoThatDoesNotAnswerIsReplaced(t *testing.T) {
	r := newRig(t)
	r.set.FailureRest = time.Millisecond
	r.start()
	agent, router := r.agent(), r.router()
	app := r.app(types)
	first := agent.one("web.1")
	eventually(t, "the first dyno is routed", func() bool { return router.routesTo(app.ID, first) })
	router.mu.Lock()
	router.fails = map[string]int{"run-" + first: 12}
	router.mu.Unlock()
	router.say(nil)
	second := agent.one("web.1", first)
	eventually(t, "the second one is routed", func() bool { return router.routesTo(app.ID, second) })
	router.neverBare(app.ID)
	lines, err := r.logs.Recent(app.ID, logs.Filter{}, 100)
	must(t, err)
	lines = slices.DeleteFunc(lines, func(l logs.Line) bool { return strings.Contains(l.Text, "no host is online") }) // yet
	if len(lines) != 1 || lines[0].Text != "Replacing a dyno that did not answer its last 12 requests" || lines[0].Process != "web.1" {
		t.Errorf("the log says %+v", lines)
	}
}
