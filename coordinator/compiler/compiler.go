package compiler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/scheduler"
)

// Runner runs a build's dyno. *scheduler.Scheduler is one.
type Runner interface {
	RunJob(ctx context.Context, j scheduler.Job) (scheduler.JobResult, error)
}

// Store is what the compiler needs of the coordinator's memory. *store.Store
// is one.
type Store interface {
	NewestRelease(ctx context.Context, app string) (manifold.Release, error)
	Deploy(ctx context.Context, app string, slug manifold.Slug, description string, by manifold.User) (manifold.Release, error)
}

// Config is what a Compiler is made of. Zero limits are their defaults.
type Config struct {
	Dir    string // build caches are kept here; ours alone
	Runner Runner
	Store  Store
	Log    *slog.Logger

	// Layers gives the images a build on a stack runs on, top first.
	Layers func(stack string) ([]manifold.Image, error)
	// URL is where an app answers, for the pusher to read.
	URL func(app manifold.App) string
	// Follow writes what a pending release's command prints to w until it has
	// ended, and returns the release as it is then.
	Follow func(ctx context.Context, pending manifold.Release, w io.Writer) (manifold.Release, error)
	// Say writes a line of the API's to an app's log (App.ID). It may be nil.
	Say func(app, text string)

	Env        map[string]string // given to every build: see PassThrough
	CA         string            // file of certificates builds trust besides the stack's; "" is none
	Buildpacks string            // directory below which an app may name a buildpack by its path; "" is nowhere

	TimeLimit   time.Duration // of a build; default 15 minutes
	SlugLimit   int64         // bytes of a slug image; default 500 MB
	SourceLimit int64         // bytes of a checkout; default 1 GB
	CacheLimit  int64         // bytes of an app's build cache; default 1 GB
	Builds      int           // at the same time; default 4
}

// Request is one build.
type Request struct {
	App    manifold.App
	By     manifold.User
	Commit string // full hex id
	// Source writes the checkout as a tar. It is called again when the build's
	// dyno has to start reading anew, never twice at the same time.
	Source func(w io.Writer) error
}

// Compiler builds and deploys. It is safe for use by several goroutines.
type Compiler struct {
	cfg   Config
	cache cache
	slots chan struct{} // one token per build that may run now

	mu       sync.Mutex
	building map[string]bool // App.ID
}

// New makes a compiler, and its directory if need be.
func New(cfg Config) (*Compiler, error) {
	cfg.TimeLimit = cmp.Or(cfg.TimeLimit, 15*time.Minute)
	cfg.SlugLimit = cmp.Or(cfg.SlugLimit, 500<<20)
	cfg.SourceLimit = cmp.Or(cfg.SourceLimit, 1<<30)
	cfg.CacheLimit = cmp.Or(cfg.CacheLimit, 1<<30)
	cfg.Builds = cmp.Or(cfg.Builds, 4)
	if cfg.Say == nil {
		cfg.Say = func(string, string) {}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the build cache directory: %w", err)
	}
	caches := cache{dir: cfg.Dir, limit: cfg.CacheLimit}
	if err := caches.tidy(); err != nil {
		return nil, fmt.Errorf("tidy the build caches: %w", err)
	}
	return &Compiler{
		cfg: cfg, cache: caches,
		slots: make(chan struct{}, cfg.Builds), building: map[string]bool{},
	}, nil
}

// Build compiles the source, makes a slug of it and releases it. All that the
// pusher shall read goes to out, the reason of a failure included, so the
// error is for the caller's verdict and log. When Build fails the old release
// serves on. Cancelling ctx stops the build until the release is being made;
// from then on it completes, and so does its release command.
func (c *Compiler) Build(ctx context.Context, r Request, out io.Writer) (manifold.Release, error) {
	p := &printer{w: out}
	b := &build{Compiler: c, Request: r, id: uuid.NewString(), out: p}
	release, err := b.run(ctx)
	if err != nil {
		b.explain(err)
		c.cfg.Log.Info("build failed", "app", r.App.Name, "build", b.id, "commit", r.Commit, "error", err)
		return manifold.Release{}, fmt.Errorf("build %s: %w", r.App.Name, err)
	}
	c.cfg.Log.Info("build released", "app", r.App.Name, "build", b.id, "commit", r.Commit, "version", release.Version)
	return release, nil
}

// Collect removes the build caches of apps that exist (App.ID) does not know.
// It may be called at any time if exists looks at the present: it is asked
// after the caches were listed.
func (c *Compiler) Collect(exists func(app string) bool) error { return c.cache.collect(exists) }

// enter takes the app's place and one of the build slots.
func (c *Compiler) enter(ctx context.Context, app string, waiting func()) (leave func(), err error) {
	c.mu.Lock()
	busy := c.building[app]
	c.building[app] = true
	c.mu.Unlock()
	if busy {
		return nil, refuse("Another build of this app is running. Wait until it has ended, then push again.")
	}
	release := func() {
		c.mu.Lock()
		delete(c.building, app)
		c.mu.Unlock()
	}
	select {
	case c.slots <- struct{}{}:
	default:
		waiting()
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			release()
			return nil, context.Cause(ctx)
		}
	}
	return func() { <-c.slots; release() }, nil
}

// refusal is a failure the pusher can do something about; its text is for
// them.
type refusal struct{ lines []string }

func (r *refusal) Error() string { return r.lines[0] }

func refuse(first string, more ...string) error {
	return &refusal{lines: append([]string{first}, more...)}
}

// explain tells the pusher why there is no release. What is not theirs to
// mend is named by the build's id only, by which the operator finds it in the
// coordinator's log.
func (b *build) explain(err error) {
	var r *refusal
	switch {
	case errors.As(err, &r):
		b.out.problem(r.lines...)
	case errors.Is(err, context.Canceled):
		b.out.problem("Build cancelled. Nothing was released.")
	case errors.Is(err, scheduler.ErrNoHost):
		b.out.problem("No build could be started: " + scheduler.ErrNoHost.Error())
	default:
		b.out.problem("The build failed for a reason that is not in your app.",
			"Push again; if it stays, give your operator this build's id: "+b.id)
	}
	b.out.line("")
	b.out.problem("Push failed")
}
