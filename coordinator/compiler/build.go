package compiler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/scheduler"
	"manifold/coordinator/store"
)

// The driver's exit statuses; every other one is a fault of the driver or of
// what it stands on. They are kept in step with the list in the driver.
const (
	exitNothingFits = 10 + iota // no buildpack of ours fits
	exitNotFit                  // a chosen buildpack does not fit
	exitCompile                 // bin/compile failed
	exitFetch                   // a chosen buildpack could not be fetched
	exitDiskFull                // and so whatever was being done failed
	exitRelease                 // bin/release failed
	exitUnpack                  // of the bootstrap: the source could not be unpacked
)

// The outputs of a build's dyno.
const (
	outputSlug   = "slug"
	outputResult = "result.json"
	outputCache  = "cache.tar"
)

// overhead is what a build may take besides its time limit: a place on a
// host, the stack's image, packing and bringing the slug home.
const overhead = 10 * time.Minute

var errTimedOut = errors.New("build timed out")

// build is one run of Build.
type build struct {
	*Compiler
	Request
	id     string
	out    *printer
	output io.Closer // the kept one
	record manifold.Build
	cancel context.CancelCauseFunc
	over   chan struct{} // closed when its place is free
	stack  string
	config map[string]string // config vars
	packs  []pack
	chosen bool
	name   string // of the app's kind, as the driver announced it last
}

// say writes into the app's log what its owners shall know later, in Heroku's
// words.
func (b *build) say(format string, args ...any) { b.cfg.Say(b.App.ID, fmt.Sprintf(format, args...)) }

func (b *build) run(ctx context.Context) (manifold.Release, error) {
	slug, err := b.make(ctx)
	if err != nil {
		return manifold.Release{}, err
	}
	return b.release(ctx, slug)
}

// make makes the slug. It alone has a build slot: to be released a slug may have
// to wait for its app's own command, for which no other app shall wait.
func (b *build) make(ctx context.Context) (_ manifold.Slug, err error) {
	leave, err := b.wait(ctx)
	if err != nil {
		return manifold.Slug{}, err
	}
	defer leave()
	b.out.line("Building source:")
	b.out.line("")
	b.out.step("Building on the %s stack", title(b.stack))
	if b.packs, b.chosen, err = b.Compiler.packs(b.App.Buildpacks); err != nil {
		return manifold.Slug{}, err
	}
	current, err := b.cfg.Store.NewestRelease(ctx, b.App.ID)
	if err != nil {
		return manifold.Slug{}, fmt.Errorf("read the config vars: %w", err)
	}
	b.config = current.Config

	job, err := b.compile(ctx)
	if err != nil {
		return manifold.Slug{}, err
	}
	defer func() {
		if err := job.Discard(); err != nil {
			b.cfg.Log.Warn("a build's files stay behind", "build", b.id, "error", err)
		}
	}()
	return b.slug(job)
}

// compile runs the build's dyno to its end.
func (b *build) compile(ctx context.Context) (scheduler.JobResult, error) {
	layers, err := b.cfg.Layers(b.stack)
	if err != nil {
		return scheduler.JobResult{}, fmt.Errorf("find the stack's build images: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.cfg.TimeLimit+overhead, errTimedOut)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	result, err := b.cfg.Runner.RunJob(ctx, scheduler.Job{
		Assignment: b.assignment(layers),
		Input: func(w io.Writer) error {
			err := b.writeInput(w)
			if r := (*refusal)(nil); errors.As(err, &r) {
				stop(r) // the same again would come of another try
			}
			return err
		},
		Log: b.log,
	})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if errors.Is(err, errTimedOut) {
		err = b.timedOut()
	}
	if err != nil {
		return result, errors.Join(err, result.Discard())
	}
	if err := b.judge(result); err != nil {
		return result, errors.Join(err, result.Discard())
	}
	return result, nil
}

func (b *build) assignment(layers []manifold.Image) manifold.Assignment {
	env := map[string]string{"STACK": b.stack, "SOURCE_VERSION": b.Commit, "REQUEST_ID": b.id,
		"MANIFOLD_CACHE_LIMIT": fmt.Sprint(b.cfg.CacheLimit)}
	maps.Copy(env, b.cfg.Env)
	return manifold.Assignment{
		App: b.App.ID, AppName: b.App.Name, Dyno: manifold.DynoName("build", 1+rand.IntN(9999)),
		Kind: manifold.KindOneOff, Layers: layers, Command: bootstrap, Env: env,
		Size: manifold.BuildSize, TTL: b.cfg.TimeLimit,
		Job: &manifold.Job{Outputs: []manifold.Output{
			// Twice the limit, so that who is over it learns by how much.
			{Name: outputSlug, Path: "/tmp/slug", Image: true, Limit: 2 * b.cfg.SlugLimit},
			{Name: outputResult, Path: "/tmp/out/result.json", Limit: maxResult},
			{Name: outputCache, Path: "/tmp/out/cache.tar", Limit: b.cfg.CacheLimit},
		}},
	}
}

// log passes a line of the build on to the pusher, and remembers what the
// driver said the app is, for the sentence of a failure.
func (b *build) log(l manifold.LogLine) {
	if name, ok := strings.CutPrefix(l.Text, "-----> "); ok {
		if name, ok = strings.CutSuffix(name, " app detected"); ok {
			b.name = tidy(name)
		}
	}
	b.out.line(l.Text)
}

func (b *build) timedOut() error {
	return refuse(b.failedToCompile(), fmt.Sprintf("The build took longer than %s and was stopped.", spell(b.cfg.TimeLimit)))
}

func (b *build) failedToCompile() string {
	if b.name == "" {
		return "Push rejected, failed to compile the app."
	}
	return fmt.Sprintf("Push rejected, failed to compile %s app.", b.name)
}

// judge turns the end of the build's dyno into what its pusher must know.
func (b *build) judge(job scheduler.JobResult) error {
	r := job.Result
	switch r.Cause {
	case manifold.CauseTTL:
		return b.timedOut()
	case manifold.CauseOOM:
		return refuse(b.failedToCompile(), fmt.Sprintf("The build needed more than %d MB of memory and was stopped.", manifold.BuildSize.MemorySwap>>20))
	case manifold.CauseOutput:
		if strings.Contains(r.Detail, outputSlug) && strings.Contains(r.Detail, "too large") {
			return b.tooLarge(fmt.Sprintf("over %dM", 2*b.cfg.SlugLimit>>20))
		}
		return fmt.Errorf("the build's result was not brought home: %s", r.Detail)
	case manifold.CauseLaunch, manifold.CauseLost:
		return fmt.Errorf("the build's dyno ended without a result: %s %s", r.Cause, r.Detail)
	}
	switch r.Status {
	case 0:
		return nil
	case exitNothingFits:
		return refuse("Push rejected, no buildpack fits this app.",
			"Manifold looks in the root of the repository for one of: Gemfile (Ruby), package.json (Node.js),",
			"requirements.txt or pyproject.toml (Python), go.mod (Go), index.html or static.json (static files).",
			"Commit one of them, or name a buildpack: heroku buildpacks:set <git URL>")
	case exitNotFit:
		return refuse("Push rejected, the app is not compatible with its buildpack.",
			"See which ones it uses with: heroku buildpacks")
	case exitCompile:
		return refuse(b.failedToCompile())
	case exitFetch:
		return refuse("Push rejected, a buildpack could not be fetched. See above.")
	case exitDiskFull:
		return refuse(b.failedToCompile(), fmt.Sprintf("The build filled its disk (max is %dM and %d files).",
			manifold.BuildSize.Disk>>20, manifold.BuildSize.Inodes))
	case exitUnpack:
		return refuse("Push rejected, the source could not be unpacked. See above.")
	case exitRelease:
		return refuse("Push rejected, the buildpack's bin/release failed. See above.")
	}
	return fmt.Errorf("the build's driver ended with status %d: %s %s", r.Status, r.Cause, r.Detail)
}

// slug reads what came home.
func (b *build) slug(job scheduler.JobResult) (manifold.Slug, error) {
	home, ok := job.Outputs[outputResult]
	if !ok {
		return manifold.Slug{}, errors.New("the build brought no result home")
	}
	r, err := readResult(home.Path)
	if err != nil {
		return manifold.Slug{}, err
	}
	types, err := b.processTypes(r)
	if err != nil {
		return manifold.Slug{}, err
	}
	b.out.line("")
	b.out.step("Compressing...")
	made, ok := job.Outputs[outputSlug]
	if !ok {
		return manifold.Slug{}, errors.New("the build brought no slug home")
	}
	if made.Image.Bytes > b.cfg.SlugLimit {
		return manifold.Slug{}, b.tooLarge(fmt.Sprintf("%dM", (made.Image.Bytes+1<<20-1)>>20))
	}
	b.out.detail("Done: %s", megabytes(made.Image.Bytes))
	if made, ok := job.Outputs[outputCache]; ok {
		if err := b.cache.keep(b.App.ID, b.stack, made.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			b.cfg.Log.Warn("a build's cache is lost", "app", b.App.Name, "error", err)
		}
	}
	return manifold.Slug{
		ID: uuid.NewString(), App: b.App.ID, Image: made.Image, Stack: b.stack, Commit: b.Commit,
		Language: r.language(), ProcessTypes: types, CreatedAt: time.Now().UTC(),
	}, nil
}

func (b *build) tooLarge(size string) error {
	return refuse(fmt.Sprintf("Compiled slug size: %s is too large (max is %dM).", size, b.cfg.SlugLimit>>20),
		"List what the app does not need when it runs in .slugignore.")
}

// release makes the slug the app's next release. It completes even if the
// pusher goes away now: half a release would be worse than one they do not
// see announced.
func (b *build) release(ctx context.Context, slug manifold.Slug) (manifold.Release, error) {
	b.out.step("Launching...")
	for said := false; ; said = true {
		release, err := b.deploy(ctx, slug)
		if !errors.Is(err, store.ErrReleasing) {
			return release, err
		}
		if !said {
			b.out.detail("Waiting for the command of another release to end")
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return manifold.Release{}, context.Cause(ctx)
		}
	}
}

func (b *build) deploy(ctx context.Context, slug manifold.Slug) (manifold.Release, error) {
	if err := ctx.Err(); err != nil {
		return manifold.Release{}, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	release, err := b.cfg.Store.Deploy(ctx, b.App.ID, slug, strings.TrimSpace("Deploy "+short(b.Commit)), b.By)
	if err != nil {
		return manifold.Release{}, fmt.Errorf("release the slug: %w", err)
	}
	b.say("%s by user %s", release.Description, b.By.Email)
	if release.Status == manifold.ReleasePending {
		b.out.problem("Release command declared: this new release will not be available until the command succeeds.")
	} else {
		b.say("Release v%d created by user %s", release.Version, b.By.Email)
	}
	b.out.detail("Released v%d", release.Version)
	return release, nil
}

// launch tells how the release came to serve, or that it did not: a release
// command that fails is the release's failure, not the push's, as on Heroku. A
// pusher who goes away leaves the command running.
func (b *build) launch(ctx context.Context, release manifold.Release) (manifold.Release, error) {
	if release.Status == manifold.ReleasePending {
		b.out.line("Running release command...")
		b.out.line("")
		now, err := b.cfg.Follow(ctx, release, b.out)
		if errors.Is(err, store.ErrNotFound) {
			return release, err // with its app
		}
		if err != nil { // the release is made all the same, and so is the push
			b.cfg.Log.Warn("a release's command is not followed any more", "app", b.App.Name, "version", release.Version, "error", err)
			b.out.problem(fmt.Sprintf("Release v%d is made, and its command goes on, but it is not followed here any more.", release.Version),
				fmt.Sprintf("See what it prints: heroku releases:output v%d", release.Version))
			return release, nil
		}
		if now.Status != manifold.ReleaseSucceeded {
			b.out.line("Waiting for release... failed.")
			b.out.problem(fmt.Sprintf("The command of release v%d failed. The push is kept; what served before serves on.", now.Version),
				fmt.Sprintf("See what it printed: heroku releases:output v%d. To run it again: heroku releases:retry", now.Version))
			return now, nil
		}
		release = now
		b.out.line("Waiting for release... done.")
	}
	b.out.detail("%s deployed to Manifold", b.cfg.URL(b.App))
	b.out.line("")
	b.out.line("Verifying deploy... done.")
	return release, nil
}

// spell writes a limit as people say it.
func spell(d time.Duration) string {
	if d%time.Minute == 0 && d > time.Minute {
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return d.String()
}

// short is a commit as people write it.
func short(commit string) string { return commit[:min(8, len(commit))] }

// title is a stack's name as a push prints it: Cedar, Cedar-14.
func title(stack string) string {
	if stack == "" {
		return stack
	}
	return strings.ToUpper(stack[:1]) + stack[1:]
}
