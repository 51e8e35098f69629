package door

import (
	"context"
	"net/http"
	"strings"
	"time"

	"manifold"
	"manifold/supervisor"
)

// Sees is what the door shows of the agent.
type Sees interface {
	// Alive is nil while the agent's loops make progress. It takes up to five
	// seconds to say otherwise.
	Alive(ctx context.Context) error
	Health() Health
	// Statuses are the dynos on this host, by app and name.
	Statuses() []Status
}

// Health is the agent's own state.
type Health struct {
	Status      string `json:"status"`
	Host        string `json:"host"` // id; "" before the host joined
	Dynos       int    `json:"dynos"`
	Revision    int64  `json:"revision"`     // of what is desired, as applied
	LogsDropped uint64 `json:"logs_dropped"` // runs whose last lines were given up
}

// Status is one dyno.
type Status struct {
	manifold.Dyno
	AppName string           `json:"app_name"`
	Kind    manifold.Kind    `json:"kind"`
	Release int              `json:"release,omitempty"`
	Size    string           `json:"size"`
	Step    supervisor.State `json:"step"` // finer than State
	// FrozenUntil is when a frozen dyno is thawed at the latest; zero: it is not frozen.
	FrozenUntil time.Time `json:"frozen_until,omitzero"`
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
	handle("GET /v1/dynos/{dyno}", d.dynos)
}

func (d *Door) health(w http.ResponseWriter, r *http.Request) error {
	if err := d.agent.Alive(r.Context()); err != nil {
		return refuse(http.StatusServiceUnavailable, "unhealthy", "%v", err)
	}
	return ok(w, d.agent.Health())
}

func (d *Door) ps(w http.ResponseWriter, _ *http.Request) error {
	return ok(w, d.agent.Statuses())
}

func (d *Door) dynos(w http.ResponseWriter, r *http.Request) error {
	list, err := d.find(r.PathValue("dyno"))
	if err != nil {
		return err
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
