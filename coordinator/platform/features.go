package platform

import (
	"maps"

	"manifold"
)

// featureRoutes are the switches of manifold.Features. There are none of an
// account: the CLI asks there first, and goes on at the app when told so.
func featureRoutes(a *api) routes {
	return routes{
		"GET /apps/{app}/features":             onApp(a.features),
		"GET /apps/{app}/features/{feature}":   onApp(a.feature),
		"PATCH /apps/{app}/features/{feature}": onApp(a.patchFeature),
		"GET /account/features":                func(*call) (answer, error) { return ok([]object{}) },
		"GET /account/features/{feature}":      none("feature"),
		"PATCH /account/features/{feature}":    none("feature"),
	}
}

func (a *api) features(c *call, app manifold.App) (answer, error) {
	show := func(f manifold.Feature) any { return featureObject(app, f) }
	return list(c, manifold.Features(), show,
		key[manifold.Feature]{name: "name", of: func(f manifold.Feature) string { return f.Name }},
		key[manifold.Feature]{name: "id", of: func(f manifold.Feature) string { return fixedID("feature", f.Name) }})
}

// findFeature finds one by name or id.
func findFeature(name string) (manifold.Feature, error) {
	for _, f := range manifold.Features() {
		if name == fixedID("feature", f.Name) {
			return f, nil
		}
	}
	if name == "runtime-heroku-exec" { // what heroku ps:exec asks for first
		return manifold.Feature{}, notFound("feature", "heroku ps:exec does not work here. For a shell in a running dyno: heroku run:inside web.1 bash -a APP")
	}
	f, err := manifold.ParseFeature(name)
	if err != nil {
		return f, notFound("feature", err.Error()+".")
	}
	return f, nil
}

func (a *api) feature(c *call, app manifold.App) (answer, error) {
	f, err := findFeature(c.PathValue("feature"))
	if err != nil {
		return answer{}, err
	}
	return ok(featureObject(app, f))
}

func (a *api) patchFeature(c *call, app manifold.App) (answer, error) {
	f, err := findFeature(c.PathValue("feature"))
	if err != nil {
		return answer{}, err
	}
	var in struct{ Enabled *bool }
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	if in.Enabled == nil {
		return answer{}, invalidParams("Enabled is missing: it must be true or false.")
	}
	app, err = a.Store.UpdateApp(c.Context(), app.ID, func(app *manifold.App) error {
		set := maps.Clone(app.Features)
		if set == nil {
			set = map[string]bool{}
		}
		set[f.Name] = *in.Enabled
		app.Features = set
		return nil
	})
	if err != nil {
		return answer{}, err
	}
	return ok(featureObject(app, f))
}
