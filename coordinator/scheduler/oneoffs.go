package scheduler

import (
	"cmp"
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

	// Release is what it runs; nil is the app's current one. The command of a
	// release phase is taken as it is, and no limit holds it up.
	Release *manifold.Release
	ID      string // of its assignment; "": drawn
	// Keep puts the placement into the store together with whatever must be
	// written in the same step; nil puts it alone.
	Keep func(ctx context.Context, p store.Placement) error
}

// Start places a one-off dyno, and returns when Dynos lists it: clients look for
// it at once. Of an attached one it returns the secret of its session.
func (s *Scheduler) Start(ctx context.Context, o OneOff) (d Dyno, secret string, err error) {
	d, secret, err = s.placeOneOff(ctx, o)
	if err != nil {
		return Dyno{}, "", fmt.Errorf("start a one-off dyno: %w", err)
	}
	s.awaitShown(ctx, d.Assignment)
	return d, secret, nil
}

// showTime bounds the wait for a pass that shows what was just placed: what is
// placed is started however long its passes take.
const showTime = 10 * time.Second

func (s *Scheduler) awaitShown(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, showTime)
	defer cancel()
	for {
		st, changed := s.watch()
		if st != nil {
			if _, there := st.find(id); there {
				return
			}
			if _, err := s.cfg.Store.Placement(ctx, id); errors.Is(err, store.ErrNotFound) {
				return // it came and went
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Scheduler) placeOneOff(ctx context.Context, o OneOff) (d Dyno, secret string, err error) {
	app, err := s.cfg.Store.App(ctx, o.App)
	if err != nil {
		return d, "", err
	}
	a, err := s.oneOff(ctx, app, o)
	if err != nil {
		return d, "", err
	}
	host, err := s.hostFor(ctx, a)
	if err != nil {
		return d, "", err
	}
	s.oneOffs.Lock() // counting, naming and placing are one step
	defer s.oneOffs.Unlock()
	if a.Dyno, err = s.admit(ctx, o); err != nil {
		return d, "", err
	}
	if a.Attach != nil {
		secret = s.cfg.Attach.Open(attach.Session{ID: a.ID, Host: host, Attach: *a.Attach})
	}
	p := store.Placement{Host: host, Assignment: a}
	keep := s.cfg.Store.PutPlacement
	if o.Keep != nil {
		keep = o.Keep
	}
	if err := keep(ctx, p); err != nil {
		s.cfg.Attach.Cancel(a.ID)
		return d, "", err
	}
	s.cfg.Log.Info("dyno: place", "app", a.App, "dyno", a.Dyno, "assignment", a.ID, "host", host)
	return (&state{}).show(p), secret, nil
}

// oneOff is what o asks for, still without its name.
func (s *Scheduler) oneOff(ctx context.Context, of manifold.App, o OneOff) (manifold.Assignment, error) {
	a := manifold.Assignment{
		ID: cmp.Or(o.ID, uuid.NewString()), App: of.ID, AppName: of.Name, Kind: manifold.KindOneOff,
		Size: o.Size, Grace: s.cfg.Settings.Grace, TTL: cmp.Or(o.TTL, MaxTTL),
		Attach: o.Attach, CreatedAt: time.Now().UTC(),
	}
	one := &app{App: of}
	var err error
	if o.Release != nil {
		one.release = *o.Release
	} else if one.release, err = s.cfg.Store.CurrentRelease(ctx, of.ID); err != nil {
		return a, err
	}
	if err := s.readCode(ctx, one); err != nil {
		return a, err
	}
	switch {
	case one.release.Slug == "":
		return a, ErrNoCode
	case one.obstacle != "":
		return a, errors.New(one.obstacle)
	}
	a.Release, a.Layers, a.Command = one.release.Version, one.layers, o.Command
	if o.Release == nil {
		a.Command = expand(o.Command, one.slug.ProcessTypes)
	}
	a.Env = map[string]string{}
	maps.Copy(a.Env, one.release.Config)
	maps.Copy(a.Env, o.Env)
	return a, nil
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
	if n >= limit && o.Release == nil {
		return "", &LimitError{limit, o.Size.Name + " one-off dynos"}
	}
	for {
		if name := manifold.DynoName(cmp.Or(o.Type, "run"), 1000+rand.IntN(9000)); !names[name] {
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
		// The session is there before a pass can tell the host of it: one that
		// joins too early is turned away for good.
		secret = s.cfg.Attach.Open(attach.Session{
			ID: exec.ID, Host: d.Host, Attach: e.Attach, Over: func() { s.endExec(exec.ID) },
		})
		s.execs[exec.ID] = execution{d.Host, exec}
		s.execsChanged++
	}
	s.mu.Unlock()
	if n >= maxExecs {
		return d, "", &LimitError{maxExecs, "processes inside " + d.Name}
	}
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
