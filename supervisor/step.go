package supervisor

import (
	"fmt"
	"time"

	"manifold"
)

const oneOff = manifold.KindOneOff

// Step moves a dyno by one event under the default policy.
func Step(d Dyno, e Event) (Dyno, []Effect) { return DefaultPolicy.Step(d, e) }

// Step moves a dyno by one event. It returns the dyno as it is then, and all
// effects that must be in force in that state: whoever carries them out may
// forget those of the steps before. No effects and an unchanged dyno mean
// that the event was none of its business.
func (p Policy) Step(d Dyno, e Event) (Dyno, []Effect) {
	if stale(d, e) {
		return d, nil
	}
	for _, a := range table {
		if a.From != d.State || a.On != e.Kind || a.When != nil && !a.When.ok(p, &d, e) {
			continue
		}
		s := &step{policy: p, d: d, e: e, from: d.State}
		if a.From.Public() != a.To.Public() {
			s.d.Since = e.At
		}
		s.d.State = a.To
		a.Then(s)
		return s.d, s.effects
	}
	return d, nil
}

// stale tells events of an older run or of a timer that was replaced.
func stale(d Dyno, e Event) bool {
	switch {
	case e.Kind == Stop:
		return false
	case e.Kind == Due && !e.Due.Equal(d.Due):
		return true
	case e.Kind == Want, e.Kind == Due && d.State == Crashed:
		return e.Run == d.Run // a new try must bring a new run
	}
	return e.Run != d.Run
}

// step is one walk along an arrow: d is already in its new state.
type step struct {
	policy  Policy
	d       Dyno
	e       Event
	from    State
	effects []Effect
}

// action gathers what is to be done along an arrow.
type action func(*step)

func (s *step) do(v Verb) { s.effects = append(s.effects, Effect{Do: v, Run: s.d.Run}) }

func (s *step) due(at time.Time) {
	s.d.Due = at
	s.effects = append(s.effects, Effect{Do: SetDue, Run: s.d.Run, At: at, In: at.Sub(s.e.At)})
}

// dueStill keeps the timer, which was set for at most that long: a clock that
// was set back meanwhile must not make it further.
func (s *step) dueStill(most time.Duration) {
	at := s.d.Due
	if latest := s.e.At.Add(most); latest.Before(at) {
		at = latest
	}
	s.due(at)
}

// say puts a line into the app's log as coming from the platform. Jobs are
// the platform's own and say nothing there.
func (s *step) say(format string, args ...any) {
	if s.d.Plan.Job {
		return
	}
	s.d.Said++
	text := clip(fmt.Sprintf(format, args...), manifold.MaxLogLine)
	s.effects = append(s.effects, Effect{Do: Say, Run: s.d.Run, At: s.e.At, Seq: s.d.Said, Text: text})
}

// sayState tells the change of state, in public words.
func (s *step) sayState(from State) {
	name := string(from.Public())
	switch from {
	case Created:
		name = "created"
	case Ailing:
		name = string(manifold.StateUp) // nobody asked for its stop
	}
	s.say("State changed from %s to %s", name, s.d.State.Public())
}

func begin(s *step) {
	d := &s.d
	d.Run, d.Port, d.Said = s.e.Run, s.e.Port, 0
	d.Due, d.UpAt, d.Lines = time.Time{}, time.Time{}, 0
	d.Grace, d.Forced, d.Hangups, d.Ill = 0, false, 0, ""
	s.sayState(s.from)
	if d.Plan.Attached {
		s.say("Awaiting client")
	}
	s.say("Starting process with command `%s`", shownCommand(d.Plan.Command, d.Port))
	s.do(Launch)
}

func boot(s *step) {
	s.due(s.e.At.Add(s.d.Plan.BootTimeout))
	s.do(Probe)
}

// tell says what was measured, and that the dyno is over its memory quota if
// it is. It lives on, on swap.
func tell(s *step) {
	if prefix := s.d.Plan.Metrics; prefix != "" {
		s.say("%s.%s %s", prefix, s.d.Run, s.e.Sample.load())
		s.say("%s.%s %s", prefix, s.d.Run, s.e.Sample.memory(s.d.Plan.Quota))
	}
	if s.d.overQuota(s.e) {
		s.sayMemory(s.e.Memory)
		s.say("Error R14 (Memory quota exceeded)")
	}
}

func (d *Dyno) overQuota(e Event) bool { return d.Plan.Quota > 0 && e.Memory > d.Plan.Quota }

func tellBooting(s *step) {
	tell(s)
	s.dueStill(s.d.Plan.BootTimeout)
	s.do(Probe)
}

func tellUp(s *step) {
	tell(s)
	s.check()
	if s.d.hangingUp() {
		s.dueStill(s.policy.HangupEvery)
	}
}

// hangingUp says whether SIGHUPs are on their way to the dyno.
func (d *Dyno) hangingUp() bool { return d.Hangups > 0 && !d.Due.IsZero() }

func clientLost(s *step) {
	s.say("Client connection closed. Sending SIGHUP to all processes")
	s.hangUp()
}

// hangUpAgain repeats the SIGHUP for programs that were not ready for it, and
// in the end leaves the dyno alone: it may have been told to outlive its client.
func hangUpAgain(s *step) {
	if s.d.Hangups < s.policy.Hangups {
		s.hangUp()
		return
	}
	s.d.Hangups++
	s.d.Due = time.Time{}
	s.say("Error R16 (Detached) -> An attached process is not responding to SIGHUP after its external connection was closed.")
}

func (s *step) hangUp() {
	s.d.Hangups++
	s.do(Hangup)
	s.due(s.e.At.Add(s.policy.HangupEvery))
}

func (s *step) sayMemory(bytes int64) {
	s.say("Process running mem=%dM(%.1f%%)", bytes>>20, 100*float64(bytes)/float64(s.d.Plan.Quota))
}

func arrive(s *step) {
	s.d.UpAt = s.e.At
	s.sayState(s.from)
	s.check()
}

func (s *step) check() {
	if s.d.Plan.Health != "" {
		s.do(Check)
	}
}

// restart is for a dyno that runs, but no longer works.
func restart(s *step) {
	d := &s.d
	d.Ill = clip(s.e.Detail, maxIll)
	if s.policy.healthyLong(*d, s.e) {
		d.Crashes = 0
	}
	s.say("Health check failed: %s", d.Ill)
	s.say("Restarting")
	stop(s)
}

// maxIll is how much is kept of how a check failed, in bytes.
const maxIll = 512

// bear leaves a dyno that fails its check alone: a restart did not help it a
// while ago, or would leave the app with less than it has.
func bear(s *step) {
	s.say("Health check failed: %s", clip(s.e.Detail, maxIll))
	s.check()
}

func overdue(s *step) {
	s.say("Error R10 (Boot timeout) -> Web process failed to bind to $PORT within %s of launch", seconds(s.d.Plan.BootTimeout))
	s.say("Stopping process with SIGKILL")
	kill(s)
}

// kill is tried again until the run has ended: a signal costs nothing, and a
// host that is short of everything may fail one.
func kill(s *step) {
	s.do(Kill)
	s.due(s.e.At.Add(s.policy.ForceSlack))
}

func stop(s *step) {
	if s.e.Cycled {
		s.say("Cycling")
	}
	s.say("Stopping all processes with SIGTERM")
	s.term()
}

// stopAgain keeps the stop under way. It may shorten its grace, never
// lengthen it, and may turn the host's own stop into the coordinator's.
func stopAgain(s *step) { s.term() }

// term has PID 1 stop the run. PID 1 knows the plan's grace and keeps to it;
// the timer is for a shorter one, and for a PID 1 that does not keep to it.
func (s *step) term() {
	note(s)
	d := &s.d
	at := s.e.At.Add(d.Plan.Grace + s.policy.ForceSlack)
	if d.Grace == 0 || d.Grace > d.Plan.Grace { // PID 1 waits no longer, whoever asks for it
		d.Grace = d.Plan.Grace
	} else if d.Grace < d.Plan.Grace {
		at = s.e.At.Add(d.Grace)
	}
	if (s.from == Stopping || s.from == Ailing) && d.Due.Before(at) {
		at = d.Due
	}
	s.do(Term)
	s.due(at)
}

func force(s *step) {
	s.d.Forced = true
	kill(s)
}

// note remembers who asked for the stop, and the shortest grace named.
func note(s *step) {
	d := &s.d
	d.Withdrawn, d.Cycled = d.Withdrawn || s.e.Withdrawn, d.Cycled || s.e.Cycled
	if s.e.Grace > 0 && (d.Grace == 0 || s.e.Grace < d.Grace) {
		d.Grace = s.e.Grace
	}
}

func stopOverdue(s *step) {
	note(s)
	kill(s)
}

func cancel(s *step) {
	note(s)
	s.do(Cancel)
}

// ended is the end of a run that nobody asked to stop.
func ended(s *step) {
	s.finish()
	s.close()
}

// stopped is the end of a run that was asked to stop.
func stopped(s *step) {
	s.finish()
	if s.d.State == Gone {
		s.vanish()
		return
	}
	s.do(Remove)
}

func collect(s *step) {
	s.finish()
	s.do(Collect)
}

func collected(s *step) {
	if s.e.Detail != "" {
		s.d.Result = &manifold.Result{Cause: manifold.CauseOutput, Status: 1, Detail: s.e.Detail, At: s.e.At}
	}
	s.sayState(Up)
	s.do(Remove)
}

func failed(s *step) {
	if s.e.NoClient {
		s.d.Result = &manifold.Result{Cause: manifold.CauseR13, Status: 1, Detail: s.e.Detail, At: s.e.At}
		s.say("Error R13 (Attach error) -> Failed to attach to process")
		s.close()
		return
	}
	s.d.Result = &manifold.Result{Cause: manifold.CauseLaunch, Status: 1, Detail: s.e.Detail, At: s.e.At}
	code := "R99 (Platform error)"
	if s.e.Checksum {
		code = "R17 (Checksum error)"
	}
	s.say("Error %s -> Failed to launch the dyno: %s", code, s.e.Detail)
	s.close()
}

func calledOff(s *step) {
	s.d.Result = &manifold.Result{Cause: manifold.CauseLaunch, Status: 1, Detail: "stopped before it was started", At: s.e.At}
	s.do(Remove)
}

func vanish(s *step) { s.vanish() }

func (s *step) vanish() {
	if s.d.Run != "" {
		s.do(Remove)
	}
	s.do(Forget)
}

// close ends a try: in Crashed it says when the next one is.
func (s *step) close() {
	s.sayState(s.from)
	s.do(Remove)
	if s.d.State != Crashed {
		return
	}
	d := &s.d
	if s.from == Ailing {
		d.Crashes++
		s.due(s.e.At) // it has waited while it was up: Policy.Restarts
		return
	}
	good := !d.UpAt.IsZero() && d.Result.At.Sub(d.UpAt) >= s.policy.GoodRun
	if good {
		d.Crashes = 0
	}
	if s.e.Exit.HostLost {
		s.due(s.e.At)
		return
	}
	d.Crashes++
	s.due(s.e.At.Add(s.policy.wait(d.Plan.Backoff, d.Crashes, s.e.Jitter)))
}

// finish notes how the run ended and says so.
func (s *step) finish() {
	x := s.e.Exit
	if x.At.IsZero() {
		x.At = s.e.At
	}
	if x.Lost && (s.from == Overdue || s.d.Forced || x.OOM) {
		x.Lost, x.Forced, x.Status = false, s.d.Forced, 128+9 // we know what ended it
	}
	s.d.Lines = x.Lines
	s.d.Result = &manifold.Result{Cause: s.cause(x), Status: x.Status, At: x.At}
	switch cause := s.d.Result.Cause; {
	case cause == manifold.CauseLost:
		s.d.Result.Status = 128 + 9
		s.d.Result.Detail = "ended without an exit record"
		s.say("Process ended without an exit record")
		return
	case cause == manifold.CauseOOM:
		if x.Memory > 0 && s.d.Plan.Quota > 0 {
			s.sayMemory(x.Memory)
		}
		s.say("Error R15 (Memory quota vastly exceeded)")
		s.say("Stopping process with SIGKILL")
	case cause == manifold.CauseR12, cause == manifold.CauseHealth && x.Forced:
		s.say("Error R12 (Exit timeout) -> At least one process failed to exit within %s of SIGTERM", seconds(s.d.Grace))
		s.say("Stopping remaining processes with SIGKILL")
	}
	if s.d.Result.Cause == manifold.CauseHealth {
		s.d.Result.Detail = s.d.Ill
	}
	s.say("Process exited with status %d", x.Status)
}

func (s *step) cause(x Exit) manifold.Cause {
	switch {
	case s.from == Overdue:
		return manifold.CauseBoot
	case x.Lost:
		return manifold.CauseLost
	case x.OOM && x.Status == 128+9: // else it outlived what was killed in it
		return manifold.CauseOOM
	case s.from == Ailing:
		return manifold.CauseHealth
	case x.Forced:
		return manifold.CauseR12
	case x.Expired:
		return manifold.CauseTTL
	case s.from == Stopping && s.d.Cycled:
		return manifold.CauseCycled
	case x.Status > 128:
		return manifold.CauseSignal
	}
	return manifold.CauseExit
}
