package supervisor

import (
	"net/netip"
	"time"

	"manifold"
)

// State is where a dyno stands. It is finer than what the API shows: see
// Public.
type State string

// The states. The table in table.go draws the arrows between them.
const (
	Created    State = "created"    // known, nothing done yet
	Starting   State = "starting"   // images, box, process on their way
	Cancelling State = "cancelling" // stop asked while Starting: what is under way is called off
	Booting    State = "booting"    // a web dyno's process runs, does not listen yet
	Overdue    State = "overdue"    // did not listen in time (R10): SIGKILL sent
	Up         State = "up"
	Ailing     State = "ailing"     // failed its health check: SIGTERM sent, tried again at once
	Stopping   State = "stopping"   // SIGTERM sent
	Collecting State = "collecting" // a job exited 0: its outputs on their way home
	Crashed    State = "crashed"    // waits for its next try
	Complete   State = "complete"   // a one-off that ended; waits to be withdrawn
	Gone       State = "gone"       // nothing left to do or to keep
)

// Public is the state in the Platform API's words. Gone has none: a dyno
// that is gone is not shown.
func (s State) Public() manifold.State {
	switch s {
	case Created, Starting, Booting, Overdue:
		return manifold.StateStarting
	case Up, Collecting:
		return manifold.StateUp
	case Cancelling, Stopping, Ailing:
		return manifold.StateStopping
	case Crashed:
		return manifold.StateCrashed
	case Complete:
		return manifold.StateComplete
	}
	return ""
}

// Plan is what an assignment says about a dyno's life. It never changes.
type Plan struct {
	Kind        manifold.Kind
	Web         bool // up when it listens on its port, else when it runs
	Job         bool // has outputs to bring home; says nothing in the app's log
	Attached    bool // a client's terminal or pipes are its standard streams
	Command     string
	BootTimeout time.Duration // Web only; 0 is DefaultBootTimeout
	Grace       time.Duration // SIGTERM to SIGKILL; 0 is DefaultGrace
	Backoff     manifold.Backoff
	Quota       int64 // bytes of memory, past which the log says R14
	// Health is the path at which a web dyno of a formation says that it works;
	// "" where the app does not want to be asked.
	Health string
	// Metrics begins the lines of memory and load in the app's log; "" where
	// it does not want them.
	Metrics string
}

// What an assignment gets that does not say.
const (
	DefaultBootTimeout = 60 * time.Second
	DefaultGrace       = 30 * time.Second
)

// PlanOf reads the plan out of an assignment.
func PlanOf(a manifold.Assignment) Plan {
	p := Plan{
		Kind: a.Kind, Web: a.Web, Job: a.Job != nil, Attached: a.Attach != nil, Command: a.Command,
		BootTimeout: a.BootTimeout, Grace: a.Grace, Backoff: a.Backoff,
		Quota: a.Size.Memory,
	}
	if a.Web && a.Kind == manifold.KindFormation {
		p.Health, _ = manifold.ParseHealthCheck(a.Env[manifold.HealthCheckVar]) // a bad one was refused when it was set
	}
	if a.RuntimeMetrics {
		p.Metrics = metricsPrefix(a)
	}
	if p.BootTimeout <= 0 {
		p.BootTimeout = DefaultBootTimeout
	}
	if p.Grace <= 0 {
		p.Grace = DefaultGrace
	}
	return p
}

// Dyno is all that Step knows of one assignment. The agent keeps it on disk;
// Plan is read from the assignment again each time.
type Dyno struct {
	Plan    Plan             `json:"-"`
	State   State            `json:"state"`
	Since   time.Time        `json:"since"`             // of State's public form
	Run     string           `json:"run,omitempty"`     // of the present or last try
	Port    int              `json:"port,omitempty"`    // $PORT of every run
	Addr    netip.Addr       `json:"addr,omitzero"`     // of the last box; written by who launches, the next try asks for it again
	Said    uint64           `json:"said,omitempty"`    // log lines said of Run
	Crashes int              `json:"crashes,omitempty"` // since the last good run
	Due     time.Time        `json:"due,omitzero"`      // of the dyno's timer; in Crashed the next try
	Grace   time.Duration    `json:"grace,omitempty"`   // of the stop under way
	Forced  bool             `json:"forced,omitempty"`  // the agent itself sent SIGKILL after Grace
	UpAt    time.Time        `json:"up_at,omitzero"`    // of Run
	Result  *manifold.Result `json:"result,omitempty"`  // of the last run that ended
	Lines   uint64           `json:"lines,omitempty"`   // log lines that run wrote
	// Hangups is how many times it was sent SIGHUP since its client was lost,
	// and one more when that was given up (R16).
	Hangups int `json:"hangups,omitempty"`
	// Ill says how Run failed its health check, once that cost it its life.
	Ill string `json:"ill,omitempty"`
	// Withdrawn is set when the dyno is no longer desired; else a stop is
	// the host's own, and a one-off stays known as complete.
	Withdrawn bool `json:"withdrawn,omitempty"`
	Cycled    bool `json:"cycled,omitempty"` // Withdrawn for its age
}

// New is a dyno nothing was done for yet.
func New(p Plan, at time.Time) Dyno { return Dyno{Plan: p, State: Created, Since: at} }

// EventKind names what happened.
type EventKind string

// The events. Each has one owner.
const (
	Want         EventKind = "want"         // it is desired: begin the run in Run, with Port
	Stop         EventKind = "stop"         // it shall end; Withdrawn, Grace, Cycled
	Launched     EventKind = "launched"     // its process runs
	LaunchFailed EventKind = "launchfailed" // the box could not be built; nothing of it is left; Detail
	Listening    EventKind = "listening"    // on $PORT, and not on loopback only
	Collected    EventKind = "collected"    // outputs are home, or Detail says why not
	Sampled      EventKind = "sampled"      // its memory was looked at; Memory, Sample
	Unhealthy    EventKind = "unhealthy"    // it failed its health check so many times in a row; Detail, Failing, Held
	ClientLost   EventKind = "clientlost"   // whoever was attached to it is gone
	Ended        EventKind = "ended"        // no process of Run is left; Exit, Lost, HostLost
	Due          EventKind = "due"          // the timer went off; Due, and Run and Port for a new try
)

// Event is something that happened to a run, with all that Step needs to know
// about the world at that moment.
type Event struct {
	Kind EventKind
	At   time.Time
	Run  string // the run it happened to; of Want and of Due while Crashed, the new one
	Port int    // with a new run: its $PORT
	// Due is the time the timer was set for, by which one that was replaced
	// meanwhile is known: the clock may have been stepped. Due only.
	Due time.Time
	// Exit is how the run ended. Ended only.
	Exit Exit
	// Detail is why something failed, for people. LaunchFailed, Collected, Unhealthy.
	Detail string
	// Checksum says that an image was not what its digest says. LaunchFailed.
	Checksum bool
	// NoClient says that nobody came to attach to it. LaunchFailed.
	NoClient bool
	// Memory is the memory and swap the run needs, in bytes. Sampled only.
	Memory int64
	// Sample is for the log of an app that wants it. Sampled only.
	Sample Sample
	// Failing is when the checks that failed in a row began. Unhealthy only.
	Failing time.Time
	// Held says that now is no time for a restart, since others of the app are
	// not up. Unhealthy only.
	Held bool
	// Withdrawn and Grace belong to Stop. Grace 0 is the plan's own; another
	// one is enforced by the agent, since PID 1 knows the plan's only.
	Withdrawn bool
	Grace     time.Duration
	// Cycled says that Withdrawn has no other reason than the dyno's age.
	Cycled bool
	// Jitter is drawn from [0, 1) by the sender. Ended, LaunchFailed.
	Jitter float64
}

// Exit is what is known of an ended run.
type Exit struct {
	Status   int       // exit code or 128 + signal
	OOM      bool      // something in it was killed for its memory
	Forced   bool      // outlived its grace, killed
	Expired  bool      // its time to live was up
	Lost     bool      // left no exit record
	HostLost bool      // Lost because the host went down: not the app's fault
	Memory   int64     // OOM: bytes of RAM and swap it held then; 0: not known
	At       time.Time // zero: when the event happened
	Lines    uint64
}

// Verb names an effect.
type Verb string

// The effects. Carrying one out twice is the same as once.
const (
	Launch  Verb = "launch"  // fetch images and input, build the box, start it; ends in Launched or LaunchFailed
	Cancel  Verb = "cancel"  // call off a Launch or Collect under way; it still ends in its event
	Probe   Verb = "probe"   // look for a listener on $PORT; ends in Listening
	Check   Verb = "check"   // ask the run at its health check's path from time to time; leads to Unhealthy
	SetDue  Verb = "setdue"  // set the dyno's timer to At, in place of any other
	Term    Verb = "term"    // have PID 1 stop the run: SIGTERM, grace, SIGKILL
	Kill    Verb = "kill"    // SIGKILL to all of the run
	Hangup  Verb = "hangup"  // SIGHUP to all of the run
	Collect Verb = "collect" // bring the outputs home; ends in Collected
	Remove  Verb = "remove"  // take the run's box away, keep its log until it is shipped
	Forget  Verb = "forget"  // delete the dyno's record
	Say     Verb = "say"     // line number Seq of the run's platform log
)

// Effect is something to be done, as data: it is recorded before it is done.
type Effect struct {
	Do  Verb      `json:"do"`
	Run string    `json:"run,omitempty"`
	At  time.Time `json:"at,omitzero"` // SetDue, Say
	// In is how far At was away when it was set. SetDue: a clock that was set
	// back meanwhile must not make it further.
	In   time.Duration `json:"in,omitempty"`
	Seq  uint64        `json:"seq,omitempty"`  // Say: from 1 in each run
	Text string        `json:"text,omitempty"` // Say
}
