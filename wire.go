package manifold

import "time"

// What agent, router and coordinator say to each other: HTTP and JSON over
// mTLS, always dialled by the agent or router. Every message is a whole state,
// so each may be lost or repeated and the next one repairs it.
//
//	agent, router                                        coordinator
//	  POST /fleet/v1/join       JoinRequest ──────────▶  once, with a join token
//	                            ◀────────── JoinReply    certificate, CA
//	agent
//	  GET  /fleet/v1/desired    ◀══ Desired, Desired …   a JSON line at each change; an empty line every 5 s
//	  POST /fleet/v1/observed   Observation ──────────▶  at each change, and every 5 s
//	  POST /fleet/v1/logs       LogBatch ─────────────▶  2xx: the lines are safe; else send them again
//	  GET  /fleet/v1/images/{digest}                     an EROFS image; Range works
//	  GET  /fleet/v1/jobs/{assignment}/input             a job's standard input
//	  PUT  /fleet/v1/jobs/{assignment}/outputs/{name}    a job's output; X-Manifold-Digest says its SHA-256
//	  POST /fleet/v1/attach/{session}                    a client's terminal: becomes a stream of frames (attach.go)
//	router
//	  GET  /fleet/v1/routes     ◀══ RouteTable …         like desired
//	  POST /fleet/v1/routes/ack RouteAck ─────────────▶  after each table, when a withdrawn dyno has no more
//	                                                     requests open, and every 5 s
//	  POST /fleet/v1/logs       LogBatch ─────────────▶
//
// An error is answered as ErrorBody. Bodies are bounded by MaxWireBody, but
// for images, inputs and outputs, which are bounded by their own limits, and the
// values of a stream by MaxWireValue: a host is told all that it runs in one,
// and an app's config vars, 64 KB of them, may be six times as long in JSON.
const (
	MaxWireBody  = 16 << 20
	MaxWireValue = 256 << 20
)

// JoinRequest asks for a certificate. Token is what the coordinator printed;
// its part behind the dot is the CA's fingerprint, by which the caller knows
// the coordinator before it trusts it.
type JoinRequest struct {
	Token string `json:"token"`
	Role  string `json:"role"` // RoleAgent or RoleRouter
	Name  string `json:"name"` // the host's name, for people
	CSR   string `json:"csr"`  // PEM, PKCS #10
}

// The roles a certificate is made for, kept in its OrganizationalUnit.
const (
	RoleAgent  = "agent"
	RoleRouter = "router"
)

// JoinReply holds the certificate. Its CommonName is ID.
type JoinReply struct {
	ID      string `json:"id"` // host id (or router id) from now on
	Cluster string `json:"cluster"`
	Cert    string `json:"cert"` // PEM
	CA      string `json:"ca"`   // PEM
}

// ErrorBody is the Platform API's error form, used on every HTTP door we have.
type ErrorBody struct {
	ID      string `json:"id"`
	Message string `json:"message"`
	URL     string `json:"url,omitempty"`
}

// Desired is all that one host shall run. Cluster is drawn when a
// coordinator's store is first made: an agent that knows another cluster
// refuses it rather than stop everything. An assignment the host runs and
// Desired does not name is stopped.
type Desired struct {
	Cluster     string       `json:"cluster"`
	Revision    int64        `json:"revision"` // grows with every change
	Assignments []Assignment `json:"assignments"`
	Execs       []Exec       `json:"execs,omitempty"`
	// Cycling names assignments that are no longer desired for no other
	// reason than their age: others took their place.
	Cycling []string `json:"cycling,omitempty"`
}

// Kind says how an assignment lives.
type Kind string

const (
	// KindFormation is kept running: any exit is a crash and is tried again.
	KindFormation Kind = "formation"
	// KindOneOff runs once and is then complete.
	KindOneOff Kind = "one-off"
)

// Assignment is one dyno the coordinator wants on a host. It never changes
// after it was made: a restart or a release is a new assignment in the same
// slot. Written by the coordinator only.
type Assignment struct {
	ID          string            `json:"id"` // UUID
	App         string            `json:"app"`
	AppName     string            `json:"app_name"`
	Dyno        string            `json:"dyno"` // "web.1"
	Kind        Kind              `json:"kind"`
	Release     int               `json:"release,omitempty"`
	Description string            `json:"description,omitempty"` // of the release, for people
	Commit      string            `json:"commit,omitempty"`      // its slug was made of
	Layers      []Image           `json:"layers"`                // lowest last: slug, stack
	Command     string            `json:"command"`
	Env         map[string]string `json:"env,omitempty"` // config vars; secret
	Size        Size              `json:"size"`
	Web         bool              `json:"web,omitempty"`          // routed; up when it listens on $PORT
	BootTimeout time.Duration     `json:"boot_timeout,omitempty"` // for Web; R10
	Grace       time.Duration     `json:"grace"`                  // SIGTERM to SIGKILL
	TTL         time.Duration     `json:"ttl,omitempty"`          // of a one-off; 0 is for ever
	Backoff     Backoff           `json:"backoff,omitempty"`
	// CycleAt is when the coordinator means to replace the dyno for its age,
	// for people to see; zero where it does not. The agent does nothing at
	// that time.
	CycleAt        time.Time `json:"cycle_at,omitzero"`
	RuntimeMetrics bool      `json:"runtime_metrics,omitempty"` // memory and load into the app's log
	Job            *Job      `json:"job,omitempty"`
	Attach         *Attach   `json:"attach,omitempty"` // of a one-off; its session is named by ID
	CreatedAt      time.Time `json:"created_at"`
}

// Job is what makes a one-off a build: it reads its input from the
// coordinator as standard input, and when it exits 0 the agent takes the
// outputs from its writable layer and puts them to the coordinator.
type Job struct {
	Outputs []Output `json:"outputs"`
}

// Output is a path in the dyno to bring home. A directory becomes an EROFS
// image of its content with every file owned by DynoUID; a file is sent as it
// is. Nothing in it is trusted by the agent: links are not followed.
type Output struct {
	Name  string `json:"name"` // of the upload
	Path  string `json:"path"` // absolute, in the dyno
	Image bool   `json:"image"`
	Limit int64  `json:"limit"` // bytes of image or file
}

// DynoUID is the user and group id of the app inside every dyno; slug images
// are owned by it.
const DynoUID = 1000

// Observation is all that one host runs, written by its agent only.
type Observation struct {
	Host     string `json:"host"`
	Revision int64  `json:"revision"` // of the Desired last applied
	// Draining asks to be emptied: no new dynos, and another host's in the
	// place of those here, where one can take them.
	Draining bool   `json:"draining,omitempty"`
	Dynos    []Dyno `json:"dynos"`
}

// Dyno is one assignment as the agent sees it. Run changes with every try.
type Dyno struct {
	Assignment string    `json:"assignment"`
	Run        string    `json:"run"` // UUID, the dyno's hostname
	App        string    `json:"app"`
	Name       string    `json:"name"`
	State      State     `json:"state"`
	Result     *Result   `json:"result,omitempty"` // of the last run that ended
	Since      time.Time `json:"since"`            // of State
	Addr       string    `json:"addr,omitempty"`   // host:port a router can dial; web dynos only
	Crashes    int       `json:"crashes,omitempty"`
	NextTry    time.Time `json:"next_try,omitzero"`
	// Replace asks for another dyno in its place: somebody on the host wants
	// this one gone, as soon as it is up. Formation dynos only.
	Replace bool `json:"replace,omitempty"`
	// OutputSeq is the number of log lines the finished run wrote, so that
	// a reader knows when it has them all.
	OutputSeq uint64 `json:"output_seq,omitempty"`
}

// LogBatch carries log streams home. A stream is one writer's numbered lines:
// the coordinator keeps the highest number of each and drops what it has.
type LogBatch struct {
	Streams []LogStream `json:"streams"`
}

// LogStream is some lines of one stream, in order. A gap in the numbers is
// lines that were dropped at the source for want of room.
type LogStream struct {
	ID         string    `json:"id"` // run id + "/" + Source, or a router's id + "/" + app + "/" + when it began
	App        string    `json:"app"`
	Assignment string    `json:"assignment,omitempty"`
	Source     string    `json:"source"`  // SourceApp or SourceHeroku
	Process    string    `json:"process"` // "web.1", "router"
	Lines      []LogLine `json:"lines"`
}

// The sources of log lines, in Heroku's words.
const (
	SourceApp    = "app"
	SourceHeroku = "heroku"
)

// LogLine is one line without its newline, at most MaxLogLine bytes; longer
// ones are cut into several.
type LogLine struct {
	Seq  uint64    `json:"seq"` // from 1, without gaps at the writer
	Time time.Time `json:"time"`
	Text string    `json:"text"` // any bytes were made valid UTF-8
}

// MaxLogLine is where a line is cut, as Heroku does.
const MaxLogLine = 10_000

// RouteTable is all that a router needs. A router that loses its coordinator
// serves on from the last one it got, across its own restarts.
type RouteTable struct {
	Cluster  string  `json:"cluster"`
	Revision int64   `json:"revision"`
	Routes   []Route `json:"routes"`
}

// Route is one app's entry.
type Route struct {
	App         string    `json:"app"` // App.ID
	Name        string    `json:"name"`
	Hosts       []string  `json:"hosts"` // host names without port, lower case; "*.x" is a wildcard
	Maintenance bool      `json:"maintenance,omitempty"`
	Blank       bool      `json:"blank,omitempty"` // no code yet: H81
	WebQuantity int       `json:"web_quantity"`    // 0: H14
	Backends    []Backend `json:"backends"`        // up and not withdrawn
	Starting    int       `json:"starting"`        // web dynos on their way up; wait for them
}

// Backend is one web dyno a request may go to.
type Backend struct {
	Run  string `json:"run"`
	Dyno string `json:"dyno"` // "web.1"
	Addr string `json:"addr"`
}

// RouteAck says which table a router serves, and which dynos that are no
// longer in it still have requests open there.
type RouteAck struct {
	Revision int64          `json:"revision"`
	Draining map[string]int `json:"draining,omitempty"` // run → open requests
	// Failing are dynos in the table that did not answer: run → requests in a
	// row that ended in H12, H13, H19 or H21. Few in a row are not told.
	Failing map[string]int `json:"failing,omitempty"`
}
