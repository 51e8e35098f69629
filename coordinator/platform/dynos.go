package platform

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"manifold"
	"manifold/coordinator/scheduler"
)

func dynoRoutes(a *api) routes {
	return routes{
		"GET /apps/{app}/dynos":                           onApp(a.dynos),
		"POST /apps/{app}/dynos":                          onApp(a.startOneOff),
		"DELETE /apps/{app}/dynos":                        onApp(a.restartAll),
		"GET /apps/{app}/dynos/{dyno}":                    onApp(a.dyno),
		"POST /apps/{app}/dynos/{dyno}":                   onApp(a.execInDyno),
		"DELETE /apps/{app}/dynos/{dyno}":                 onApp(a.restartDyno),
		"POST /apps/{app}/dynos/{dyno}/actions/stop":      onApp(a.restartDyno),
		"DELETE /apps/{app}/formations/{type}":            onApp(a.restartType),
		"POST /apps/{app}/formations/{type}/actions/stop": onApp(a.stopType),
	}
}

// running lists the app's dynos that are there or on their way, web.2 before
// web.10.
func (a *api) running(app manifold.App) []scheduler.Dyno {
	all := slices.DeleteFunc(a.Dynos.Dynos(app.ID), func(d scheduler.Dyno) bool { return d.State == manifold.StateComplete })
	slices.SortStableFunc(all, func(x, y scheduler.Dyno) int {
		return cmp.Or(strings.Compare(x.Type, y.Type), cmp.Compare(len(x.Name), len(y.Name)), strings.Compare(x.Name, y.Name))
	})
	return all
}

func (a *api) dynos(c *call, app manifold.App) (answer, error) {
	dynos := a.running(app)
	ids, err := a.releaseIDs(c, app, dynos)
	if err != nil {
		return answer{}, err
	}
	shown := make([]object, len(dynos))
	for i, d := range dynos {
		shown[i] = dynoObject(app, d, ids[d.Release])
	}
	return ok(shown)
}

// releaseIDs maps the versions the dynos run to the releases' ids.
func (a *api) releaseIDs(c *call, app manifold.App, dynos []scheduler.Dyno) (map[int]string, error) {
	current, err := a.Store.CurrentRelease(c.Context(), app.ID)
	if err != nil {
		return nil, err
	}
	ids := map[int]string{current.Version: current.ID}
	for _, d := range dynos {
		if ids[d.Release] != "" {
			continue
		}
		// Only while dynos of an older release are on their way out.
		all, err := a.Store.History(c.Context(), app.ID)
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			ids[r.Version] = r.ID
		}
		break
	}
	return ids, nil
}

func (a *api) dyno(c *call, app manifold.App) (answer, error) {
	name := c.PathValue("dyno")
	for _, d := range a.running(app) {
		if d.Name == name || d.Assignment == name {
			ids, err := a.releaseIDs(c, app, []scheduler.Dyno{d})
			if err != nil {
				return answer{}, err
			}
			return ok(dynoObject(app, d, ids[d.Release]))
		}
	}
	return answer{}, a.noSuchDyno(app, name)
}

func (a *api) restartAll(c *call, app manifold.App) (answer, error) {
	if err := a.Dynos.Restart(c.Context(), app.ID, func(string) bool { return true }); err != nil {
		return answer{}, err
	}
	c.say(app, "Restarted all dynos")
	return accepted()
}

// restartDyno restarts one dyno, and stops one too: the formation still asks
// for a dyno in its place, so that a new one is started at once. A one-off
// dyno has no place to fill: it ends.
func (a *api) restartDyno(c *call, app manifold.App) (answer, error) {
	name := c.PathValue("dyno")
	for _, d := range a.running(app) {
		if d.Name != name && d.Assignment != name {
			continue
		}
		only := func(dyno string) bool { return dyno == d.Name }
		if d.Kind == manifold.KindOneOff {
			return a.stop(c, app, d.Name, only)
		}
		return a.restart(c, app, d.Name, only)
	}
	// Older CLIs say "ps:restart web" this way.
	formation, err := a.Store.Formation(c.Context(), app.ID)
	if err != nil {
		return answer{}, err
	}
	if slices.ContainsFunc(formation, func(f manifold.Formation) bool { return f.Type == name }) {
		return a.restart(c, app, name, ofType(name))
	}
	return answer{}, a.noSuchDyno(app, name)
}

func (a *api) restartType(c *call, app manifold.App) (answer, error) {
	typ := c.PathValue("type")
	formation, err := a.Store.Formation(c.Context(), app.ID)
	if err != nil {
		return answer{}, err
	}
	if !slices.ContainsFunc(formation, func(f manifold.Formation) bool { return f.Type == typ }) {
		return answer{}, noSuchType(app, formation, typ)
	}
	return a.restart(c, app, typ, ofType(typ))
}

// stopType ends the one-off dynos of a type, such as run, and restarts those
// of the formation.
func (a *api) stopType(c *call, app manifold.App) (answer, error) {
	typ := c.PathValue("type")
	n, err := a.Dynos.Stop(c.Context(), app.ID, ofType(typ))
	if err != nil {
		return answer{}, err
	}
	ans, err := a.restartType(c, app)
	if n > 0 && err != nil {
		c.say(app, "Stopped %s", typ)
		return accepted()
	}
	return ans, err
}

func ofType(typ string) func(string) bool {
	return func(dyno string) bool { return strings.HasPrefix(dyno, typ+".") }
}

func (a *api) restart(c *call, app manifold.App, what string, match func(string) bool) (answer, error) {
	if err := a.Dynos.Restart(c.Context(), app.ID, match); err != nil {
		return answer{}, err
	}
	c.say(app, "Restarted %s", what)
	return accepted()
}

func (a *api) stop(c *call, app manifold.App, what string, match func(string) bool) (answer, error) {
	if _, err := a.Dynos.Stop(c.Context(), app.ID, match); err != nil {
		return answer{}, err
	}
	c.say(app, "Stopped %s", what)
	return accepted()
}

func (a *api) noSuchDyno(app manifold.App, name string) error {
	return notFound("dyno", fmt.Sprintf("%s has no dyno %q. See which it has with: heroku ps -a %s", app.Name, clip(name), app.Name))
}
