package agent

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"manifold"
	"manifold/agent/door"
	"manifold/agent/why"
	"manifold/supervisor"
)

// What the door shows of the agent.

// Health says how the agent is.
func (a *agent) Health() door.Health {
	dropped := a.ship.logsDropped()
	a.mu.Lock()
	defer a.mu.Unlock()
	return door.Health{Status: "ok", Host: a.id.ID, Draining: a.draining, Dynos: len(a.drivers), Revision: a.applied, LogsDropped: dropped}
}

// Alive takes the lock that every loop needs and looks at their pulse: one
// that hangs shows.
func (a *agent) Alive(ctx context.Context) error {
	got := make(chan string, 1)
	go func() { got <- a.identity().ID }() // an agent that never gets the lock is killed by its watchdog
	select {
	case <-got:
		return a.pulse.check()
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(5 * time.Second):
		return errors.New("the agent's loops make no progress")
	}
}

// Statuses are the dynos on this host.
func (a *agent) Statuses() []door.Status {
	list := []door.Status{}
	for _, dyno := range a.observation().Dynos {
		if d := a.driver(dyno.Assignment); d != nil {
			list = append(list, d.status(dyno))
		}
	}
	return list
}

func (d *driver) status(dyno manifold.Dyno) door.Status {
	as := d.assignment
	rec, _ := d.seen()
	return door.Status{
		Dyno: dyno, AppName: as.AppName, Kind: as.Kind, Release: as.Release, Size: as.Size.Name,
		Quota: as.Size.Memory, Limit: as.Size.MemorySwap, Step: rec.Dyno.State, Restarts: max(rec.Runs-1, 0),
		CreatedAt: as.CreatedAt, Began: rec.Began, CycleAt: as.CycleAt, FrozenUntil: d.frozen(),
	}
}

// seen is the driver's record as it was last shown, and where the app's lines
// of that run are.
func (d *driver) seen() (rec record, logs string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shown, d.logs
}

// Use is what a dyno uses now.
func (a *agent) Use(assignment string) *door.Use {
	d := a.driver(assignment)
	if d == nil {
		return nil
	}
	b, _, _ := d.held()
	if b == nil {
		return nil
	}
	now, err := b.Usage()
	if err != nil {
		return nil // it is just ending
	}
	use := &door.Use{
		Memory: now.Needed(), Swap: now.Swap, Cache: now.Cache, CPU: now.CPU, Processes: now.Processes,
		CPUPressure: now.CPUPressure, MemoryPressure: now.MemoryPressure, IOPressure: now.IOPressure,
	}
	rec, _ := d.seen()
	since, cpu := rec.Began, time.Duration(0)
	if trail, _ := d.traces.get(); len(trail) > 0 {
		last := trail[len(trail)-1]
		since, cpu = last.At, last.CPU
	}
	if passed := time.Since(since); passed > 0 && now.CPU >= cpu {
		use.CPUPercent = 100 * float64(now.CPU-cpu) / float64(passed)
	}
	return use
}

// Inspect is everything about a dyno but its secrets.
func (a *agent) Inspect(assignment string) *door.Inspection {
	d := a.driver(assignment)
	if d == nil {
		return nil
	}
	view, _ := d.look()
	rec, _ := d.seen()
	i := &door.Inspection{Status: d.status(view), Assignment: assigned(d.assignment), Record: rec.Dyno, Logs: a.LogPlace(assignment)}
	i.Samples, _ = d.traces.get()
	if b, _, _ := d.held(); b != nil {
		look := b.Inspect()
		for n := range look.Processes {
			look.Processes[n].Args = withoutValues(look.Processes[n].Args, d.assignment.Env)
		}
		i.Box = &look
	}
	return i
}

// assigned is an assignment for people.
func assigned(as manifold.Assignment) door.Assigned {
	return door.Assigned{
		ID: as.ID, App: as.App, Kind: as.Kind, Release: as.Release, Description: as.Description, Commit: as.Commit,
		Command: as.Command, ConfigVars: slices.Sorted(maps.Keys(as.Env)), Layers: as.Layers, Size: as.Size, Web: as.Web,
		BootTimeout: as.BootTimeout, HealthCheck: supervisor.PlanOf(as).Health, Grace: as.Grace, TTL: as.TTL, Backoff: as.Backoff, Job: as.Job != nil,
		Attached: as.Attach != nil, CreatedAt: as.CreatedAt,
	}
}

// withoutValues puts names in place of config vars' values: a shell has put
// them into the arguments of what it ran. Short ones are no secrets.
func withoutValues(args string, vars map[string]string) string {
	names := slices.Collect(maps.Keys(vars))
	slices.SortFunc(names, func(a, b string) int { // what holds another goes first
		return cmp.Or(cmp.Compare(len(vars[b]), len(vars[a])), cmp.Compare(a, b))
	})
	for _, name := range names {
		if len(vars[name]) >= 4 {
			args = strings.ReplaceAll(args, vars[name], "$"+name)
		}
	}
	return strings.ToValidUTF8(args[:min(len(args), maxArgs)], "")
}

// maxArgs is how much is shown of a process's arguments, in bytes.
const maxArgs = 300

// LogPlace is where a dyno's lines are.
func (a *agent) LogPlace(assignment string) door.LogPlace {
	d := a.driver(assignment)
	if d == nil {
		return door.LogPlace{}
	}
	rec, logs := d.seen()
	if rec.Dyno.Run == "" {
		return door.LogPlace{}
	}
	return door.LogPlace{Run: rec.Dyno.Run, App: logs, Heroku: d.runFile(rec.Dyno.Run, manifold.SourceHeroku)}
}

// Ended are runs that ended.
func (a *agent) Ended(most int, keep func(why.Run) bool) ([]why.Run, error) {
	return a.ended.Find(most, keep)
}

// Change is what a release changed.
func (a *agent) Change(app string, release int) *why.Change { return a.releases.Change(app, release) }

// driver is the one of an assignment, or nil.
func (a *agent) driver(assignment string) *driver {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.drivers[assignment]
}
