package platform

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"manifold"
	"manifold/coordinator/compiler"
)

const (
	maxBuildpacks   = 20
	maxBuildpackURL = 2048
)

func buildpackRoutes(a *api) routes {
	return routes{
		"GET /apps/{app}/buildpack-installations": onApp(a.buildpacks),
		"PUT /apps/{app}/buildpack-installations": onApp(a.setBuildpacks),
	}
}

func (a *api) buildpacks(_ *call, app manifold.App) (answer, error) { return ok(buildpackObjects(app)) }

// setBuildpacks replaces the whole list. The next build uses it.
func (a *api) setBuildpacks(c *call, app manifold.App) (answer, error) {
	var in struct {
		Updates []struct{ Buildpack string }
	}
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	if len(in.Updates) > maxBuildpacks {
		return answer{}, invalidParams(fmt.Sprintf("An app may have at most %d buildpacks.", maxBuildpacks))
	}
	urls := make([]string, len(in.Updates))
	for i, u := range in.Updates {
		if err := checkBuildpack(u.Buildpack); err != nil {
			return answer{}, err
		}
		urls[i] = u.Buildpack
	}
	app, err := a.Store.UpdateApp(c.Context(), app.ID, func(app *manifold.App) error {
		app.Buildpacks = urls
		return nil
	})
	if err != nil {
		return answer{}, err
	}
	return ok(buildpackObjects(app))
}

var buildpackName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9._-]*)?$`)

// checkBuildpack accepts a name such as "go" or "heroku/go", an absolute path
// on the platform, or a git URL. What git would run rather than fetch, and
// what it would take for an option, is refused here and again by the builder.
func checkBuildpack(s string) error {
	refuse := func(why string) error {
		return &manifold.InvalidError{What: "Buildpack", Why: fmt.Sprintf("%q %s", clip(s), why)}
	}
	if s == "" {
		// This is also what the CLI sends for a name that our registry does not know.
		return invalidParams("Buildpack not found: there is none of that name here. Name one of " + strings.Join(compiler.Included(), ", ") + ", or give a git URL or an absolute path.")
	}
	if len(s) > maxBuildpackURL || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return refuse("is too long or has blanks in it")
	}
	if buildpackName.MatchString(s) || strings.HasPrefix(s, "/") {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "git" {
		return refuse("is neither a name, an absolute path, nor an https, http or git URL")
	}
	return nil
}
