package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/attach"
	"manifold/coordinator/store"
)

// MaxTTL is the longest life of a one-off dyno, and that of one that asked for
// none.
const MaxTTL = 24 * time.Hour

// maxExecs bounds the processes that are started in one dyno at a time.
const maxExecs = 10

// The errors of Start and Exec, besides ErrNoHost and a LimitError.
var (
	// ErrNoCode: the app's current release has no slug.
	ErrNoCode = errors.New("the app has no code yet")
	// ErrNotUp: there is such a dyno, but nothing can be started in it.
	ErrNotUp = errors.New("the dyno is not up")
)

// LimitError says that an app runs as many as it may.
type LimitError struct {
	Limit int
	What  string
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("Cannot run more than %d %s at once: end some first, or wait until they end", e.Limit, e.What)
}

// OneOff is a dyno that runs once: `heroku run`.
type OneOff struct {
	App     string // App.ID
	Type    string // the first part of its name; "" is run
	Command string // for a shell; a process type as its first word stands for that type's command
	Env     map[string]string
	Size    manifold.Size
	TTL     time.Duration // 0: MaxTTL
	Attach  *manifold.Attach
}

// Start places a one-off dyno on the app's current release. Of an attached one
// it returns the secret of its session.
func (s *Scheduler) Start(ctx context.Context, o OneOff) (d Dyno, secret string, err error) {
	fail := func(err error) (Dyno, string, error) {
		return Dyno{}, "", fmt.Errorf("start a one-off dyno: %w", err)
	}
	app, err := s.cfg.Store.App(ctx, o.App)
	if err != nil {
		return fail(err)
	}
	one, err := s.readApp(ctx, app)
	if err != nil {
		return fail(err)
	}
	switch {
	case one.release.Slug == "":
		return fail(ErrNoCode)
	case one.obstacle != "":
		return fail(errors.New(one.obstacle))
	}
	a := manifold.Assignment{
		ID: uuid.NewString(), App: app.ID, AppName: app.Name, Kind: manifold.KindOneOff,
		Release: one.release.Version, Layers: one.layers, Command: expand(o.Command, one.slug.ProcessTypes),
		Env: maps.Clone(one.release.Config), Size: o.Size, Grace: s.cfg.Settings.Grace, TTL: o.TTL,
		Attach: o.Attach, CreatedAt: time.Now().UTC(),
	}
	if a.TTL == 0 {
		a.TTL = MaxTTL
	}
	if a.Env == nil {
		a.Env = map[string]string{}
	}
	maps.Copy(a.Env, o.Env)
	if o.Type == "" {
		o.Type = "run"
	}
	host, err := s.hostFor(ctx, a)
	if err != nil {
		return fail(err)
	}
	s.oneOffs.Lock() // counting, naming and placing are one step
	defer s.oneOffs.Unlock()
	if a.Dyno, err = s.admit(ctx, o); err != nil {
		return fail(err)
	}
	if a.Attach != nil {
		secret = s.cfg.Attach.Open(attach.Session{ID: a.ID, Host: host, Attach: *a.Attach})
	}
	p := store.Placement{Host: host, Assignment: a}
	if err := s.cfg.Store.PutPlacement(ctx, p); err != nil {
		s.cfg.Attach.Cancel(a.ID)
		return fail(err)
	}
	s.cfg.Log.Info("dyno: place", "app", a.App, "dyno", a.Dyno, "assignment", a.ID, "host", host)
	return (&state{}).show(p), secret, nil
}

// expand puts a process type's command in the place of a first word that names
// the type.
func expand(command string, types map[string]string) string {
	word, rest, more := strings.Cut(strings.TrimLeft(command, " \t"), " ")
	typ, ok := types[word]
	switch {
	case !ok:
		return command
	case more:
		return typ + " " + rest
	}
	return typ
}

// admit draws a name for a one-off dyno that the app has no dyno of yet, unless
// there are as many as may be. Of the larger sizes that is a tenth.
func (s *Scheduler) admit(ctx context.Context, o OneOff) (string, error) {
	placements, err := s.cfg.Store.Placements(ctx)
	if err != nil {
		return "", err
	}
	small := func(size manifold.Size) bool { return size.Memory <= 1<<30 }
	names, n := map[string]bool{}, 0
	for _, p := range placements {
		a := p.Assignment
		if a.App != o.App {
			continue
		}
		names[a.Dyno] = true
		if a.Kind == manifold.KindOneOff && a.Job == nil && small(a.Size) == small(o.Size) {
			n++
		}
	}
	limit := s.cfg.Settings.OneOffs
	if !small(o.Size) {
		limit = max(1, limit/10)
	}
	if n >= limit {
		return "", &LimitError{limit, o.Size.Name + " one-off dynos"}
	}
	for {
		if name := manifold.DynoName(o.Type, 1000+rand.IntN(9000)); !names[name] {
			return name, nil
		}
	}
}

// Stop ends the one-off dynos of an app (App.ID) whose name matches, and says
// how many that are. Formation dynos are left alone.
func (s *Scheduler) Stop(ctx context.Context, app string, match func(dyno string) bool) (n int, err error) {
	placements, err := s.cfg.Store.Placements(ctx)
	if err != nil {
		return 0, fmt.Errorf("stop dynos: %w", err)
	}
	for _, p := range placements {
		a := p.Assignment
		if a.App != app || a.Kind != manifold.KindOneOff || a.Job != nil || !match(a.Dyno) {
			continue
		}
		if err := s.setPhase(ctx, a.ID, store.Stopping); err != nil {
			return n, fmt.Errorf("stop %s: %w", a.Dyno, err)
		}
		s.cfg.Attach.Cancel(a.ID)
		n++
	}
	return n, nil
}

// Exec is one more process in a running dyno: `heroku run:inside`.
type Exec struct {
	App     string // App.ID
	Dyno    string // its name, or its assignment's id
	Command string
	Env     map[string]string
	Attach  manifold.Attach
}

// Exec asks the dyno's host for the process and returns the secret of its
// session. The wish is kept in memory as long as the session lasts.
// store.ErrNotFound: the app has no such dyno.
func (s *Scheduler) Exec(_ context.Context, e Exec) (d Dyno, secret string, err error) {
	dynos := s.Dynos(e.App)
	i := slices.IndexFunc(dynos, func(d Dyno) bool { return d.Name == e.Dyno || d.Assignment == e.Dyno })
	if i < 0 {
		return d, "", fmt.Errorf("start a process in %s: %w", e.Dyno, store.ErrNotFound)
	}
	d = dynos[i]
	if d.State != manifold.StateUp {
		return d, "", fmt.Errorf("start a process in %s: %w", e.Dyno, ErrNotUp)
	}
	exec := manifold.Exec{ID: uuid.NewString(), Assignment: d.Assignment, Command: e.Command, Env: e.Env, Attach: e.Attach}
	s.mu.Lock()
	n := 0
	for _, x := range s.execs {
		if x.Assignment == d.Assignment {
			n++
		}
	}
	if n < maxExecs {
		s.execs[exec.ID] = execution{d.Host, exec}
		s.execsChanged++
	}
	s.mu.Unlock()
	if n >= maxExecs {
		return d, "", &LimitError{maxExecs, "processes inside " + d.Name}
	}
	secret = s.cfg.Attach.Open(attach.Session{
		ID: exec.ID, Host: d.Host, Attach: e.Attach, Over: func() { s.endExec(exec.ID) },
	})
	s.wake()
	return d, secret, nil
}

// execution is an Exec and the host it is for.
type execution struct {
	host string
	manifold.Exec
}

// execsByHost is called with mu held.
func (s *Scheduler) execsByHost() map[string][]manifold.Exec {
	all := map[string][]manifold.Exec{}
	for _, id := range slices.Sorted(maps.Keys(s.execs)) { // equal wishes give equal messages
		x := s.execs[id]
		all[x.host] = append(all[x.host], x.Exec)
	}
	return all
}

func (s *Scheduler) endExec(id string) {
	s.mu.Lock()
	delete(s.execs, id)
	s.execsChanged++
	s.mu.Unlock()
	s.wake()
}

// wake has the loop make a pass soon.
func (s *Scheduler) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}
