package coordinator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"manifold"
	"manifold/coordinator/attach"
	"manifold/coordinator/clock"
	"manifold/coordinator/compiler"
	"manifold/coordinator/fleet"
	"manifold/coordinator/git"
	"manifold/coordinator/logs"
	"manifold/coordinator/outputs"
	"manifold/coordinator/phase"
	"manifold/coordinator/pki"
	"manifold/coordinator/scheduler"
	"manifold/coordinator/sources"
	"manifold/coordinator/store"
	"manifold/slugfs"
	"manifold/slugfs/stack"
)

// rooms are the coordinator's rooms, opened from the bottom up.
type rooms struct {
	cfg       Config
	store     *store.Store
	ca        *pki.CA
	logs      *logs.Hub
	images    *slugfs.Store
	attach    *attach.Room
	fleet     *fleet.Server
	scheduler *scheduler.Scheduler
	outputs   *outputs.Room
	sources   *sources.Room
	phase     *phase.Room
	clock     *clock.Room
	compiler  *compiler.Compiler
	git       *git.Server
	closers   []io.Closer
}

// openRooms opens every room. On an error those that were opened are closed.
func openRooms(ctx context.Context, cfg Config) (_ *rooms, err error) {
	r := &rooms{cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	for _, dir := range []string{cfg.Run, cfg.dir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the coordinator's directories: %w", err)
		}
	}
	if r.store, err = store.Open(ctx, cfg.dir(), cfg.Log); err != nil {
		return nil, err
	}
	r.closers = append(r.closers, r.store)
	r.ca, err = pki.Open(func(key string, make func() ([]byte, error)) ([]byte, error) { return r.store.Once(ctx, key, make) })
	if err != nil {
		return nil, err
	}
	if r.logs, err = logs.OpenKeeping(cfg.dir("logs"), cfg.Keep); err != nil {
		return nil, err
	}
	r.closers = append(r.closers, r.logs)
	if r.images, err = slugfs.Open(cfg.dir("images"), cfg.stacks()); err != nil {
		return nil, err
	}
	r.closers = append(r.closers, r.images)
	return r, r.openWork(ctx)
}

// openWork opens the rooms that work on what the others keep.
func (r *rooms) openWork(ctx context.Context) (err error) {
	cfg := r.cfg
	cert, err := r.ca.Server(certNames(cfg.AttachAddr)...)
	if err != nil {
		return err
	}
	r.attach = attach.New(attach.Config{
		TLS:  &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		Idle: cfg.AttachIdle, Log: cfg.Log.With("room", "attach"),
	})
	r.fleet, err = fleet.Open(fleet.Config{
		Cluster: r.store.Cluster(), Store: r.store, CA: r.ca, Names: certNames(cfg.FleetAddr),
		Logs: r.logs, Images: r.images, Attach: r.attach, Dir: cfg.dir("fleet"), JobsDir: cfg.dir("jobs"), Log: cfg.Log.With("room", "fleet"),
	})
	if err != nil {
		return err
	}
	r.closers = append(r.closers, r.fleet)
	r.scheduler = scheduler.New(scheduler.Config{
		Settings: cfg.Scheduler, Store: r.store, Fleet: r.fleet, Attach: r.attach, Log: cfg.Log.With("room", "scheduler"),
		Layers: func(name string) ([]manifold.Image, error) {
			s, err := r.stack(name)
			return s.Run, err
		},
		Tell: func(app, process, text string) { r.logs.Write(app, manifold.SourceHeroku, process, text) },
	})
	key, err := r.store.Once(ctx, "sources", sources.Key)
	if err != nil {
		return err
	}
	if r.sources, err = sources.Open(cfg.dir("sources"), key); err != nil {
		return err
	}
	r.closers = append(r.closers, r.sources)
	if r.outputs, err = outputs.Open(cfg.dir("outputs")); err != nil {
		return err
	}
	r.closers = append(r.closers, r.outputs)
	r.phase = phase.New(phase.Config{Store: r.store, Dynos: r.scheduler, Logs: r.logs, Outputs: r.outputs, Log: cfg.Log.With("room", "phase")})
	r.clock = clock.New(clock.Config{
		Store: r.store, Dynos: r.scheduler, Log: cfg.Log.With("room", "clock"),
		Say: func(app, text string) { r.logs.Write(app, manifold.SourceApp, "scheduler", text) },
	})
	r.compiler, err = compiler.New(compiler.Config{
		Dir: cfg.dir("cache"), Runner: r.scheduler, Store: r.store, Outputs: r.outputs, Log: cfg.Log.With("room", "compiler"),
		Layers: func(name string) ([]manifold.Image, error) {
			s, err := r.stack(name)
			return s.Build, err
		},
		URL:    func(app manifold.App) string { return r.webURL(app.Name) },
		Follow: r.phase.Follow,
		Say:    func(app, text string) { r.logs.Write(app, manifold.SourceApp, "api", text) },
		Env:    cfg.BuildEnv, CA: cfg.BuildCA, Buildpacks: cfg.Buildpacks,
		TimeLimit: cfg.BuildLimit, SlugLimit: cfg.SlugLimit,
	})
	if err != nil {
		return err
	}
	r.closers = append(r.closers, r.compiler)
	r.git, err = git.New(git.Config{
		Dir: cfg.dir("git"), Socket: hookSocket(cfg.Settings), Store: r.store, Builder: r.compiler, Log: cfg.Log.With("room", "git"),
	})
	return err
}

// stack finds a stack as it was last built.
func (r *rooms) stack(name string) (stack.Stack, error) {
	all, err := stack.Load(r.cfg.stacks())
	if err != nil {
		return stack.Stack{}, err
	}
	for _, s := range all {
		if s.Name == name {
			return s, nil
		}
	}
	return stack.Stack{}, fmt.Errorf("stack %s is not built: build it with: manifold stack build %s", name, name)
}

// webURL is where an app answers.
func (r *rooms) webURL(app string) string {
	host := app + "." + r.cfg.Scheduler.Domain
	if _, port, err := net.SplitHostPort(r.cfg.RouterAddr); err == nil {
		host = net.JoinHostPort(host, port)
	}
	return "http://" + host + "/"
}

// attachURL is where a client brings a session's secret. Its scheme is how the
// CLI knows in which form to do so.
func (r *rooms) attachURL(secret string) string {
	scheme := "rendezvous"
	if r.cfg.AttachForm == FormSSH {
		scheme = "https"
	}
	return scheme + "://" + dialable(r.cfg.AttachAddr) + "/" + secret
}

// close closes the rooms, the last opened first.
func (r *rooms) close() error {
	var failed error
	for i := len(r.closers) - 1; i >= 0; i-- {
		failed = errors.Join(failed, r.closers[i].Close())
	}
	r.closers = nil
	return failed
}

// forget removes at once what the rooms keep of an app that was deleted. The
// images of its slugs go at the next start.
func (r *rooms) forget(app string) error {
	others := func(id string) bool { return id != app }
	return errors.Join(r.logs.Forget(app), r.git.Collect(others), r.compiler.Collect(others))
}

// collect removes what no record names any more: repositories, build caches
// and images. It runs before any build can, so that nothing new is taken for
// old.
func (r *rooms) collect(ctx context.Context) error {
	if err := r.store.AbandonBuilds(ctx); err != nil {
		return err
	}
	printed, err := r.store.Outputs(ctx)
	if err != nil {
		return err
	}
	apps, err := r.store.Apps(ctx)
	if err != nil {
		return err
	}
	slugs, err := r.store.Slugs(ctx)
	if err != nil {
		return err
	}
	placements, err := r.store.Placements(ctx)
	if err != nil {
		return err
	}
	known, used := map[string]bool{}, map[string]bool{}
	for _, a := range apps {
		known[a.ID] = true
	}
	for _, s := range slugs {
		used[s.Image.Digest] = true
	}
	for _, p := range placements {
		for _, img := range p.Assignment.Layers {
			used[img.Digest] = true
		}
	}
	exists := func(app string) bool { return known[app] }
	freed, err := r.images.Collect(func(digest string) bool { return used[digest] })
	if freed > 0 {
		r.cfg.Log.Info("removed images no slug names", "bytes", freed)
	}
	return errors.Join(err, r.git.Collect(exists), r.compiler.Collect(exists), r.outputs.Collect(func(name string) bool { return printed[name] }))
}
