package supervisor

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"manifold"
)

var epoch = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func TestOneOwnerPerArrow(t *testing.T) {
	owners := map[[2]State]Owner{}
	for _, a := range table {
		if a.From == a.To {
			continue // stays where it is: no arrow
		}
		key := [2]State{a.From, a.To}
		owner := OwnerOf(a.On)
		if had, ok := owners[key]; ok && had != owner {
			t.Errorf("%s → %s is owned by %s and by %s", a.From, a.To, had, owner)
		}
		owners[key] = owner
	}
}

func TestEveryStateCanBeReachedAndLeft(t *testing.T) {
	next := map[State][]State{}
	for _, a := range table {
		next[a.From] = append(next[a.From], a.To)
	}
	reach := func(from State) map[State]bool {
		seen := map[State]bool{from: true}
		for queue := []State{from}; len(queue) > 0; queue = queue[1:] {
			for _, to := range next[queue[0]] {
				if !seen[to] {
					seen[to] = true
					queue = append(queue, to)
				}
			}
		}
		return seen
	}
	all := []State{Created, Starting, Cancelling, Booting, Overdue, Up, Ailing, Stopping, Collecting, Crashed, Complete, Gone}
	fromCreated := reach(Created)
	for _, s := range all {
		if !fromCreated[s] {
			t.Errorf("%s cannot be reached", s)
		}
		if !reach(s)[Gone] {
			t.Errorf("%s cannot end", s)
		}
	}
	if len(fromCreated) != len(all) {
		t.Errorf("the table knows %d states, the test %d", len(fromCreated), len(all))
	}
	if len(next[Gone]) > 0 {
		t.Error("a dyno comes back from gone")
	}
}

// rank orders the states of one run: a dyno never goes to a lower one but by
// a new run.
var rank = map[State]int{
	Created: 0, Starting: 1, Cancelling: 2, Booting: 2, Up: 3, Overdue: 3, Ailing: 4, Stopping: 4, Collecting: 4, Crashed: 5, Complete: 5, Gone: 6,
}

// walk drives a dyno with random events, whole ones and nonsense, and calls
// check after each.
func walk(seed uint64, steps int, check func(before, after Dyno, e Event, effects []Effect)) Dyno {
	r := rand.New(rand.NewPCG(seed, 7))
	plan := Plan{Kind: manifold.KindFormation, Command: "run", BootTimeout: time.Minute, Grace: 30 * time.Second}
	switch r.IntN(6) {
	case 0:
		plan.Web, plan.Health = true, "/health"
	case 1:
		plan.Kind = manifold.KindOneOff
	case 2:
		plan.Kind, plan.Job = manifold.KindOneOff, true
	case 3:
		plan.Web, plan.Backoff = true, manifold.BackoffProgressive
	case 4:
		plan.Kind, plan.Web = manifold.KindOneOff, true // nobody asks for it; it must not get stuck either
	case 5:
		plan.Kind, plan.Attached = manifold.KindOneOff, true
	}
	kinds := []EventKind{Want, Stop, Launched, LaunchFailed, Listening, Collected, Ended, Due, Launched, Listening, Ended, Sampled, ClientLost, Unhealthy}
	plan.Quota = 512 << 20
	if r.IntN(3) == 0 {
		plan.Metrics = "source=web.1 dyno=heroku.1"
	}
	d := New(plan, epoch)
	at := epoch
	for i := range steps {
		at = at.Add(time.Duration(r.Int64N(int64(20 * time.Minute))))
		e := Event{Kind: kinds[r.IntN(len(kinds))], At: at, Run: d.Run, Due: d.Due, Jitter: r.Float64()}
		if e.Kind == Want || e.Kind == Due && d.State == Crashed || r.IntN(20) == 0 {
			e.Run, e.Port = fmt.Sprintf("run-%d", i), 20000+i
		}
		if e.Kind == Stop {
			e.Withdrawn, e.Cycled, e.Grace = r.IntN(3) > 0, r.IntN(3) == 0, time.Duration(r.IntN(3))*10*time.Second
			if r.IntN(4) > 0 {
				continue // let them live a while
			}
		}
		e.Failing, e.Held = at.Add(-time.Duration(r.Int64N(int64(20*time.Minute)))), r.IntN(3) == 0
		e.Memory = r.Int64N(2 * plan.Quota)
		e.Exit = Exit{Status: r.IntN(3) * 137 / 2, OOM: r.IntN(5) == 0, Forced: r.IntN(5) == 0, Lost: r.IntN(5) == 0, HostLost: r.IntN(9) == 0, Lines: uint64(i)}
		if r.IntN(3) == 0 {
			e.Detail = "no"
		}
		after, effects := Step(d, e)
		check(d, after, e, effects)
		d = after
	}
	return d
}

func TestRandomLives(t *testing.T) {
	used := map[string]bool{}
	for seed := range uint64(1000) {
		runs := map[string]bool{}
		walk(seed, 60, func(before, after Dyno, e Event, effects []Effect) {
			fail := func(format string, args ...any) {
				t.Fatalf("seed %d: %s on %s → %s: %s", seed, before.State, e.Kind, after.State, fmt.Sprintf(format, args...))
			}
			used[string(before.State)+string(e.Kind)+string(after.State)] = true
			again, same := Step(before, e)
			if !reflect.DeepEqual(after, again) || !reflect.DeepEqual(effects, same) {
				fail("not a function of its input")
			}
			if len(effects) == 0 && after.State != Up && !reflect.DeepEqual(before, after) {
				fail("changed without effects: whoever replaces the recorded ones would lose those in force")
			}
			if after.Run == before.Run && rank[after.State] < rank[before.State] {
				fail("went backwards")
			}
			if after.Run != before.Run {
				if runs[after.Run] {
					fail("run %s came back", after.Run)
				}
				if after.State != Starting {
					fail("a new run does not begin with starting")
				}
				runs[after.Run] = true
			}
			if after.Plan.Kind == manifold.KindOneOff && len(runs) > 1 {
				fail("a one-off ran twice")
			}
			if before.State == Gone && after.State != Gone {
				fail("rose from the dead")
			}
			if e.Held && after.State == Ailing && before.State == Up {
				fail("restarted while others are not up")
			}
			checkEffects(before, after, effects, fail)
		})
	}
	for _, a := range table {
		if !used[string(a.From)+string(a.On)+string(a.To)] {
			t.Errorf("%s on %s → %s: never taken", a.From, a.On, a.To)
		}
	}
}

func checkEffects(before, after Dyno, effects []Effect, fail func(string, ...any)) {
	said := before.Said
	if after.Run != before.Run {
		said = 0
	}
	has := map[Verb]int{}
	for _, e := range effects {
		has[e.Do]++
		if e.Run != after.Run {
			fail("effect %s is for run %q, the dyno's is %q", e.Do, e.Run, after.Run)
		}
		if e.Do == Say {
			if said++; e.Seq != said {
				fail("line %d follows line %d", e.Seq, said-1)
			}
			if after.Plan.Job {
				fail("a job said %q", e.Text)
			}
		}
		if e.Do == SetDue && !e.At.Equal(after.Due) {
			fail("timer set for %v, noted for %v", e.At, after.Due)
		}
	}
	if said != after.Said {
		fail("counted %d lines, said %d", after.Said, said)
	}
	for verb, n := range has {
		if verb != Say && n > 1 {
			fail("%s twice in one step", verb)
		}
	}
	if len(effects) == 0 {
		return
	}
	// What must be in force in a state comes with every step that leads there.
	need := map[State][]Verb{
		Starting: {Launch}, Cancelling: {Cancel}, Overdue: {Kill, SetDue},
		Crashed: {Remove, SetDue}, Complete: {Remove}, Gone: {Forget},
	}[after.State]
	if after.State == Booting {
		need = []Verb{Probe, SetDue}
	}
	if after.State == Up && after.Plan.Health != "" {
		need = []Verb{Check}
	}
	if after.State == Stopping || after.State == Ailing {
		need = []Verb{SetDue}
		if has[Term]+has[Kill] == 0 {
			fail("stopping without a signal")
		}
	}
	if after.State == Up && after.hangingUp() && has[SetDue] == 0 {
		fail("nobody comes to hang up again")
	}
	if after.State == Collecting && has[Collect]+has[Cancel] == 0 {
		fail("collecting without doing it")
	}
	for _, verb := range need {
		if has[verb] == 0 && !(verb == Remove && after.Run == "") {
			fail("%s is not in force", verb)
		}
	}
}
