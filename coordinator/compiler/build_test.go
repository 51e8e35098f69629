package compiler

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/outputs"
	"manifold/coordinator/scheduler"
)

// fakeRunner plays the scheduler and the build's dyno: it reads the input and
// answers as its test says.
type fakeRunner struct {
	t      *testing.T
	lines  []string
	result manifold.Result
	err    error
	files  map[string]string // outputs that are files
	slug   int64             // bytes; 0: none
	reads  int               // how often the input is read; 0 is once
	during func(ctx context.Context)

	job   manifold.Assignment
	input map[string]string // name → content, of the last reading
	modes map[string]int64
}

func (r *fakeRunner) RunJob(ctx context.Context, j scheduler.Job) (scheduler.JobResult, error) {
	r.job = j.Assignment
	for range max(r.reads, 1) {
		var buf bytes.Buffer
		if err := j.Input(&buf); err != nil {
			<-ctx.Done() // as the agent's end would wait for its input
			return scheduler.JobResult{}, ctx.Err()
		}
		r.read(&buf)
	}
	for _, l := range r.lines {
		j.Log(manifold.LogLine{Text: l})
	}
	if r.during != nil {
		r.during(ctx)
	}
	if ctx.Err() != nil {
		return scheduler.JobResult{}, ctx.Err()
	}
	out := map[string]scheduler.Output{}
	dir := r.t.TempDir()
	for name, text := range r.files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			r.t.Error(err)
		}
		out[name] = scheduler.Output{Path: path}
	}
	if r.slug > 0 {
		out[outputSlug] = scheduler.Output{Image: manifold.Image{Digest: "sha256:" + strings.Repeat("a", 64), Bytes: r.slug}}
	}
	return scheduler.JobResult{Result: r.result, Outputs: out}, r.err
}

func (r *fakeRunner) read(input io.Reader) {
	r.input, r.modes = map[string]string{}, map[string]int64{}
	tr := tar.NewReader(input)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			r.t.Errorf("the input is no tar: %v", err)
			return
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			r.t.Error(err)
		}
		if h.Typeflag == tar.TypeSymlink {
			content = []byte("-> " + h.Linkname)
		}
		r.input[h.Name], r.modes[h.Name] = string(content), h.Mode
	}
}

type fakeStore struct {
	config   map[string]string
	err      error
	deployed []manifold.Slug
	builds   []manifold.Build // as they were written down
	during   func(manifold.Build)
	full     error // of the next build that has ended
	said     string
	status   string // of the releases
}

func (s *fakeStore) NewestRelease(context.Context, string) (manifold.Release, error) {
	return manifold.Release{Version: 2 + len(s.deployed), Config: s.config}, nil
}

func (s *fakeStore) PutBuild(_ context.Context, b *manifold.Build) ([]string, error) {
	if s.during != nil {
		s.during(*b)
	}
	if err := s.full; err != nil && b.Status != manifold.BuildPending {
		s.full = nil
		return nil, err
	}
	s.builds = append(s.builds, *b)
	return nil, nil
}

func (s *fakeStore) Deploy(_ context.Context, _ string, slug manifold.Slug, description string, _ manifold.User) (manifold.Release, error) {
	if s.err != nil {
		return manifold.Release{}, s.err
	}
	s.deployed, s.said = append(s.deployed, slug), description
	return manifold.Release{Version: 2 + len(s.deployed), Description: description, Status: s.status}, nil
}

func resultJSON(language, procfile, release string) string {
	b := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	p := "null"
	if procfile != "" {
		p = `"` + b(procfile) + `"`
	}
	return fmt.Sprintf(`{"language":"%s","procfile":%s,"release":"%s","buildpacks":["%s"]}`, b(language), p, b(release), b(language))
}

// rig is a compiler with its fakes, set up for a build that succeeds.
type rig struct {
	*Compiler
	runner *fakeRunner
	store  *fakeStore
	out    bytes.Buffer
	log    []string // of the app
	req    Request
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{runner: &fakeRunner{t: t, result: manifold.Result{Cause: manifold.CauseExit}, slug: 1258291}, store: &fakeStore{}}
	r.runner.lines = []string{"-----> Go app detected", "-----> Using go1.26.0"}
	r.runner.files = map[string]string{
		outputResult: resultJSON("Go\n", "worker: bin/worker\n", "default_process_types:\n  web: bin/web\n  worker: no\n"),
		outputCache:  "the cache",
	}
	kept, err := outputs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kept.Close() })
	cfg := Config{
		Dir: t.TempDir(), Outputs: kept, Runner: r.runner, Store: r.store, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Layers: func(string) ([]manifold.Image, error) { return []manifold.Image{{Digest: "sha256:build"}}, nil },
		URL:    func(a manifold.App) string { return "http://" + a.Name + ".localhost:8080" },
		Say:    func(app, text string) { r.log = append(r.log, app+": "+text) },
	}
	if change != nil {
		change(&cfg)
	}
	if r.Compiler, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	r.req = Request{
		App: manifold.App{ID: "id-of-demo", Name: "demo", Stack: "old", BuildStack: "cedar"}, By: manifold.User{Email: "a@localhost"},
		Commit: "a3f713b000000000000000000000000000000000", Source: source(map[string]string{"main.go": "package main\n"}),
	}
	return r
}

func source(files map[string]string) func(io.Writer) error {
	return func(w io.Writer) error {
		tw := tar.NewWriter(w)
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "x"}}); err != nil {
			return err
		}
		for name, content := range files {
			h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), Format: tar.FormatGNU}
			if target, ok := strings.CutPrefix(content, "-> "); ok {
				h.Typeflag, h.Linkname, h.Size, content = tar.TypeSymlink, target, 0, ""
			}
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
			if _, err := io.WriteString(tw, content); err != nil {
				return err
			}
		}
		return tw.Close()
	}
}

func (r *rig) build(t *testing.T) (manifold.Release, error) {
	t.Helper()
	r.out.Reset()
	return r.Build(t.Context(), r.req, &r.out)
}

func (r *rig) says(t *testing.T, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(r.out.String(), p) {
			t.Errorf("missing %q in:\n%s", p, r.out.String())
		}
	}
}

func TestBuildReleases(t *testing.T) {
	r := newRig(t, nil)
	release, err := r.build(t)
	if err != nil || release.Version != 3 {
		t.Fatalf("%+v, %v\n%s", release, err, r.out.String())
	}
	const want = `Building source:

-----> Building on the Cedar stack
-----> Go app detected
-----> Using go1.26.0
-----> Discovering process types
       Procfile declares types -> worker
       Default types for Go    -> web

-----> Compressing...
       Done: 1.2M
-----> Launching...
       Released v3
       http://demo.localhost:8080 deployed to Manifold

Verifying deploy... done.
`
	if got := r.out.String(); got != want {
		t.Errorf("the pusher reads:\n%s\nwant:\n%s", got, want)
	}
	if want := []string{
		"id-of-demo: Build started by user a@localhost", "id-of-demo: Deploy a3f713b0 by user a@localhost",
		"id-of-demo: Release v3 created by user a@localhost", "id-of-demo: Build succeeded",
	}; !slices.Equal(r.log, want) {
		t.Errorf("the app's log says %q, want %q", r.log, want)
	}
	slug := r.store.deployed[0]
	if slug.Language != "Go" || slug.Stack != "cedar" || slug.Commit != r.req.Commit || slug.Image.Bytes != 1258291 || slug.App != "id-of-demo" ||
		!maps.Equal(slug.ProcessTypes, map[string]string{"worker": "bin/worker", "web": "bin/web"}) {
		t.Errorf("slug %+v", slug)
	}
	if r.store.said != "Deploy a3f713b0" {
		t.Errorf("description %q", r.store.said)
	}
	if r.runner.job.TTL != 15*time.Minute || r.runner.job.Size != manifold.BuildSize || r.runner.job.Kind != manifold.KindOneOff {
		t.Errorf("assignment %+v", r.runner.job)
	}
}

// The config vars are files and nothing else; what the operator passes
// through is environment.
func TestInput(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte("CERTIFICATE"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *Config) { c.CA, c.Env = ca, map[string]string{"GOPROXY": "https://mirror.invalid"} })
	r.store.config = map[string]string{"SECRET": "hunter2\nsecond line"}
	r.req.Source = source(map[string]string{"main.go": "package main\n", "latin-\xe9\nx": "odd", "link": "-> /etc/shadow", strings.Repeat("long/", 60) + "f": "deep"})
	r.runner.reads = 2 // the agent may begin anew
	if _, err := r.build(t); err != nil {
		t.Fatalf("%v\n%s", err, r.out.String())
	}
	in := r.runner.input
	for name, want := range map[string]string{
		"ca.pem": "CERTIFICATE", "env/SECRET": "hunter2\nsecond line", "source/main.go": "package main\n", "source/latin-\xe9\nx": "odd",
		"source/link": "-> /etc/shadow", "source/" + strings.Repeat("long/", 60) + "f": "deep", "driver": string(driver),
		"packs": "00 tree ruby\n01 tree nodejs\n02 tree python\n03 tree go\n04 tree static\n",
	} {
		if in[name] != want {
			t.Errorf("%q holds %.80q, want %.80q", name, in[name], want)
		}
	}
	for _, name := range []string{"bin/detect", "bin/compile", "bin/release"} {
		for i := range order {
			if p := fmt.Sprintf("buildpacks/%02d/%s", i, name); r.runner.modes[p] != 0o755 && !strings.HasSuffix(name, "release") {
				t.Errorf("%s: mode %o", p, r.runner.modes[p])
			}
		}
	}
	if _, ok := in["chosen"]; ok {
		t.Error("nobody chose a buildpack")
	}
	env := r.runner.job.Env
	if env["GOPROXY"] != "https://mirror.invalid" || env["STACK"] != "cedar" || env["SOURCE_VERSION"] != r.req.Commit || env["SECRET"] != "" {
		t.Errorf("environment %v", env)
	}
	if strings.Contains(r.runner.job.Command, "hunter2") || strings.Contains(r.out.String(), "hunter2") {
		t.Error("a config var is where it must not be")
	}
}

func TestFailuresAreSentences(t *testing.T) {
	exit := func(status int) func(*rig) {
		return func(r *rig) { r.runner.result = manifold.Result{Cause: manifold.CauseExit, Status: status} }
	}
	cause := func(c manifold.Cause, detail string) func(*rig) {
		return func(r *rig) { r.runner.result = manifold.Result{Cause: c, Status: 137, Detail: detail} }
	}
	result := func(text string) func(*rig) {
		return func(r *rig) { r.runner.files[outputResult] = text }
	}
	const ours = "not in your app"
	for _, c := range []struct {
		name   string
		change func(*rig)
		want   string
	}{
		{"nothing fits", exit(exitNothingFits), " !     Push rejected, no buildpack fits this app."},
		{"compile", exit(exitCompile), " !     Push rejected, failed to compile Go app."},
		{"not fit", exit(exitNotFit), "not compatible with its buildpack"},
		{"fetch", exit(exitFetch), "could not be fetched"},
		{"disk", exit(exitDiskFull), "The build filled its disk (max is 8192M"},
		{"release", exit(exitRelease), "bin/release failed"},
		{"driver", exit(1), ours},
		{"time", cause(manifold.CauseTTL, ""), "The build took longer than 15 minutes"},
		{"memory", cause(manifold.CauseOOM, ""), "more than 4096 MB of memory"},
		{"launch", cause(manifold.CauseLaunch, "secret path"), ours},
		{"lost", cause(manifold.CauseLost, ""), ours},
		{"slug far over the limit", cause(manifold.CauseOutput, "output slug: too large: over 1048576000 bytes"), "Compiled slug size: over 1000M is too large (max is 500M)."},
		{"output", cause(manifold.CauseOutput, "output slug: no such file"), ours},
		{"slug over the limit", func(r *rig) { r.runner.slug = 550 << 20 }, "Compiled slug size: 550M is too large (max is 500M)."},
		{"no slug", func(r *rig) { r.runner.slug = 0 }, ours},
		{"no result", func(r *rig) { delete(r.runner.files, outputResult) }, ours},
		{"result is garbage", result("{"), ours},
		{"result is huge", result(`{"language":"` + strings.Repeat("A", maxResult) + `"}`), ours},
		{"bad Procfile", result(resultJSON("Go", "web\n", "")), "Procfile line 1: \"web\" is not of the form"},
		{"bad release", result(resultJSON("Go", "", "- x\n")), "Push rejected, the buildpack's bin/release cannot be used: it must be a map"},
		{"no host", func(r *rig) { r.runner.err = fmt.Errorf("run job: %w", scheduler.ErrNoHost) }, "no host is online"},
		{"scheduler", func(r *rig) { r.runner.err = errors.New("secret path") }, ours},
		{"store", func(r *rig) { r.store.err = errors.New("secret path") }, ours},
		{"unknown buildpack", func(r *rig) { r.req.App.Buildpacks = []string{"cobol"} }, `Buildpack "cobol" is not known.`},
		{"hostile checkout", func(r *rig) { r.req.Source = source(map[string]string{"../x": ""}) }, "leads out of it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			c.change(r)
			_, err := r.build(t)
			if err == nil || len(r.store.deployed) != 0 {
				t.Fatalf("released:\n%s", r.out.String())
			}
			r.says(t, c.want, " !     Push failed")
			if strings.Contains(r.out.String(), "secret path") || strings.Contains(r.out.String(), "deployed to") {
				t.Errorf("the pusher reads:\n%s", r.out.String())
			}
		})
	}
}

func TestTheCheckoutIsBounded(t *testing.T) {
	r := newRig(t, func(c *Config) { c.SourceLimit = 1 << 20 })
	r.req.Source = source(map[string]string{"a": strings.Repeat("x", 1<<19), "b": strings.Repeat("x", 1<<19+1)})
	if _, err := r.build(t); err == nil {
		t.Fatal("released")
	}
	r.says(t, "The checkout is too large (max is 1M")
}

func TestCancelStopsTheBuild(t *testing.T) {
	r := newRig(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	r.runner.during = func(jobCtx context.Context) { cancel(); <-jobCtx.Done() }
	if _, err := r.Build(ctx, r.req, &r.out); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	r.says(t, "Build cancelled. Nothing was released.")
}

func TestOneBuildAtATime(t *testing.T) {
	r := newRig(t, nil)
	entered, leave := make(chan struct{}), make(chan struct{})
	r.runner.during = func(context.Context) { close(entered); <-leave }
	first := make(chan error, 1)
	go func() { _, err := r.Build(t.Context(), r.req, io.Discard); first <- err }()
	<-entered
	var out bytes.Buffer
	if _, err := r.Build(t.Context(), r.req, &out); err == nil || !strings.Contains(out.String(), "Another build of this app is running") {
		t.Errorf("a second build: %v\n%s", err, out.String())
	}
	close(leave)
	if err := <-first; err != nil {
		t.Error(err)
	}
	r.runner.during = nil
	if _, err := r.build(t); err != nil {
		t.Errorf("after it: %v", err)
	}
}

func TestBuildsQueue(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Builds = 1 })
	r.slots <- struct{}{} // someone else builds
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := r.Build(ctx, r.req, &r.out); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	r.says(t, "Waiting for another app's build to end")
	<-r.slots
	if _, err := r.build(t); err != nil {
		t.Error(err)
	}
}

func TestTheCacheComesBack(t *testing.T) {
	r := newRig(t, func(c *Config) { c.CacheLimit = 100 })
	for i, want := range []string{"", "the cache", "second"} {
		if i == 1 {
			r.runner.files[outputCache] = "second"
		}
		if _, err := r.build(t); err != nil {
			t.Fatal(err)
		}
		if r.runner.input["cache.tar"] != want {
			t.Errorf("build %d got cache %q, want %q", i, r.runner.input["cache.tar"], want)
		}
	}
	r.req.App.BuildStack = "cedar-14"
	if _, err := r.build(t); err != nil || r.runner.input["cache.tar"] != "" {
		t.Errorf("another stack's build got cache %q (%v)", r.runner.input["cache.tar"], err)
	}
	r.runner.files[outputCache] = strings.Repeat("x", 101)
	if _, err := r.build(t); err != nil {
		t.Fatal(err)
	}
	if _, err := r.build(t); err != nil || r.runner.input["cache.tar"] != "" {
		t.Errorf("a cache over the limit was kept (%v)", err)
	}
	r.runner.files[outputCache] = "kept"
	if _, err := r.build(t); err != nil {
		t.Fatal(err)
	}
	if err := r.Collect(func(app string) bool { return app == "id-of-demo" }); err != nil || !exists(r.cfg.Dir, "id-of-demo@cedar-14.tar") {
		t.Errorf("the cache of an app that is there was removed (%v)", err)
	}
	if err := r.Collect(func(string) bool { return false }); err != nil || exists(r.cfg.Dir, "id-of-demo@cedar-14.tar") {
		t.Errorf("the cache of a deleted app is still there (%v)", err)
	}
}

func exists(elem ...string) bool { _, err := os.Stat(filepath.Join(elem...)); return err == nil }
