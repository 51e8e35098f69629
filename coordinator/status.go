package coordinator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// statusPath is what `heroku status` asks. Where it gets no answer it goes on
// to ask a public service about somebody else's platform.
const statusPath = "/api/v4/current-status"

type systemStatus struct {
	System string `json:"system"`
	Status string `json:"status"` // green or red
}

// incident is a fault that lasts, as the CLI prints it.
type incident struct {
	Title     string           `json:"title"`
	CreatedAt time.Time        `json:"created_at"`
	FullURL   string           `json:"full_url"`
	Updates   []incidentUpdate `json:"updates"`
}

type incidentUpdate struct {
	Type      string    `json:"update_type"`
	Contents  string    `json:"contents"`
	UpdatedAt time.Time `json:"updated_at"`
}

// status says whether apps run and can be changed. Everyone may ask, so it
// says no more than that.
func (r *rooms) status(w http.ResponseWriter, req *http.Request) {
	apps, tools := systemStatus{"Apps", "red"}, systemStatus{"Tools", "green"}
	incidents := []incident{}
	red := func(title, todo string) {
		now := time.Now().UTC()
		incidents = append(incidents, incident{Title: title, CreatedAt: now, Updates: []incidentUpdate{{"issue", todo, now}}})
	}
	for _, h := range r.fleet.Hosts() {
		if h.Live {
			apps.Status = "green"
		}
	}
	if apps.Status == "red" {
		red("No host is connected", "Nothing can be started. Dynos that ran go on. The operator sees why in the agent's log.")
	}
	if _, err := r.hosts(req.Context()); err != nil {
		tools.Status = "red"
		red("The store does not answer", "Nothing can be changed or pushed. The operator sees why in the coordinator's log.")
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{ // its reader may be gone
		"status": []systemStatus{apps, tools}, "incidents": incidents, "scheduled": []string{},
	})
}

// health answers 200 while the store does.
func (r *rooms) health(w http.ResponseWriter, req *http.Request) {
	if _, err := r.hosts(req.Context()); err != nil {
		r.cfg.Log.Error("not healthy: the store does not answer", "err", err)
		http.Error(w, "the store does not answer", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "ok")
}
