package platform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/compiler"
	"manifold/coordinator/sources"
	"manifold/coordinator/store"
)

// Builds is the slug compiler, as far as the API needs it. Apps are named by
// id.
type Builds interface {
	Start(r compiler.Request) (manifold.Build, error)
	Cancel(app, build string) bool
	Purge(app string) error
	Tarball(open func() (io.ReadCloser, error)) func(w io.Writer) error
}

// Outputs gives what builds printed, whole once they have ended.
type Outputs interface {
	Copy(ctx context.Context, name string, w io.Writer) error
}

func buildRoutes(a *api) routes {
	return routes{
		"GET /apps/{app}/builds":                onApp(a.builds),
		"POST /apps/{app}/builds":               onApp(a.createBuild),
		"GET /apps/{app}/builds/{build}":        onApp(a.build),
		"DELETE /apps/{app}/builds/{build}":     onApp(a.cancelBuild),
		"GET /apps/{app}/builds/{build}/result": onApp(a.buildResult),
		"DELETE /apps/{app}/build-cache":        onApp(a.purgeBuildCache),
	}
}

func (a *api) builds(c *call, app manifold.App) (answer, error) {
	all, err := a.Store.Builds(c.Context(), app.ID)
	if err != nil {
		return answer{}, err
	}
	return list(c, all, func(b manifold.Build) any { return c.buildObject(app, b) },
		key[manifold.Build]{name: "created_at", of: func(b manifold.Build) string { return b.CreatedAt.UTC().Format("2006-01-02T15:04:05.000Z") }},
		key[manifold.Build]{name: "id", of: func(b manifold.Build) string { return b.ID }})
}

func (a *api) build(c *call, app manifold.App) (answer, error) {
	b, err := a.findBuild(c, app)
	if err != nil {
		return answer{}, err
	}
	return ok(c.buildObject(app, b))
}

func (a *api) findBuild(c *call, app manifold.App) (manifold.Build, error) {
	id := c.PathValue("build")
	err := store.ErrNotFound
	var b manifold.Build
	if uuid.Validate(id) == nil {
		b, err = a.Store.Build(c.Context(), app.ID, id)
	}
	if errors.Is(err, store.ErrNotFound) {
		err = notFound("build", fmt.Sprintf("%s has no build %q.", app.Name, clip(id)))
	}
	return b, err
}

// createBuild builds a source that was uploaded, and releases it.
func (a *api) createBuild(c *call, app manifold.App) (answer, error) {
	var in struct {
		Source struct {
			URL, Version, Checksum *string
		} `json:"source_blob"`
		Buildpacks []struct{ URL string }
	}
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	if in.Source.URL == nil || *in.Source.URL == "" {
		return answer{}, invalidParams("The build needs a source_blob with a url: make one with POST /sources, and upload a gzipped tar to its put_url.")
	}
	req := compiler.Request{App: app, By: c.user, Author: c.signature("")}
	set(&req.Commit, in.Source.Version)
	if err := checkVersion(req.Commit); err != nil {
		return answer{}, err
	}
	if len(in.Buildpacks) > maxBuildpacks {
		return answer{}, invalidParams(fmt.Sprintf("A build may have at most %d buildpacks.", maxBuildpacks))
	}
	if len(in.Buildpacks) > 0 {
		req.App.Buildpacks = nil // for this build only
	}
	for _, b := range in.Buildpacks {
		if err := checkBuildpack(b.URL); err != nil {
			return answer{}, err
		}
		req.App.Buildpacks = append(req.App.Buildpacks, b.URL)
	}
	open, err := a.findSource(*in.Source.URL, in.Source.Checksum)
	if err != nil {
		return answer{}, err
	}
	req.Source = a.Builds.Tarball(open)
	b, err := a.Builds.Start(req)
	if errors.Is(err, compiler.ErrBusy) {
		return answer{}, &fault{Status: http.StatusConflict, ID: "conflict", Message: "Another build of this app is running. Wait until it has ended, or cancel it."}
	}
	if err != nil {
		return answer{}, err
	}
	return created(c.buildObject(app, b))
}

// checkVersion keeps what goes into logs, descriptions and the build's
// environment to a line of text.
func checkVersion(version string) error {
	if len(version) > manifold.MaxVersion || !utf8.ValidString(version) ||
		strings.ContainsFunc(version, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return invalidParams(fmt.Sprintf("The version of a source must be printable text of at most %d bytes.", manifold.MaxVersion))
	}
	return nil
}

// findSource tells at once of a source that cannot be had.
func (a *api) findSource(url string, checksum *string) (open func() (io.ReadCloser, error), err error) {
	var f io.ReadCloser
	if open, err = a.Sources.Find(url); err == nil {
		f, err = open()
	}
	if errors.Is(err, sources.ErrUnknown) {
		return nil, invalidParams("The source_blob's url cannot be used: " + err.Error() + ".")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if checksum == nil || *checksum == "" {
		return open, nil
	}
	same, err := sources.Matches(f, *checksum)
	if err == nil && !same {
		err = invalidParams("The source that was uploaded does not have the checksum that was given (SHA256:<hex>).")
	}
	return open, err
}

// cancelBuild ends a build that runs, by a push too.
func (a *api) cancelBuild(c *call, app manifold.App) (answer, error) {
	b, err := a.findBuild(c, app)
	if err != nil {
		return answer{}, err
	}
	if b.Status != manifold.BuildPending || !a.Builds.Cancel(app.ID, b.ID) {
		return answer{}, invalidParams("This build has ended. Only one that is pending can be cancelled.")
	}
	c.say(app, "Build cancelled")
	b.Status = manifold.BuildFailed
	return ok(c.buildObject(app, b))
}

// buildResult is the build as clients of before output streams read it.
func (a *api) buildResult(c *call, app manifold.App) (answer, error) {
	b, err := a.findBuild(c, app)
	if err != nil {
		return answer{}, err
	}
	lines, exit := []object{}, any(nil)
	if b.Status != manifold.BuildPending {
		var out bytes.Buffer // bounded by its room
		if err := a.Outputs.Copy(c.Context(), b.Output, &out); err != nil {
			return answer{}, notFound("build", "What this build printed is not kept any more.")
		}
		for line := range strings.Lines(strings.ToValidUTF8(out.String(), "\uFFFD")) {
			lines = append(lines, object{"stream": "STDOUT", "line": line})
		}
		exit = 1
		if b.Status == manifold.BuildSucceeded {
			exit = 0
		}
	}
	shown := object{"id": b.ID, "status": b.Status, "output_stream_url": c.url("/outputs/" + b.Output)}
	return ok(object{"build": shown, "exit_code": exit, "lines": lines})
}

func (a *api) purgeBuildCache(c *call, app manifold.App) (answer, error) {
	if err := a.Builds.Purge(app.ID); err != nil {
		return answer{}, err
	}
	c.say(app, "Purge build cache")
	return ok(object{})
}

func (c *call) buildObject(app manifold.App, b manifold.Build) object {
	ref := func(id string) any {
		if id == "" {
			return nil
		}
		return object{"id": id}
	}
	var version any
	if b.Version != "" {
		version = b.Version
	}
	packs := make([]object, len(b.Buildpacks))
	for i, url := range b.Buildpacks {
		packs[i] = object{"name": url, "url": url}
	}
	return object{
		"id": b.ID, "app": appRef(app), "buildpacks": packs, "stack": b.Stack, "status": b.Status,
		"output_stream_url": c.url("/outputs/" + b.Output), "release": ref(b.Release), "slug": ref(b.Slug),
		"source_blob": object{"checksum": nil, "url": "", "version": version, "version_description": nil},
		"user":        object{"id": b.UserID, "email": b.User},
		"created_at":  when(b.CreatedAt), "updated_at": when(b.UpdatedAt),
	}
}
