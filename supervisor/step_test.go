package supervisor

import (
	"slices"
	"strings"
	"testing"
	"time"

	"manifold"
)

// life drives one dyno by hand.
type life struct {
	t       *testing.T
	d       Dyno
	at      time.Time
	effects []Effect
	said    []string
}

func newLife(t *testing.T, p Plan) *life {
	if p.Kind == "" {
		p.Kind = manifold.KindFormation
	}
	if p.Command == "" {
		p.Command = "bin/web -p $PORT"
	}
	p.BootTimeout, p.Grace = DefaultBootTimeout, DefaultGrace
	l := &life{t: t, d: New(p, epoch), at: epoch}
	l.on(Event{Kind: Want, Run: "run-1", Port: 24405})
	return l
}

// on applies an event d after the one before.
func (l *life) on(e Event) *life {
	e.At = l.at
	if e.Run == "" {
		e.Run = l.d.Run
	}
	if e.Kind == Due {
		e.Due = l.d.Due
	}
	l.d, l.effects = Step(l.d, e)
	for _, f := range l.effects {
		if f.Do == Say {
			l.said = append(l.said, f.Text)
		}
	}
	return l
}

func (l *life) after(d time.Duration) *life { l.at = l.at.Add(d); return l }

func (l *life) is(s State) *life {
	l.t.Helper()
	if l.d.State != s {
		l.t.Fatalf("state is %s, want %s", l.d.State, s)
	}
	return l
}

// does checks the effects of the last event, besides what it said.
func (l *life) does(verbs ...Verb) *life {
	l.t.Helper()
	var got []Verb
	for _, e := range l.effects {
		if e.Do != Say {
			got = append(got, e.Do)
		}
	}
	if !slices.Equal(got, verbs) {
		l.t.Errorf("effects %v, want %v", got, verbs)
	}
	return l
}

// adds is says of what was said since it was last called.
func (l *life) adds(lines ...string) *life {
	l.t.Helper()
	l.says(lines...)
	l.said = nil
	return l
}

func (l *life) says(lines ...string) {
	l.t.Helper()
	if got, want := strings.Join(l.said, "\n"), strings.Join(lines, "\n"); got != want {
		l.t.Errorf("the log says\n%s\nwant\n%s", got, want)
	}
}

func TestWebDynoStops(t *testing.T) {
	l := newLife(t, Plan{Web: true})
	l.on(Event{Kind: Launched}).is(Booting)
	l.on(Event{Kind: Listening}).is(Up)
	l.on(Event{Kind: Stop, Withdrawn: true}).is(Stopping)
	l.after(time.Second).on(Event{Kind: Ended, Exit: Exit{Status: 143, Lines: 7}}).is(Gone)
	l.says(
		"State changed from created to starting",
		"Starting process with command `bin/web -p 24405`",
		"State changed from starting to up",
		"Stopping all processes with SIGTERM",
		"Process exited with status 143",
	)
	if l.d.Lines != 7 || l.d.Result.Cause != manifold.CauseSignal {
		t.Errorf("result %+v, %d lines", l.d.Result, l.d.Lines)
	}
}

func TestStopThatNeedsForce(t *testing.T) {
	want := []string{
		"State changed from created to starting",
		"Starting process with command `sleep`",
		"State changed from starting to up",
		"Stopping all processes with SIGTERM",
		"Error R12 (Exit timeout) -> At least one process failed to exit within 30 seconds of SIGTERM",
		"Stopping remaining processes with SIGKILL",
		"Process exited with status 137",
	}
	t.Run("by PID 1", func(t *testing.T) {
		l := newLife(t, Plan{Command: "sleep"}).on(Event{Kind: Launched}).is(Up)
		l.on(Event{Kind: Stop, Withdrawn: true})
		l.after(30 * time.Second).on(Event{Kind: Ended, Exit: Exit{Status: 137, Forced: true}}).is(Gone)
		l.says(want...)
	})
	t.Run("by the agent, PID 1 hangs", func(t *testing.T) {
		l := newLife(t, Plan{Command: "sleep"}).on(Event{Kind: Launched}).is(Up)
		l.on(Event{Kind: Stop, Withdrawn: true})
		if wait := l.d.Due.Sub(l.at); wait <= DefaultGrace {
			t.Fatalf("the agent kills after %v, before PID 1 could", wait)
		}
		l.after(time.Minute).on(Event{Kind: Due}).is(Stopping)
		l.on(Event{Kind: Ended, Exit: Exit{Lost: true}}).is(Gone)
		l.says(want...)
		if l.d.Result.Cause != manifold.CauseR12 {
			t.Errorf("cause %s", l.d.Result.Cause)
		}
	})
	t.Run("with less grace", func(t *testing.T) {
		l := newLife(t, Plan{Command: "sleep"}).on(Event{Kind: Launched})
		l.on(Event{Kind: Stop, Grace: 10 * time.Second})
		l.after(5 * time.Second).on(Event{Kind: Stop, Grace: 10 * time.Second})
		if wait := l.d.Due.Sub(epoch); wait != 10*time.Second {
			t.Errorf("asked twice, it ends after %v", wait)
		}
		want[4] = strings.Replace(want[4], "30", "10", 1)
		l.after(5 * time.Second).on(Event{Kind: Due}).on(Event{Kind: Ended, Exit: Exit{Lost: true}}).is(Gone)
		l.says(want...)
	})
}

func TestBootTimeout(t *testing.T) {
	l := newLife(t, Plan{Web: true}).on(Event{Kind: Launched})
	if wait := l.d.Due.Sub(l.at); wait != time.Minute {
		t.Fatalf("boot may take %v", wait)
	}
	l.after(time.Minute).on(Event{Kind: Due}).is(Overdue)
	l.on(Event{Kind: Listening}).is(Overdue) // too late
	l.on(Event{Kind: Ended, Exit: Exit{Lost: true}}).is(Crashed)
	l.says(
		"State changed from created to starting",
		"Starting process with command `bin/web -p 24405`",
		"Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 60 seconds of launch",
		"Stopping process with SIGKILL",
		"Process exited with status 137",
		"State changed from starting to crashed",
	)
	if l.d.Result.Cause != manifold.CauseBoot {
		t.Errorf("cause %s", l.d.Result.Cause)
	}
}

// Status 0 is a crash too, of a dyno that shall run for ever.
func TestAnyExitIsACrash(t *testing.T) {
	for _, status := range []int{0, 1, 139} {
		l := newLife(t, Plan{}).on(Event{Kind: Launched}).is(Up)
		l.said = nil
		l.on(Event{Kind: Ended, Exit: Exit{Status: status}}).is(Crashed)
		if l.d.Crashes != 1 || !l.d.Due.Equal(l.at) {
			t.Errorf("crash %d, next try in %v: the first restart is at once", l.d.Crashes, l.d.Due.Sub(l.at))
		}
	}
}

func TestOutOfMemory(t *testing.T) {
	want := []string{
		"Error R15 (Memory quota vastly exceeded)",
		"Stopping process with SIGKILL",
		"Process exited with status 137",
		"State changed from up to crashed",
	}
	for _, exit := range []Exit{{Status: 137, OOM: true}, {Lost: true, OOM: true}} {
		l := newLife(t, Plan{}).on(Event{Kind: Launched})
		l.said = nil
		l.on(Event{Kind: Ended, Exit: exit}).is(Crashed)
		l.says(want...)
		if l.d.Result.Cause != manifold.CauseOOM || l.d.Result.Status != 137 {
			t.Errorf("result %+v", l.d.Result)
		}
	}
	l := newLife(t, Plan{}).on(Event{Kind: Launched})
	l.on(Event{Kind: Ended, Exit: Exit{Status: 1, OOM: true}})
	if l.d.Result.Cause != manifold.CauseExit {
		t.Errorf("a dyno that outlived a killed child ended by %s", l.d.Result.Cause)
	}
}

func TestOneOffRunsOnce(t *testing.T) {
	l := newLife(t, Plan{Kind: manifold.KindOneOff, Command: "rake"})
	l.on(Event{Kind: Launched}).is(Up)
	l.on(Event{Kind: Ended, Exit: Exit{Status: 0}}).is(Complete)
	l.says(
		"State changed from created to starting",
		"Starting process with command `rake`",
		"State changed from starting to up",
		"Process exited with status 0",
		"State changed from up to complete",
	)
	l.on(Event{Kind: Stop}).is(Complete) // a teardown: still desired, must not run again
	l.on(Event{Kind: Stop, Withdrawn: true}).is(Gone)
}

func TestJobCollects(t *testing.T) {
	job := Plan{Kind: manifold.KindOneOff, Job: true}
	l := newLife(t, job).on(Event{Kind: Launched}).on(Event{Kind: Ended, Exit: Exit{Status: 0, Lines: 3}}).is(Collecting)
	l.on(Event{Kind: Collected}).is(Complete)
	if l.d.Result.Cause != manifold.CauseExit || l.d.Result.Status != 0 || l.d.Lines != 3 {
		t.Errorf("result %+v", l.d.Result)
	}
	l = newLife(t, job).on(Event{Kind: Launched}).on(Event{Kind: Ended}).on(Event{Kind: Collected, Detail: "output slug: too large"})
	if r := l.is(Complete).d.Result; r.Cause != manifold.CauseOutput || r.Detail != "output slug: too large" || r.Status == 0 {
		t.Errorf("result %+v", r)
	}
	newLife(t, job).on(Event{Kind: Launched}).on(Event{Kind: Ended, Exit: Exit{Status: 1}}).is(Complete)
	newLife(t, job).on(Event{Kind: Launched}).on(Event{Kind: Ended}).on(Event{Kind: Stop, Withdrawn: true}).is(Collecting).on(Event{Kind: Collected, Detail: "cancelled"}).is(Gone)
	l.says() // a job says nothing in the app's log
}

// TestWeeksOfCrashes lives through a month of a dyno that always crashes.
func TestWeeksOfCrashes(t *testing.T) {
	cases := []struct {
		backoff manifold.Backoff
		min     []time.Duration // lower and upper bound of the first waits; the last repeats
		max     []time.Duration
	}{
		{manifold.BackoffClassic, minutes(0, 10), minutes(0, 10)},
		{"", minutes(0, 10), minutes(0, 10)},
		{manifold.BackoffProgressive, minutes(0, 10, 20, 30, 90, 160), minutes(0, 20, 40, 60, 180, 320)},
	}
	for _, c := range cases {
		l := newLife(t, Plan{Backoff: c.backoff})
		for n := 0; l.at.Before(epoch.Add(30 * 24 * time.Hour)); n++ {
			l.on(Event{Kind: Launched})
			l.after(time.Second).on(Event{Kind: Ended, Exit: Exit{Status: 1}, Jitter: float64(n%10) / 10}).is(Crashed)
			wait, i := l.d.Due.Sub(l.at), min(n, len(c.min)-1)
			if wait < c.min[i] || wait > c.max[i] {
				t.Fatalf("%q: after crash %d it waits %v, want %v to %v", c.backoff, n+1, wait, c.min[i], c.max[i])
			}
			l.on(Event{Kind: Due, Run: l.d.Run}).is(Crashed) // a try needs a new run
			l.after(wait).on(Event{Kind: Due, Run: l.at.String()}).is(Starting)
		}
	}
}

func minutes(list ...int) []time.Duration {
	var d []time.Duration
	for _, m := range list {
		d = append(d, time.Duration(m)*time.Minute)
	}
	return d
}

func TestGoodRunForgivesCrashes(t *testing.T) {
	l := newLife(t, Plan{})
	crash := func(up time.Duration) time.Duration {
		l.on(Event{Kind: Launched})
		l.after(up).on(Event{Kind: Ended, Exit: Exit{Status: 1}}).is(Crashed)
		wait := l.d.Due.Sub(l.at)
		l.after(wait).on(Event{Kind: Due, Run: l.at.String()})
		return wait
	}
	for i, want := range minutes(0, 10, 10) {
		if got := crash(time.Minute); got != want {
			t.Errorf("crash %d: waits %v, want %v", i+1, got, want)
		}
	}
	if got := crash(10 * time.Minute); got != 0 {
		t.Errorf("a crash after a good run waits %v", got)
	}
	if l.d.Crashes != 1 {
		t.Errorf("%d crashes counted", l.d.Crashes)
	}
}

func TestHostThatWentDownIsNoCrash(t *testing.T) {
	l := newLife(t, Plan{}).on(Event{Kind: Launched})
	l.on(Event{Kind: Ended, Exit: Exit{Lost: true, HostLost: true}}).is(Crashed)
	if l.d.Crashes != 0 || !l.d.Due.Equal(l.at) {
		t.Errorf("%d crashes, next try in %v", l.d.Crashes, l.d.Due.Sub(l.at))
	}
}

func TestStopWhileStarting(t *testing.T) {
	l := newLife(t, Plan{}).on(Event{Kind: Stop, Withdrawn: true}).is(Cancelling)
	l.on(Event{Kind: LaunchFailed, Detail: "cancelled"}).is(Gone)
	l = newLife(t, Plan{}).on(Event{Kind: Stop, Withdrawn: true}).on(Event{Kind: Launched}).is(Stopping) // too late to call off
	l.on(Event{Kind: Ended, Exit: Exit{Status: 143}}).is(Gone)
	one := Plan{Kind: manifold.KindOneOff}
	newLife(t, one).on(Event{Kind: Stop}).on(Event{Kind: LaunchFailed}).is(Complete)
}

func TestEventsOfOtherRunsAndTimersChangeNothing(t *testing.T) {
	l := newLife(t, Plan{Web: true}).on(Event{Kind: Launched}).is(Booting)
	l.on(Event{Kind: Ended, Run: "run-0"}).is(Booting)
	l.on(Event{Kind: Listening, Run: "run-0"}).is(Booting)
	d, effects := Step(l.d, Event{Kind: Due, Run: l.d.Run, Due: l.d.Due.Add(-time.Second), At: l.at})
	if d.State != Booting || len(effects) > 0 {
		t.Errorf("a timer that was replaced moved the dyno to %s", d.State)
	}
}

func TestShownCommand(t *testing.T) {
	for in, want := range map[string]string{
		"web -p $PORT":           "web -p 80",
		"web -p ${PORT} $PORT":   "web -p 80 80",
		"$PORT_X $PORTS $PORT.5": "$PORT_X $PORTS 80.5",
		"db $DATABASE_URL":       "db $DATABASE_URL", // may be secret
	} {
		if got := shownCommand(in, 80); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	if got := clip(strings.Repeat("ä", 6000), manifold.MaxLogLine); len(got) > manifold.MaxLogLine || !strings.HasSuffix(got, "ä…") {
		t.Errorf("a long line was clipped to %d bytes", len(got))
	}
}

func TestMemoryOverTheQuota(t *testing.T) {
	const quota = 512 << 20
	l := newLife(t, Plan{Web: true, Quota: quota})
	l.on(Event{Kind: Launched}).is(Booting)
	due := l.d.Due
	l.said = nil
	l.after(time.Second).on(Event{Kind: Sampled, Memory: quota}).says()
	l.on(Event{Kind: Sampled, Memory: 600 << 20}).is(Booting)
	if !l.d.Due.Equal(due) {
		t.Errorf("its boot timeout moved from %v to %v", due, l.d.Due)
	}
	l.on(Event{Kind: Listening}).is(Up)
	l.after(20 * time.Second).on(Event{Kind: Sampled, Memory: 1028 << 20}).is(Up)
	l.on(Event{Kind: Sampled, Memory: 1028 << 20, Run: "run-0"}) // of a run before
	l.on(Event{Kind: Ended, Exit: Exit{Status: 137, OOM: true, Memory: 3 * quota}}).is(Crashed)
	l.says(
		"Process running mem=600M(117.2%)",
		"Error R14 (Memory quota exceeded)",
		"State changed from starting to up",
		"Process running mem=1028M(200.8%)",
		"Error R14 (Memory quota exceeded)",
		"Process running mem=1536M(300.0%)",
		"Error R15 (Memory quota vastly exceeded)",
		"Stopping process with SIGKILL",
		"Process exited with status 137",
		"State changed from up to crashed",
	)
}

var attached = Plan{Kind: manifold.KindOneOff, Attached: true, Command: "bash"}

func TestLostClient(t *testing.T) {
	l := newLife(t, attached)
	l.adds("State changed from created to starting", "Awaiting client", "Starting process with command `bash`")
	l.on(Event{Kind: ClientLost}).is(Starting).adds() // there is none before it runs
	l.on(Event{Kind: Launched}).is(Up).adds("State changed from starting to up")
	l.after(time.Minute).on(Event{Kind: ClientLost}).is(Up).does(Hangup, SetDue).adds("Client connection closed. Sending SIGHUP to all processes")
	l.on(Event{Kind: ClientLost}).is(Up).does()
	l.after(5*time.Second).on(Event{Kind: Due}).does(Hangup, SetDue).adds()
	l.after(5*time.Second).on(Event{Kind: Due}).does(Hangup, SetDue).adds()
	l.after(5 * time.Second).on(Event{Kind: Due}).is(Up).does().adds("Error R16 (Detached) -> An attached process is not responding to SIGHUP after its external connection was closed.")
	l.after(time.Hour).on(Event{Kind: Due}).is(Up).does().adds()
	l.on(Event{Kind: Ended, Exit: Exit{Status: 0}}).is(Complete).adds("Process exited with status 0", "State changed from up to complete")

	l = newLife(t, attached).on(Event{Kind: Launched}).on(Event{Kind: ClientLost})
	l.on(Event{Kind: Ended, Exit: Exit{Status: 129}}).is(Complete)
	if r := l.d.Result; r.Cause != manifold.CauseSignal || r.Status != 129 {
		t.Errorf("result %+v", r)
	}
	l = newLife(t, attached).on(Event{Kind: Launched}).on(Event{Kind: ClientLost})
	l.on(Event{Kind: Stop, Withdrawn: true}).is(Stopping).does(Term, SetDue)

	l = newLife(t, Plan{Kind: manifold.KindOneOff}).on(Event{Kind: Launched})
	l.on(Event{Kind: ClientLost}).is(Up).does() // nobody was ever attached
}

func TestNoClient(t *testing.T) {
	l := newLife(t, attached)
	l.adds("State changed from created to starting", "Awaiting client", "Starting process with command `bash`")
	l.after(30 * time.Second).on(Event{Kind: LaunchFailed, NoClient: true, Detail: "it did not come"}).is(Complete)
	l.adds("Error R13 (Attach error) -> Failed to attach to process", "State changed from starting to complete")
	if l.d.Result.Cause != manifold.CauseR13 {
		t.Errorf("result %+v", l.d.Result)
	}
}

func TestCycled(t *testing.T) {
	for name, c := range map[string]struct {
		exit   Exit
		cause  manifold.Cause
		status int
	}{
		"heeds SIGTERM":      {Exit{Status: 143}, manifold.CauseCycled, 143},
		"ends by itself":     {Exit{Status: 0}, manifold.CauseCycled, 0},
		"outlives its grace": {Exit{Status: 137, Forced: true}, manifold.CauseR12, 137},
	} {
		l := newLife(t, Plan{})
		l.on(Event{Kind: Launched}).is(Up)
		l.said = nil
		l.on(Event{Kind: Stop, Withdrawn: true, Cycled: true}).is(Stopping).does(Term, SetDue)
		if want := []string{"Cycling", "Stopping all processes with SIGTERM"}; !slices.Equal(l.said, want) {
			t.Errorf("%s: it said %q, want %q", name, l.said, want)
		}
		l.on(Event{Kind: Stop, Withdrawn: true, Cycled: true}).is(Stopping)
		l.on(Event{Kind: Ended, Exit: c.exit}).is(Gone)
		if r := l.d.Result; r.Cause != c.cause || r.Status != c.status {
			t.Errorf("%s: the result is %+v", name, r)
		}
	}
}

// TestHealthCheck: a dyno that fails its check is restarted at once, and then
// no sooner than a crashed one would be; meanwhile it stays up.
func TestHealthCheck(t *testing.T) {
	l := newLife(t, Plan{Web: true, Health: "/health"}).on(Event{Kind: Launched}).is(Booting)
	l.on(Event{Kind: Listening}).is(Up).does(Check)
	l.said = nil
	sick := func(held bool) *life {
		return l.after(30 * time.Second).on(Event{Kind: Unhealthy, Detail: "status 503", Failing: l.at.Add(-30 * time.Second), Held: held})
	}
	again := func() {
		l.on(Event{Kind: Due, Run: l.at.String()}).is(Starting)
		l.on(Event{Kind: Launched}).on(Event{Kind: Listening}).is(Up)
		l.said = nil
	}
	sick(true).is(Up).does(Check).adds("Health check failed: status 503")
	sick(false).is(Ailing).does(Term, SetDue)
	l.on(Event{Kind: Unhealthy}).is(Ailing).does()
	l.after(time.Second).on(Event{Kind: Ended, Exit: Exit{Status: 143}}).is(Crashed).does(Remove, SetDue)
	l.adds("Health check failed: status 503", "Restarting", "Stopping all processes with SIGTERM", "Process exited with status 143", "State changed from up to crashed")
	if r := l.d.Result; r.Cause != manifold.CauseHealth || r.Status != 143 || r.Detail != "status 503" || !l.d.Due.Equal(l.at) {
		t.Errorf("result %+v, next try in %v", r, l.d.Due.Sub(l.at))
	}
	again()
	for l.at.Sub(l.d.UpAt) < 10*time.Minute-30*time.Second {
		sick(false).is(Up).does(Check)
	}
	sick(false).is(Ailing)
	l.after(45*time.Second).on(Event{Kind: Due}).is(Ailing).does(Kill, SetDue)
	l.said = nil
	l.on(Event{Kind: Ended, Exit: Exit{Lost: true}}).is(Crashed)
	if l.adds("Error R12 (Exit timeout) -> At least one process failed to exit within 30 seconds of SIGTERM", "Stopping remaining processes with SIGKILL",
		"Process exited with status 137", "State changed from up to crashed"); l.d.Result.Cause != manifold.CauseHealth || l.d.Crashes != 2 {
		t.Errorf("result %+v after %d", l.d.Result, l.d.Crashes)
	}
	again()
	l.after(time.Hour)
	sick(false).is(Ailing) // it was well for an hour
	l.on(Event{Kind: Stop, Withdrawn: true}).is(Stopping).does(Term, SetDue)
	l.on(Event{Kind: Ended, Exit: Exit{Status: 143}}).is(Gone)

	l = newLife(t, Plan{Web: true}).on(Event{Kind: Launched}).on(Event{Kind: Listening}).is(Up).does()
	l.on(Event{Kind: Unhealthy}).is(Up).does() // it never asked for it
}

// TestSuspend: the host slept eight hours. Timers stood still with it (they run
// on CLOCK_MONOTONIC, which does not count a suspend), so what a dyno was given
// is still left when the host wakes, and nothing is ended for the time of day.
func TestSuspend(t *testing.T) {
	const slept = 8 * time.Hour
	l := newLife(t, Plan{Web: true, Health: "/health"}).on(Event{Kind: Launched}).is(Booting)
	l.after(slept).on(Event{Kind: Sampled, Memory: 1}).is(Booting)
	l.on(Event{Kind: Listening}).is(Up)
	l.after(slept).on(Event{Kind: Sampled, Memory: 1}).is(Up)
	l.on(Event{Kind: Ended, Exit: Exit{Status: 1}}).is(Crashed)
	if l.d.Crashes != 1 || !l.d.Due.Equal(l.at) {
		t.Errorf("%d crashes, next try in %v", l.d.Crashes, l.d.Due.Sub(l.at))
	}
	l.after(slept).on(Event{Kind: Due, Run: "run-2"}).is(Starting).on(Event{Kind: Launched}).on(Event{Kind: Listening}).is(Up)
	l.on(Event{Kind: Stop, Withdrawn: true}).is(Stopping)
	l.after(slept).on(Event{Kind: Stop, Withdrawn: true}).is(Stopping).does(Term, SetDue)
	l.on(Event{Kind: Ended, Exit: Exit{Status: 143}}).is(Gone)
	if l.d.Result.Cause != manifold.CauseSignal {
		t.Errorf("result %+v", l.d.Result)
	}
}
