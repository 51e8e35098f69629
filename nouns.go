package manifold

import "time"

// App is one user's application. Its name may change, its ID never does.
type App struct {
	ID          string   `json:"id"` // UUID
	Name        string   `json:"name"`
	Owner       string   `json:"owner"` // User.ID
	Stack       string   `json:"stack"` // the current release's stack
	BuildStack  string   `json:"build_stack"`
	Maintenance bool     `json:"maintenance,omitempty"`
	Buildpacks  []string `json:"buildpacks,omitempty"` // URLs or local paths; empty: detect
	// Features holds what the owner turned on or off; see App.Feature.
	Features   map[string]bool `json:"features,omitempty"`
	CreatedAt  time.Time       `json:"created_at"`
	UpdatedAt  time.Time       `json:"updated_at"`
	ReleasedAt time.Time       `json:"released_at,omitzero"` // last release with code

	Collaborators []Collaborator `json:"collaborators,omitempty"` // beside the owner
	Domains       []Domain       `json:"domains,omitempty"`       // beside <name>.<domain of the platform>
}

// Backoff names the way a crashed dyno is brought back.
type Backoff string

const (
	// BackoffClassic restarts at once after the first crash, then every ten
	// minutes (the policy of 2012).
	BackoffClassic Backoff = "classic"
	// BackoffProgressive waits up to 0, 20, 40, 60, 180, then 320 minutes.
	BackoffProgressive Backoff = "progressive"
)

// User owns apps and makes releases.
type User struct {
	ID        string    `json:"id"`
	Email     string    `json:"email"`
	CreatedAt time.Time `json:"created_at"`
}

// Release is slug plus config vars, append-only and numbered from 1 per app.
type Release struct {
	ID          string            `json:"id"`
	App         string            `json:"app"` // App.ID
	Version     int               `json:"version"`
	Description string            `json:"description"`
	User        string            `json:"user"` // email of who made it, kept as it was then
	Slug        string            `json:"slug,omitempty"`
	Config      map[string]string `json:"config,omitempty"`
	Status      string            `json:"status"`           // ReleaseSucceeded, ReleasePending, ReleaseFailed
	Output      string            `json:"output,omitempty"` // secret name of what its release command printed
	CreatedAt   time.Time         `json:"created_at"`
}

// TypeRelease is the process type that makes a release phase: its command runs
// once, as a one-off dyno, before a release of its slug serves.
const TypeRelease = "release"

// A release's status in the Platform API's words. One with a release phase is
// pending until the command has ended; every other one succeeded at once.
const (
	ReleaseSucceeded = "succeeded"
	ReleasePending   = "pending"
	ReleaseFailed    = "failed"
)

// Slug is what a build made: an EROFS image holding ./app, and what the
// Procfile said. The image is named by its digest and never changes.
type Slug struct {
	ID           string            `json:"id"`
	App          string            `json:"app"`
	Image        Image             `json:"image"`
	Stack        string            `json:"stack"`
	Commit       string            `json:"commit"`
	Language     string            `json:"language"` // what bin/detect printed
	ProcessTypes map[string]string `json:"process_types"`
	CreatedAt    time.Time         `json:"created_at"`
}

// Image names an EROFS image by "sha256:" and 64 hex digits.
type Image struct {
	Digest string `json:"digest"`
	Bytes  int64  `json:"bytes"`
}

// Formation is how many dynos of a type an app wants, and of what size.
type Formation struct {
	ID       string `json:"id"`
	App      string `json:"app"`
	Type     string `json:"type"`
	Quantity int    `json:"quantity"`
	Size     string `json:"size"` // Size.Name
	// CreatedAt and UpdatedAt are shown, nothing depends on them.
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// Host is a machine that runs dynos.
type Host struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	JoinedAt time.Time `json:"joined_at"`
}

// State is where a dyno stands. Result says how it ended; the two are apart.
type State string

// The states, in the Platform API's words where it has one.
const (
	StateStarting State = "starting" // image, box, process; a web dyno until it listens on $PORT
	StateUp       State = "up"
	StateStopping State = "stopping" // SIGTERM sent; the API shows it as up
	StateCrashed  State = "crashed"  // waits for its next try
	StateComplete State = "complete" // a one-off or build that ended; never runs again
)

// Shown is the state in the Platform API's words, which know no stopping and
// nothing before starting.
func (s State) Shown() State {
	switch s {
	case "":
		return StateStarting
	case StateStopping:
		return StateUp
	}
	return s
}

// Cause names what ended a run.
type Cause string

// The causes.
const (
	CauseExit   Cause = "exit"   // the process exited; Status holds its code
	CauseSignal Cause = "signal" // killed; Status holds 128+signal
	CauseOOM    Cause = "oom"    // R15
	CauseBoot   Cause = "R10"    // did not listen on $PORT in time
	CauseR12    Cause = "R12"    // stopped, did not exit in time
	CauseR13    Cause = "R13"    // no client came to attach to it; it was not started
	CauseTTL    Cause = "ttl"    // a one-off's or build's time was up
	CauseLaunch Cause = "launch" // the box could not be built; Detail says why
	CauseOutput Cause = "output" // a job exited 0, but an output could not be brought home; Detail says why
	CauseCycled Cause = "cycled" // stopped for its age; Status holds how it exited
	CauseHealth Cause = "health" // failed its health check; Detail says how, Status how it exited when told to stop
	CauseLost   Cause = "lost"   // ended without an exit record (host died, PID 1 killed)
)

// Result says how a run ended. Status follows the shell: exit code, or 128
// plus the signal's number.
type Result struct {
	Cause  Cause     `json:"cause"`
	Status int       `json:"status"`
	Detail string    `json:"detail,omitempty"`
	At     time.Time `json:"at"`
}
