package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"manifold"
	"manifold/coordinator/fleet"
	"manifold/coordinator/store"
)

type fleetRouter = fleet.Router

// state is all that a pass decides from. Once shown, only the loop may read
// withdrawn and dropped; nothing else in it changes.
type state struct {
	now, started time.Time
	settings     Settings
	stored       *stored
	hosts        map[string]fleet.Host
	routers      []fleetRouter
	observed     map[placed]manifold.Dyno
	withdrawn    map[string]withdrawal      // retiring assignment → since when
	dropped      map[string]int64           // stopping assignment → revision of the first Desired without it
	jobs         map[string]bool            // assignments of jobs that someone waits for
	execs        map[string][]manifold.Exec // by host
	execsChanged int
}

// placed names a dyno as one host may speak of it: no host speaks for another.
type placed struct{ host, assignment string }

// stored is what the store holds, read again only when it changed.
type stored struct {
	placements []store.Placement
	hosts      []manifold.Host
	apps       map[string]*app // by id
	awaited    map[string]bool // assignments of release phases, whose results are still to be written down
}

// app is an app with its current release.
type app struct {
	manifold.App
	release   manifold.Release
	slug      manifold.Slug // if the release has one
	formation []manifold.Formation
	layers    []manifold.Image // slug and stack
	obstacle  string           // why no dyno of it can be placed
	frozen    bool             // its records are damaged: change nothing
}

// look reads the state. Placements are read before apps: an app that is
// missing then was deleted, and is not one that came after. Jobs are read
// after placements for the same reason.
func (s *Scheduler) look(ctx context.Context) (*state, error) {
	if s.stored == nil {
		stored, err := s.read(ctx)
		if err != nil {
			return nil, fmt.Errorf("read the store: %w", err)
		}
		s.stored = stored
	}
	s.mu.Lock()
	jobs := maps.Clone(s.jobs)
	execs, execsChanged := s.execsByHost(), s.execsChanged
	s.mu.Unlock()
	st := &state{
		now: time.Now(), started: s.started, settings: s.cfg.Settings, stored: s.stored,
		hosts: s.cfg.Fleet.Hosts(), routers: s.cfg.Fleet.Routers(), observed: map[placed]manifold.Dyno{},
		withdrawn: s.withdrawn, dropped: s.dropped, jobs: jobs, execs: execs, execsChanged: execsChanged,
	}
	for id, h := range st.hosts {
		for _, d := range h.Observation.Dynos {
			st.observed[placed{id, d.Assignment}] = d
		}
	}
	return st, nil
}

func (s *Scheduler) read(ctx context.Context) (*stored, error) {
	placements, err := s.cfg.Store.Placements(ctx)
	if err != nil {
		return nil, err
	}
	hosts, err := s.cfg.Store.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	apps, err := s.cfg.Store.Apps(ctx)
	if err != nil {
		return nil, err
	}
	// Read after the placements: a phase that is missing then has ended.
	phases, err := s.cfg.Store.ReleasePhases(ctx)
	if err != nil {
		return nil, err
	}
	all := &stored{placements: placements, hosts: hosts, apps: map[string]*app{}, awaited: map[string]bool{}}
	for _, phase := range phases {
		all.awaited[phase.Release] = true
	}
	for _, a := range apps {
		one, err := s.readApp(ctx, a)
		if errors.Is(err, store.ErrNotFound) {
			if _, gone := s.cfg.Store.App(ctx, a.ID); errors.Is(gone, store.ErrNotFound) {
				continue // deleted meanwhile
			}
			s.cfg.Log.Error("an app's records are not whole: its dynos stay as they are", "app", a.ID, "err", err)
			one, err = &app{App: a, frozen: true}, nil
		}
		if err != nil {
			return nil, err
		}
		all.apps[a.ID] = one
	}
	return all, nil
}

func (s *Scheduler) readApp(ctx context.Context, a manifold.App) (*app, error) {
	release, err := s.cfg.Store.CurrentRelease(ctx, a.ID)
	if err != nil {
		return nil, err
	}
	one := &app{App: a, release: release}
	if one.formation, err = s.cfg.Store.Formation(ctx, a.ID); err != nil {
		return nil, err
	}
	return one, s.readCode(ctx, one)
}

// readCode fills in what the app's release runs, if it has code.
func (s *Scheduler) readCode(ctx context.Context, one *app) (err error) {
	if one.release.Slug == "" {
		return nil
	}
	if one.slug, err = s.cfg.Store.Slug(ctx, one.release.Slug); err != nil {
		return err
	}
	stack, err := s.cfg.Layers(one.slug.Stack)
	if err != nil {
		one.obstacle = fmt.Sprintf("Waiting for stack %s: %v", one.slug.Stack, err)
	}
	one.layers = append([]manifold.Image{one.slug.Image}, stack...)
	return nil
}

// want is a slot with what shall fill it.
type want struct {
	slot     slot
	release  int
	command  string
	size     manifold.Size
	preboot  bool // what is there stays until the new one is up
	obstacle string
}

func (w want) kin() string { return kin(w.slot.app, w.slot.dyno) }

// kin names the dynos that do the same work.
func kin(app, dyno string) string {
	typ, _, _ := strings.Cut(dyno, ".")
	return app + "/" + typ
}

// wanted lists every slot of every formation, numbered from 1, for which the
// current release has a slug and a command.
func (st *state) wanted() []want {
	var all []want
	for _, a := range st.stored.apps {
		for _, f := range a.formation {
			command, ok := a.slug.ProcessTypes[f.Type]
			if a.release.Slug == "" || !ok {
				continue
			}
			size, err := manifold.ParseSize(f.Size)
			w := want{release: a.release.Version, command: command, size: size, obstacle: a.obstacle, preboot: a.Feature(manifold.FeaturePreboot)}
			if err != nil {
				w.obstacle = err.Error()
			}
			for n := range f.Quantity {
				w.slot = slot{a.ID, manifold.DynoName(f.Type, n+1)}
				all = append(all, w)
			}
		}
	}
	return all
}

// assignment is what fills a wanted slot, still without ID and CreatedAt.
func (st *state) assignment(s slot) manifold.Assignment {
	a := st.stored.apps[s.app]
	typ, _, _ := strings.Cut(s.dyno, ".")
	assignment := manifold.Assignment{
		App: a.ID, AppName: a.Name, Dyno: s.dyno, Kind: manifold.KindFormation,
		Release: a.release.Version, Description: a.release.Description, Commit: a.slug.Commit,
		Layers: a.layers, Command: a.slug.ProcessTypes[typ],
		Env: a.release.Config, Web: typ == web, Grace: st.settings.Grace,
		Backoff: st.backoff(a.App), RuntimeMetrics: a.Feature(manifold.FeatureRuntimeMetrics),
	}
	for _, f := range a.formation {
		if f.Type == typ {
			assignment.Size, _ = manifold.ParseSize(f.Size) // wanted has checked it
		}
	}
	if assignment.Web {
		assignment.BootTimeout = st.settings.BootTimeout
	}
	return assignment
}

// backoff is what the app's owner chose, else the operator.
func (st *state) backoff(a manifold.App) manifold.Backoff {
	progressive, said := a.Features[manifold.FeatureProgressiveBackoff]
	switch {
	case !said:
		return st.settings.Backoff
	case progressive:
		return manifold.BackoffProgressive
	}
	return manifold.BackoffClassic
}

// web is the process type that is routed to.
const web = "web"

// dyno is what a placement's host says of it. A host that has not spoken of
// it yet is about to start it.
func (st *state) dyno(p store.Placement) manifold.Dyno {
	if d, ok := st.observed[placed{p.Host, p.Assignment.ID}]; ok {
		return d
	}
	return manifold.Dyno{State: manifold.StateStarting, Since: p.Assignment.CreatedAt}
}

func (st *state) up(p store.Placement) bool { return st.dyno(p).State == manifold.StateUp }

// desired is what each host shall run: every placement that is not stopping.
// A host without any is told so.
func (st *state) desired() map[string]manifold.Desired {
	all := map[string]manifold.Desired{}
	for _, h := range st.stored.hosts {
		all[h.ID] = manifold.Desired{Execs: st.execs[h.ID]}
	}
	for _, p := range st.stored.placements {
		d := all[p.Host]
		switch {
		case p.Phase != store.Stopping:
			d.Assignments = append(d.Assignments, p.Assignment)
		case p.Cycled:
			d.Cycling = append(d.Cycling, p.Assignment.ID)
		}
		all[p.Host] = d
	}
	return all
}
