package compiler

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

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
	CurrentRelease(ctx context.Context, app string) (manifold.Release, error)
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
	// dyno has to start reading anew.
	Source func(w io.Writer) error
}

// Compiler builds and deploys. It is safe for use by several goroutines.
type Compiler struct{ cfg Config }

// New makes a compiler.
func New(cfg Config) (*Compiler, error) { return &Compiler{cfg: cfg}, nil }

// Build compiles and deploys. All that the pusher shall read goes to out.
func (c *Compiler) Build(ctx context.Context, r Request, out io.Writer) (manifold.Release, error) {
	return manifold.Release{}, errors.New("compiler: not yet written")
}

// Collect removes the build caches of apps that exist does not know.
func (c *Compiler) Collect(exists func(app string) bool) error { return nil }

// PassThrough picks from environ what a build needs to reach its mirrors.
func PassThrough(environ, more []string) map[string]string { return nil }
