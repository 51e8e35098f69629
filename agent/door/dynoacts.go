package door

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"manifold"
	"manifold/supervisor"
)

// Done is the answer to an act: what was done, and what happens next.
type Done struct {
	Dyno  string    `json:"dyno,omitempty"` // "hello:web.1"
	Run   string    `json:"run,omitempty"`
	Until time.Time `json:"until,omitzero"` // of a freeze
	Next  string    `json:"next"`           // a sentence for people
}

// Autopsy is what is known of a dead dyno that was kept. Config vars are
// named; their values are not kept.
type Autopsy struct {
	Run        string           `json:"run"`
	Assignment string           `json:"assignment"`
	App        string           `json:"app"`
	AppName    string           `json:"app_name"`
	Dyno       string           `json:"dyno"`
	Kind       manifold.Kind    `json:"kind"`
	Release    int              `json:"release,omitempty"`
	Command    string           `json:"command"`
	Size       string           `json:"size"`
	Config     []string         `json:"config,omitempty"`
	State      supervisor.State `json:"state"` // the dyno's next
	Result     *manifold.Result `json:"result,omitempty"`
	UpAt       time.Time        `json:"up_at,omitzero"`
	Crashes    int              `json:"crashes,omitempty"`
	KeptAt     time.Time        `json:"kept_at"`
	Dir        string           `json:"dir"`   // where it lies
	Bytes      int64            `json:"bytes"` // it takes on disk
}

// act answers a request about one dyno with what do says.
func (d *Door) act(w http.ResponseWriter, r *http.Request, do func(s Status) (Done, error)) error {
	s, err := d.one(r.PathValue("dyno"))
	if err != nil {
		return err
	}
	done, err := do(s)
	if err != nil {
		return err
	}
	done.Dyno, done.Run = s.AppName+":"+s.Name, s.Run
	return ok(w, done)
}

func (d *Door) drain(w http.ResponseWriter, r *http.Request) error {
	told, err := d.agent.Drain(r.Context(), true)
	if err != nil {
		return err
	}
	next := "no new dynos are placed here; each formation dyno leaves once its replacement is up on another host, and stays where no other host can take it; one-off dynos run to their end"
	if !told {
		next = "the coordinator is away: once it is back, " + next
	}
	return ok(w, Done{Next: next})
}

func (d *Door) undrain(w http.ResponseWriter, r *http.Request) error {
	told, err := d.agent.Drain(r.Context(), false)
	if err != nil {
		return err
	}
	next := "new dynos may be placed here again; those that left do not come back by themselves"
	if !told {
		next = "the coordinator is away: once it is back, " + next
	}
	return ok(w, Done{Next: next})
}

func (d *Door) restart(w http.ResponseWriter, r *http.Request) error {
	return d.act(w, r, func(s Status) (Done, error) {
		inPlace, err := d.agent.Restart(r.Context(), s.Assignment)
		switch {
		case err != nil:
			return Done{}, err
		case inPlace && s.State == manifold.StateCrashed:
			return Done{Next: "it is tried again at once"}, nil
		case inPlace:
			return Done{Next: "the coordinator is away: it is stopped here, and started again at once"}, nil
		}
		return Done{Next: "another one is started in its place; this one leaves when that is up"}, nil
	})
}

func (d *Door) stop(w http.ResponseWriter, r *http.Request) error {
	grace, err := duration(r, "grace", 0, time.Hour)
	if err != nil {
		return err
	}
	return d.act(w, r, func(s Status) (Done, error) {
		if s.State == manifold.StateComplete {
			return Done{}, refuse(http.StatusConflict, "ended", "%s has ended already", s.Name)
		}
		if err := d.agent.Stop(s.Assignment, grace); err != nil {
			return Done{}, err
		}
		if s.Kind == manifold.KindFormation {
			return Done{Next: "it gets SIGTERM now; its app still wants it, so it is started again at once (to have none: heroku ps:scale " + typeOf(s.Name) + "=0 -a " + s.AppName + ")"}, nil
		}
		return Done{Next: "it gets SIGTERM now, and is not started again"}, nil
	})
}

func typeOf(name string) string {
	typ, _, err := manifold.SplitDynoName(name)
	if err != nil {
		return name
	}
	return typ
}

// The limits of a freeze.
const (
	DefaultFreeze = 15 * time.Minute
	MaxFreeze     = 24 * time.Hour
)

func (d *Door) freeze(w http.ResponseWriter, r *http.Request) error {
	limit, err := duration(r, "limit", DefaultFreeze, MaxFreeze)
	if err != nil {
		return err
	}
	return d.act(w, r, func(s Status) (Done, error) {
		until, err := d.agent.Freeze(r.Context(), s.Assignment, limit)
		if err != nil {
			return Done{}, err
		}
		next := fmt.Sprintf("its processes stand still; it is thawed by itself at %s", until.Format("15:04:05"))
		if typeOf(s.Name) == "web" {
			next += "; routers send no new requests to it while the coordinator is there, those it has wait for the thaw, or for 30 seconds (H12)"
		}
		return Done{Until: until, Next: next}, nil
	})
}

func (d *Door) thaw(w http.ResponseWriter, r *http.Request) error {
	return d.act(w, r, func(s Status) (Done, error) {
		return Done{Next: "its processes go on"}, d.agent.Thaw(s.Assignment)
	})
}

func (d *Door) keep(w http.ResponseWriter, r *http.Request) error {
	on := r.URL.Query().Get("off") != "true"
	return d.act(w, r, func(s Status) (Done, error) {
		if err := d.agent.Keep(s.Assignment, on); err != nil {
			return Done{}, err
		}
		if !on {
			return Done{Next: "nothing of it is kept when it ends"}, nil
		}
		return Done{Next: "when this run ends, its filesystem, exit record and log stay on this host: manifold host autopsy"}, nil
	})
}

func (d *Door) autopsies(w http.ResponseWriter, _ *http.Request) error {
	list, err := d.agent.Autopsies()
	if err != nil {
		return err
	}
	return ok(w, list)
}

func (d *Door) dropAutopsy(w http.ResponseWriter, r *http.Request) error {
	run := r.PathValue("run")
	err := d.agent.DropAutopsy(run)
	if errors.Is(err, fs.ErrNotExist) {
		return refuse(http.StatusNotFound, "not_found", "nothing is kept of a run %.100q: manifold host autopsy lists what is", run)
	}
	if err != nil {
		return err
	}
	return ok(w, Done{Run: run, Next: "it is removed"})
}

// duration reads one from the query, above 0 and up to most.
func duration(r *http.Request, name string, normal, most time.Duration) (time.Duration, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return normal, nil
	}
	t, err := time.ParseDuration(text)
	if err != nil || t <= 0 || t > most {
		return 0, refuse(http.StatusBadRequest, "bad_request", "%s must be a duration such as 10m, above 0 and at most %s", name, most)
	}
	return t, nil
}
