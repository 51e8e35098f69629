package platform

import (
	"errors"

	"manifold"
	"manifold/coordinator/store"
)

func drainRoutes(a *api) routes {
	return routes{
		"GET /apps/{app}/log-drains":            onApp(a.drains),
		"POST /apps/{app}/log-drains":           onApp(a.addDrain),
		"GET /apps/{app}/log-drains/{drain}":    onApp(a.drain),
		"DELETE /apps/{app}/log-drains/{drain}": onApp(a.removeDrain),
	}
}

func (a *api) drains(c *call, app manifold.App) (answer, error) {
	drains, err := a.Store.Drains(c.Context(), app.ID)
	if err != nil {
		return answer{}, err
	}
	return list(c, drains, func(d manifold.Drain) any { return drainObject(d) },
		key[manifold.Drain]{name: "id", of: func(d manifold.Drain) string { return d.ID }})
}

func (a *api) drain(c *call, app manifold.App) (answer, error) {
	drains, err := a.Store.Drains(c.Context(), app.ID)
	if err != nil {
		return answer{}, err
	}
	for _, d := range drains {
		if store.DrainNamed(d, c.PathValue("drain")) {
			return ok(drainObject(d))
		}
	}
	return answer{}, noSuchDrain(app)
}

// addDrain begins to send the app's lines on: those that come from now on.
func (a *api) addDrain(c *call, app manifold.App) (answer, error) {
	var in struct{ URL string }
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	if in.URL == "" {
		return answer{}, invalidParams("Url is missing. Say where the log lines shall go, as in: heroku drains:add syslog+tls://logs.example.com:6514")
	}
	d, err := a.Store.AddDrain(c.Context(), app.ID, in.URL)
	if errors.Is(err, store.ErrTaken) {
		err = invalidParams("Url has already been taken: this log drain is there.")
	}
	if err != nil {
		return answer{}, err
	}
	return created(drainObject(d))
}

func (a *api) removeDrain(c *call, app manifold.App) (answer, error) {
	d, err := a.Store.RemoveDrain(c.Context(), app.ID, c.PathValue("drain"))
	if errors.Is(err, store.ErrNotFound) {
		err = noSuchDrain(app)
	}
	if err != nil {
		return answer{}, err
	}
	return ok(drainObject(d))
}

func noSuchDrain(app manifold.App) error {
	return notFound("log_drain", "The app has no such log drain. Look at: heroku drains -a "+app.Name)
}
