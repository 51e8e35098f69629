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

	"manifold"
	"manifold/coordinator/outputs"
	"manifold/coordinator/scheduler"
	"manifold/coordinator/store"
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
	PutBuild(ctx context.Context, b *manifold.Build) (forgotten []string, err error)
}

// Config is what a Compiler is made of. Zero limits are their defaults.
type Config struct {
	Dir     string // build caches are kept here; ours alone
	Runner  Runner
	Store   Store
	Outputs *outputs.Room // where what builds print can be read again
	Log     *slog.Logger

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
	Author *store.Author // as the audit trail has them; nil: nobody
	Commit string        // full hex id; of a source that was not pushed, whatever its client calls it
	// Source writes the checkout as a tar. It is called again when the build's
	// dyno has to start reading anew, never twice at the same time.
	Source func(w io.Writer) error
}

// Compiler builds and deploys. It is safe for use by several goroutines.
type Compiler struct {
	cfg   Config
	cache cache
	slots chan struct{} // one token per build that may run now

	life       context.Context // of builds that Start started
	end        context.CancelFunc
	background sync.WaitGroup

	mu       sync.Mutex
	building map[string]*build // by App.ID
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
	c := &Compiler{cfg: cfg, cache: caches, slots: make(chan struct{}, cfg.Builds), building: map[string]*build{}}
	c.life, c.end = context.WithCancel(context.Background())
	return c, nil
}

// Close ends the builds that Start started, and waits for them.
func (c *Compiler) Close() error {
	c.end()
	c.background.Wait()
	return nil
}

// Build compiles the source, makes a slug of it and releases it. All that the
// pusher shall read goes to out, the reason of a failure included, so the
// error is for the caller's verdict and log. When Build fails the old release
// serves on. Cancelling ctx stops the build until the release is being made;
// from then on it completes, and so does its release command.
func (c *Compiler) Build(ctx context.Context, r Request, out io.Writer) (manifold.Release, error) {
	b, ctx, err := c.begin(ctx, r, out)
	if err != nil {
		b.out = &printer{w: out}
		b.explain(err)
		c.cfg.Log.Info("build not begun", "app", r.App.Name, "build", b.id, "error", err)
		return manifold.Release{}, err
	}
	return b.build(ctx)
}

// Start begins a build that nobody waits for, and returns its record, from
// which on it can be followed. ErrBusy: another build of the app is running.
func (c *Compiler) Start(r Request) (manifold.Build, error) {
	b, ctx, err := c.begin(c.life, r, io.Discard)
	if err != nil {
		return manifold.Build{}, err
	}
	started := b.record                             // a copy: the build changes its own
	c.background.Go(func() { _, _ = b.build(ctx) }) // what became of it is in its record
	return started, nil
}

// cancelTime bounds how long Cancel waits for a build's end.
const cancelTime = 10 * time.Second

// Cancel ends a running build, by a push or by Start, and says whether there
// was one. It has failed then, if it had not been released yet, and its place
// is free for the next one, unless its end takes long.
func (c *Compiler) Cancel(app, id string) bool {
	c.mu.Lock()
	b := c.building[app]
	c.mu.Unlock()
	if b == nil || b.id != id {
		return false
	}
	b.cancel(context.Canceled)
	select {
	case <-b.over:
	case <-time.After(cancelTime):
	}
	return true
}

// Purge forgets an app's build caches. One that a running build makes is kept.
func (c *Compiler) Purge(app string) error { return c.cache.drop(app) }

// Collect removes the build caches of apps that exist (App.ID) does not know.
// It may be called at any time if exists looks at the present: it is asked
// after the caches were listed.
func (c *Compiler) Collect(exists func(app string) bool) error { return c.cache.collect(exists) }

// ErrBusy means that another build of the app is running.
var ErrBusy = refuse("Another build of this app is running. Wait until it has ended, then push again.")

// wait takes one of the build slots.
func (b *build) wait(ctx context.Context) (leave func(), err error) {
	select {
	case b.slots <- struct{}{}:
	default:
		b.out.step("Waiting for another app's build to end")
		select {
		case b.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return func() { <-b.slots }, nil
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
	case errors.Is(err, store.ErrNotFound), errors.Is(err, scheduler.ErrStopped):
		b.out.problem("The app was deleted while this build ran.")
	case errors.Is(err, scheduler.ErrNoHost):
		b.out.problem("No build could be started: " + scheduler.ErrNoHost.Error())
	default:
		b.out.problem("The build failed for a reason that is not in your app.",
			"Push again; if it stays, give your operator this build's id: "+b.id)
	}
	b.out.line("")
	b.out.problem("Push failed")
}
