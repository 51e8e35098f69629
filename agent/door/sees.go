package door

import (
	"context"
	"net/http"
	"strings"
	"time"

	"manifold"
	"manifold/agent/why"
	"manifold/isolation"
	"manifold/supervisor"
)

// Sees is what the door shows of the agent.
type Sees interface {
	// Alive is nil while the agent's loops make progress. It takes up to five
	// seconds to say otherwise.
	Alive(ctx context.Context) error
	Health() Health
	// Statuses are the dynos on this host, by app and name, without Use.
	Statuses() []Status
	// Use is what a dyno uses now; nil where it does not run.
	Use(assignment string) *Use
	// Inspect is everything about a dyno; nil where it is gone. It may take
	// some milliseconds.
	Inspect(assignment string) *Inspection
	// LogPlace is where the present or last run's lines are, if they are.
	LogPlace(assignment string) LogPlace
	// Ended returns up to most runs that keep says yes to, the last first.
	Ended(most int, keep func(why.Run) bool) ([]why.Run, error)
	// Change is what a release changed; nil if that is not known.
	Change(app string, release int) *why.Change
}

// Health is the agent's own state.
type Health struct {
	Status      string `json:"status"`
	Host        string `json:"host"`     // id; "" before the host joined
	Draining    bool   `json:"draining"` // it is to be emptied
	Dynos       int    `json:"dynos"`
	Revision    int64  `json:"revision"`     // of what is desired, as applied
	LogsDropped uint64 `json:"logs_dropped"` // runs whose last lines were given up
}

// Status is one dyno.
type Status struct {
	manifold.Dyno
	AppName   string           `json:"app_name"`
	Kind      manifold.Kind    `json:"kind"`
	Release   int              `json:"release,omitempty"`
	Size      string           `json:"size"`
	Quota     int64            `json:"quota"`      // bytes of RAM its size has
	Limit     int64            `json:"limit"`      // of RAM and swap together, at which it is killed
	Step      supervisor.State `json:"step"`       // finer than State
	Restarts  int              `json:"restarts"`   // of this assignment, on this host
	CreatedAt time.Time        `json:"created_at"` // of the assignment
	Began     time.Time        `json:"began,omitzero"`
	CycleAt   time.Time        `json:"cycle_at,omitzero"` // when it is to be replaced for its age
	// FrozenUntil is when a frozen dyno is thawed at the latest; zero: it is not frozen.
	FrozenUntil time.Time `json:"frozen_until,omitzero"`
	Use         *Use      `json:"use,omitempty"` // while it runs
}

// Use is what a dyno uses.
type Use struct {
	Memory     int64         `json:"memory"` // bytes that count against the quota: RAM without the page cache, and swap
	Swap       int64         `json:"swap"`   // of these
	Cache      int64         `json:"cache"`
	CPU        time.Duration `json:"cpu_ns"`      // since it began
	CPUPercent float64       `json:"cpu_percent"` // of one core, over the last seconds
	Processes  int           `json:"processes"`   // and threads
	// Shares of the last ten seconds in which something in it waited, in percent (PSI).
	CPUPressure    float64 `json:"cpu_pressure"`
	MemoryPressure float64 `json:"memory_pressure"`
	IOPressure     float64 `json:"io_pressure"`
}

// Inspection is everything about a dyno.
type Inspection struct {
	Status
	Assignment Assigned              `json:"assigned"`
	Record     supervisor.Dyno       `json:"record"`
	Box        *isolation.Inspection `json:"box,omitempty"` // nil: it has none now
	Samples    []why.Sample          `json:"samples,omitempty"`
	Logs       LogPlace              `json:"logs"`
}

// Assigned is an assignment without its secrets: of config vars the names.
type Assigned struct {
	ID          string           `json:"id"`
	App         string           `json:"app"`
	Kind        manifold.Kind    `json:"kind"`
	Release     int              `json:"release,omitempty"`
	Description string           `json:"description,omitempty"`
	Commit      string           `json:"commit,omitempty"`
	Command     string           `json:"command"`
	ConfigVars  []string         `json:"config_vars"`
	Layers      []manifold.Image `json:"layers"`
	Size        manifold.Size    `json:"size"`
	Web         bool             `json:"web,omitempty"`
	BootTimeout time.Duration    `json:"boot_timeout_ns,omitempty"`
	HealthCheck string           `json:"health_check,omitempty"` // path the app wants to be asked at
	Grace       time.Duration    `json:"grace_ns"`
	TTL         time.Duration    `json:"ttl_ns,omitempty"`
	Backoff     manifold.Backoff `json:"backoff,omitempty"`
	Job         bool             `json:"job,omitempty"`
	Attached    bool             `json:"attached,omitempty"`
	CreatedAt   time.Time        `json:"created_at"`
}

// Is says whether the dyno goes by ref: a name, an app and a name, an
// assignment or a run.
func (s Status) Is(ref string) bool {
	app, name, ok := strings.Cut(ref, ":")
	if ok {
		return s.AppName == app && s.Name == name
	}
	return ref != "" && (s.Name == ref || s.Assignment == ref || s.Run == ref)
}

func (d *Door) sees(handle func(pattern string, h handler)) {
	handle("GET /healthz", d.health)
	handle("GET /v1/ps", d.ps)
	handle("GET /v1/dynos/{dyno}", d.inspect)
	handle("GET /v1/dynos/{dyno}/why", d.why)
	handle("GET /v1/dynos/{dyno}/logs", d.logs)
	handle("GET /v1/events", d.events)
}

func (d *Door) health(w http.ResponseWriter, r *http.Request) error {
	if err := d.agent.Alive(r.Context()); err != nil {
		return refuse(http.StatusServiceUnavailable, "unhealthy", "%v", err)
	}
	return ok(w, d.agent.Health())
}

func (d *Door) ps(w http.ResponseWriter, _ *http.Request) error { return ok(w, d.statuses()) }

// statuses are the dynos with what they use.
func (d *Door) statuses() []Status {
	list := d.agent.Statuses()
	for i := range list {
		list[i].Use = d.agent.Use(list[i].Assignment)
	}
	return list
}

func (d *Door) inspect(w http.ResponseWriter, r *http.Request) error {
	found, err := d.find(r.PathValue("dyno"))
	if err != nil {
		return err
	}
	list := []Inspection{}
	for _, s := range found {
		if i := d.agent.Inspect(s.Assignment); i != nil {
			i.Use = d.agent.Use(s.Assignment)
			list = append(list, *i)
		}
	}
	return ok(w, list)
}

// find returns the dynos that go by ref, at least one.
func (d *Door) find(ref string) ([]Status, error) {
	list := []Status{}
	for _, s := range d.agent.Statuses() {
		if s.Is(ref) {
			list = append(list, s)
		}
	}
	if len(list) == 0 {
		return nil, refuse(http.StatusNotFound, "not_found", "no dyno on this host goes by %.100q: manifold host ps lists them", ref)
	}
	return list, nil
}

// one returns the dyno that goes by ref: what acts must not guess.
func (d *Door) one(ref string) (Status, error) {
	list, err := d.find(ref)
	if err != nil {
		return Status{}, err
	}
	if len(list) > 1 {
		var names []string
		for _, s := range list {
			names = append(names, s.AppName+":"+s.Name+" (run "+s.Run+")")
		}
		return Status{}, refuse(http.StatusConflict, "ambiguous", "%d dynos go by %.100q; name one: %s", len(list), ref, strings.Join(names, ", "))
	}
	return list[0], nil
}
