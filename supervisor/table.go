package supervisor

// Owner is the component that moves a dyno along an arrow.
type Owner string

// The owners.
const (
	Reconciler Owner = "reconciler"
	Driver     Owner = "driver"
	PID1       Owner = "pid1"
	Clock      Owner = "clock"
)

// OwnerOf says who sends an event.
func OwnerOf(k EventKind) Owner {
	switch k {
	case Want, Stop:
		return Reconciler
	case Ended:
		return PID1
	case Due:
		return Clock
	}
	return Driver
}

// arrow is one row of the table: in state From, on event On, and where When
// holds (nil always does), the dyno goes to To. The first row that fits is
// taken; where none does, nothing changes.
type arrow struct {
	From State
	On   EventKind
	When *guard
	To   State
	Then action
}

// guard tells rows apart that share a state and an event.
type guard struct {
	name string
	ok   func(Policy, *Dyno, Event) bool
}

var (
	isWeb     = &guard{"web", func(_ Policy, d *Dyno, _ Event) bool { return d.Plan.Web }}
	isOneOff  = &guard{"one-off", func(_ Policy, d *Dyno, _ Event) bool { return d.Plan.Kind == oneOff }}
	withdrawn = &guard{"withdrawn", func(_ Policy, _ *Dyno, e Event) bool { return e.Withdrawn }}
	// kept is a one-off that the host stopped by itself: it must not run
	// again, so it stays known.
	kept = &guard{"one-off still desired", func(_ Policy, d *Dyno, _ Event) bool { return d.Plan.Kind == oneOff && !d.Withdrawn }}
	// toCollect is a job that did its work.
	toCollect = &guard{"job, exit 0", func(_ Policy, d *Dyno, e Event) bool {
		x := e.Exit
		return d.Plan.Job && d.Plan.Kind == oneOff && x.Status == 0 && !x.Lost && !x.Expired
	}}
	// toTell is a sample that the app's log must know of.
	toTell       = &guard{"measured, or over its quota", func(_ Policy, d *Dyno, e Event) bool { return d.Plan.Metrics != "" || d.overQuota(e) }}
	neverHungUp  = &guard{"attached", func(_ Policy, d *Dyno, _ Event) bool { return d.Plan.Attached && d.Hangups == 0 }}
	hangingUp    = &guard{"hanging up", func(_ Policy, d *Dyno, _ Event) bool { return d.hangingUp() }}
	checked      = &guard{"checked", func(_ Policy, d *Dyno, _ Event) bool { return d.Plan.Health != "" }}
	toRestart    = &guard{"checked, time to restart", func(p Policy, d *Dyno, e Event) bool { return !e.Held && p.Restarts(*d, e) }}
	wasWithdrawn = &guard{"withdrawn before", func(_ Policy, d *Dyno, _ Event) bool { return d.Withdrawn }}
)

// table is a dyno's whole life.
//
//	            Want            Launched (web)          Listening
//	created ──────────▶ starting ──────────▶ booting ──────────▶ up
//	   │                │  │  ▲ └────────────────────────────────▲ │ Launched
//	   │   LaunchFailed │  │  │ Due            │ Due              │ Ended
//	   │                ▼  │  └──── crashed ◀──┴─ overdue ────────┤
//	   │            Stop   │           │         (R10)            │ Ended (job, exit 0)
//	   │                   ▼           │                          ▼
//	   │              cancelling       │     stopping ◀─ Stop   collecting ─▶ complete
//	   ▼   Stop            ▼           ▼         ▼ Ended                         ▼ Stop
//	 gone ◀────────────────┴───────────┴─────────┴───────────────────────────────┘
var table = []arrow{
	{Created, Want, nil, Starting, begin},
	{Created, Stop, nil, Gone, vanish},

	{Starting, Launched, isWeb, Booting, boot},
	{Starting, Launched, nil, Up, arrive},
	{Starting, LaunchFailed, isOneOff, Complete, failed},
	{Starting, LaunchFailed, nil, Crashed, failed},
	{Starting, Stop, nil, Cancelling, cancel},

	{Cancelling, Launched, nil, Stopping, stop},
	{Cancelling, LaunchFailed, kept, Complete, calledOff},
	{Cancelling, LaunchFailed, nil, Gone, vanish},
	{Cancelling, Stop, withdrawn, Cancelling, cancel},

	{Booting, Listening, nil, Up, arrive},
	{Booting, Due, nil, Overdue, overdue},
	{Booting, Sampled, toTell, Booting, tellBooting},
	{Booting, Ended, isOneOff, Complete, ended},
	{Booting, Ended, nil, Crashed, ended},
	{Booting, Stop, nil, Stopping, stop},

	{Overdue, Ended, wasWithdrawn, Gone, stopped},
	{Overdue, Ended, isOneOff, Complete, ended},
	{Overdue, Ended, nil, Crashed, ended},
	{Overdue, Due, nil, Overdue, kill},
	{Overdue, Stop, nil, Overdue, stopOverdue},

	{Up, Sampled, toTell, Up, tellUp},
	{Up, Unhealthy, toRestart, Ailing, restart},
	{Up, Unhealthy, checked, Up, bear},
	{Up, ClientLost, neverHungUp, Up, clientLost},
	{Up, Due, hangingUp, Up, hangUpAgain},
	{Up, Ended, toCollect, Collecting, collect},
	{Up, Ended, isOneOff, Complete, ended},
	{Up, Ended, nil, Crashed, ended},
	{Up, Stop, nil, Stopping, stop},

	{Ailing, Ended, nil, Crashed, ended},
	{Ailing, Due, nil, Ailing, force},
	{Ailing, Stop, nil, Stopping, stopAgain},

	{Stopping, Ended, kept, Complete, stopped},
	{Stopping, Ended, nil, Gone, stopped},
	{Stopping, Due, nil, Stopping, force},
	{Stopping, Stop, nil, Stopping, stopAgain},

	{Collecting, Collected, wasWithdrawn, Gone, vanish},
	{Collecting, Collected, nil, Complete, collected},
	{Collecting, Stop, nil, Collecting, cancel},

	{Crashed, Due, nil, Starting, begin},
	{Crashed, Stop, nil, Gone, vanish},

	{Complete, Stop, withdrawn, Gone, vanish},
}
