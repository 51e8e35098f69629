package scheduler

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/attach"
	"manifold/coordinator/store"
)

var small, _ = manifold.ParseSize("Standard-1X")

// desired waits for a Desired that satisfies ok.
func (a *agent) desired(what string, ok func(manifold.Desired) bool) (got manifold.Desired) {
	a.r.t.Helper()
	eventually(a.r.t, what, func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.told) > 0 {
			got = a.told[len(a.told)-1]
		}
		return ok(got)
	})
	return got
}

func TestOneOff(t *testing.T) {
	r := newRig(t)
	r.start()
	a := r.agent()
	app := r.app(map[string]string{"web": "serve", "worker": "work hard"})
	_, err := r.store.AddRelease(t.Context(), app.ID, r.user, func(next *manifold.Release) error {
		next.Config = map[string]string{"COLOUR": "green", "TERM": "dumb"}
		return nil
	})
	must(t, err)
	d, secret, err := r.sched.Start(t.Context(), OneOff{
		App: app.ID, Command: "worker 42 ; echo", Size: small, Env: map[string]string{"TERM": "xterm"}, Attach: &manifold.Attach{Terminal: true, Rows: 2, Cols: 3},
	})
	must(t, err)
	if dynos := r.sched.Dynos(app.ID); !slices.ContainsFunc(dynos, func(x Dyno) bool { return x.Name == d.Name }) {
		t.Errorf("who started %s is not shown it: %v", d.Name, dynos)
	}
	typ, n, err := manifold.SplitDynoName(d.Name)
	if typ != "run" || n < 1000 || n > 9999 || err != nil || secret == "" || d.State != manifold.StateStarting || d.Type != "run" || d.Kind != manifold.KindOneOff {
		t.Errorf("%+v, secret %q", d, secret)
	}
	told := a.desired("the host is told", func(all manifold.Desired) bool {
		return slices.ContainsFunc(all.Assignments, func(as manifold.Assignment) bool { return as.ID == d.Assignment })
	})
	for _, as := range told.Assignments {
		if as.ID != d.Assignment {
			continue
		}
		if as.Command != "work hard 42 ; echo" || as.Env["COLOUR"] != "green" || as.Env["TERM"] != "xterm" || as.TTL != MaxTTL ||
			as.Release != 4 || as.Web || as.Attach == nil || *as.Attach != (manifold.Attach{Terminal: true, Rows: 2, Cols: 3}) {
			t.Errorf("told %+v", as)
		}
	}
	eventually(t, "it is shown", func() bool {
		dynos := r.sched.Dynos(app.ID)
		return len(dynos) == 2 && dynos[0].Name == d.Name && dynos[0].State == manifold.StateUp
	})

	must(t, r.sched.Restart(t.Context(), app.ID, func(string) bool { return true }))
	stays(t, "a restart leaves it alone", func() bool { return a.runs(d.Assignment) })
	if n, err := r.sched.Stop(t.Context(), app.ID, func(name string) bool { return name == "web.1" }); n != 0 || err != nil {
		t.Errorf("stopped %d formation dynos, %v", n, err)
	}
	if n, err := r.sched.Stop(t.Context(), app.ID, func(name string) bool { return name == d.Name }); n != 1 || err != nil {
		t.Errorf("stopped %d, %v", n, err)
	}
	eventually(t, "it is gone", func() bool { return !a.runs(d.Assignment) && len(r.sched.Dynos(app.ID)) == 1 })

	// One that ended is not kept.
	d, _, err = r.sched.Start(t.Context(), OneOff{App: app.ID, Command: "true", Size: small, Type: "task", TTL: time.Minute})
	must(t, err)
	if !strings.HasPrefix(d.Name, "task.") || d.Command != "true" {
		t.Errorf("%+v", d)
	}
	a.one(d.Name)
	a.set(func(x *manifold.Dyno) {
		if x.Assignment == d.Assignment {
			x.State = manifold.StateComplete
		}
	})
	eventually(t, "nothing of it is left", func() bool { return len(r.placements()) == 1 })
}

func TestOneOffRefused(t *testing.T) {
	r := newRig(t)
	r.set.StartGrace, r.set.OneOffs = 50*time.Millisecond, 10
	r.start()
	r.sched.hostWait = 50 * time.Millisecond
	blank, err := r.store.CreateApp(t.Context(), manifold.App{Stack: "cedar"}, r.user)
	must(t, err)
	app := r.app(map[string]string{"web": "serve"})
	start := func(id string, size manifold.Size) error {
		_, _, err := r.sched.Start(t.Context(), OneOff{App: id, Command: "true", Size: size})
		return err
	}
	if err := start(blank.ID, small); !errors.Is(err, ErrNoCode) {
		t.Errorf("an app without code: %v", err)
	}
	if err := start("none", small); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no app: %v", err)
	}
	if err := start(app.ID, small); !errors.Is(err, ErrNoHost) {
		t.Errorf("no host: %v", err)
	}
	r.agent()
	eventually(t, "a host is there", func() bool { return start(app.ID, small) == nil })

	// However many ask at once, no more than the limit get one, and no two the same name.
	var all sync.WaitGroup
	for range 15 {
		all.Go(func() {
			var limit *LimitError
			if err := start(app.ID, small); err != nil && !errors.As(err, &limit) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	names := map[string]bool{}
	for _, p := range r.placements() {
		if p.Assignment.Kind == manifold.KindOneOff {
			names[p.Assignment.Dyno] = true
		}
	}
	if len(names) != 10 {
		t.Errorf("%d one-off dynos, want 10", len(names))
	}
	large, _ := manifold.ParseSize("Performance-L")
	must(t, start(app.ID, large))
	if err := start(app.ID, large); err == nil || !strings.Contains(err.Error(), "more than 1 Performance-L") {
		t.Errorf("a second large one: %v", err)
	}
	must(t, start(r.app(map[string]string{"web": "serve"}).ID, small)) // another app's limit is its own
}

func TestExpand(t *testing.T) {
	types := map[string]string{"worker": "rake work", "web": "serve -p $PORT"}
	for command, want := range map[string]string{
		"worker": "rake work", "worker 42": "rake work 42", " web": "serve -p $PORT", "worker;ls": "worker;ls",
		"bash": "bash", "bash worker": "bash worker", "": "", "worker ; echo $?": "rake work ; echo $?", "workers": "workers",
	} {
		if got := expand(command, types); got != want {
			t.Errorf("%q becomes %q, want %q", command, got, want)
		}
	}
}

// A host that is lost takes its one-off dynos along: they run once.
func TestOneOffOfALostHost(t *testing.T) {
	oneOff := func(st *state) {
		st.stored.placements = append(st.stored.placements, store.Placement{Host: "h2", Assignment: manifold.Assignment{
			ID: "x", App: "app", Dyno: "run.1234", Kind: manifold.KindOneOff, CreatedAt: epoch,
		}})
	}
	st := world(oneOff, silent("h2", time.Minute))
	if actions := plan(st); len(actions) != 0 {
		t.Errorf("a host that is only silent: %v", actions)
	}
	st = world(oneOff, silent("h2", time.Hour))
	if actions := plan(st); len(actions) != 1 || actions[0].verb != stop || actions[0].id != "x" {
		t.Errorf("a host that is lost: %v", actions)
	}
}

func TestExec(t *testing.T) {
	r := newRig(t)
	r.come = 3 * time.Second
	r.start()
	a := r.agent()
	app := r.app(map[string]string{"web": "serve"})
	web := a.one("web.1")
	eventually(t, "web.1 is up", func() bool {
		return len(r.sched.Dynos(app.ID)) == 1 && r.sched.Dynos(app.ID)[0].State == manifold.StateUp
	})

	d, secret, err := r.sched.Exec(t.Context(), Exec{App: app.ID, Dyno: "web.1", Command: "ps", Env: map[string]string{"TERM": "xterm"}, Attach: manifold.Attach{Terminal: true}})
	must(t, err)
	if d.Assignment != web || secret == "" {
		t.Errorf("%+v, secret %q", d, secret)
	}
	told := a.desired("the host is told", func(d manifold.Desired) bool { return len(d.Execs) == 1 })
	if x := told.Execs[0]; x.Assignment != web || x.Command != "ps" || x.Env["TERM"] != "xterm" || !x.Attach.Terminal {
		t.Errorf("told %+v", x)
	}
	// Its client does not come, and it is withdrawn.
	if _, err := r.room.Wait(t.Context(), told.Execs[0].ID, a.id.ID); !errors.Is(err, attach.ErrNoClient) {
		t.Errorf("the session: %v", err)
	}
	a.desired("it is withdrawn", func(d manifold.Desired) bool { return len(d.Execs) == 0 && len(d.Assignments) == 1 })

	for i := range maxExecs {
		_, _, err := r.sched.Exec(t.Context(), Exec{App: app.ID, Dyno: web, Command: fmt.Sprint(i)})
		must(t, err)
	}
	var limit *LimitError
	if _, _, err := r.sched.Exec(t.Context(), Exec{App: app.ID, Dyno: "web.1", Command: "one more"}); !errors.As(err, &limit) {
		t.Errorf("too many: %v", err)
	}
	if _, _, err := r.sched.Exec(t.Context(), Exec{App: app.ID, Dyno: "web.2", Command: "ls"}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no such dyno: %v", err)
	}
	a.set(func(d *manifold.Dyno) { d.State = manifold.StateCrashed })
	eventually(t, "a dyno that is not up is refused", func() bool {
		_, _, err := r.sched.Exec(t.Context(), Exec{App: app.ID, Dyno: "web.1", Command: "ls"})
		return errors.Is(err, ErrNotUp)
	})
}
