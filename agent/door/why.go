package door

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"manifold/agent/why"
)

// Why is what can be said of a dyno's last end.
type Why struct {
	Dyno    string      `json:"dyno"` // "app:web.1"
	Verdict why.Verdict `json:"verdict"`
	Run     *why.Run    `json:"run,omitempty"`    // the evidence; nil: no run of it ended
	Change  *why.Change `json:"change,omitempty"` // what its release changed
	Now     *Status     `json:"now,omitempty"`    // nil: it is gone
	Earlier []Earlier   `json:"earlier,omitempty"`
}

// Earlier is an end before the last one.
type Earlier struct {
	At    time.Time `json:"at"`
	Run   string    `json:"run"`
	First string    `json:"first"`
}

const maxEarlier = 5

// why answers why a dyno ended last, also one that is gone.
func (d *Door) why(w http.ResponseWriter, r *http.Request) error {
	ref := r.PathValue("dyno")
	var now []Status
	for _, s := range d.agent.Statuses() {
		if s.Is(ref) {
			now = append(now, s)
		}
	}
	runs, err := d.agent.Ended(100, func(run why.Run) bool { return goesBy(run, ref) })
	if err != nil {
		return err
	}
	if err := oneDyno(ref, now, runs); err != nil {
		return err
	}
	answer := Why{Now: newest(now)}
	if len(runs) > 0 {
		answer.Run = &runs[0]
		answer.Dyno = runs[0].AppName + ":" + runs[0].Dyno
		answer.Verdict = why.Explain(runs[0])
		answer.Change = d.agent.Change(runs[0].App, runs[0].Release)
		for _, run := range runs[1:min(len(runs), maxEarlier+1)] {
			answer.Earlier = append(answer.Earlier, Earlier{run.Result.At, run.Run, why.Explain(run).First})
		}
	} else {
		s := answer.Now
		answer.Dyno, answer.Change = s.AppName+":"+s.Name, d.agent.Change(s.App, s.Release)
		answer.Verdict = why.Verdict{
			Code:  "alive",
			First: fmt.Sprintf("nothing has ended it on this host: it is %s since %s", s.Step, s.Since.UTC().Format(time.RFC3339)),
		}
	}
	return ok(w, answer)
}

// oneDyno refuses a name that more than one app's dyno goes by, or none.
func oneDyno(ref string, now []Status, runs []why.Run) error {
	var names []string
	for _, s := range now {
		names = append(names, s.AppName+":"+s.Name)
	}
	for _, r := range runs {
		names = append(names, r.AppName+":"+r.Dyno)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	switch {
	case len(names) == 0:
		return refuse(http.StatusNotFound, "not_found", "no dyno on this host goes by %.100q, and none that ended lately: manifold host ps lists those there are", ref)
	case len(names) > 1:
		return refuse(http.StatusConflict, "ambiguous", "%d dynos go by %.100q; name one: %s", len(names), ref, strings.Join(names[:min(len(names), 20)], ", "))
	}
	return nil
}
