package platform

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"manifold"
)

func configRoutes(a *api) routes {
	return routes{
		"GET /apps/{app}/config-vars":   onApp(a.config),
		"PATCH /apps/{app}/config-vars": onApp(a.patchConfig),
	}
}

func (a *api) config(c *call, app manifold.App) (answer, error) {
	r, err := a.Store.NewestRelease(c.Context(), app.ID)
	if err != nil {
		return answer{}, err
	}
	return ok(configObject(r))
}

func configObject(r manifold.Release) map[string]string {
	if r.Config == nil {
		return map[string]string{}
	}
	return r.Config
}

// patchConfig sets the vars the body gives and removes those it gives as
// null. A change is a release, which replaces the dynos; where nothing
// changes nothing is released.
func (a *api) patchConfig(c *call, app manifold.App) (answer, error) {
	wish, err := c.configWish()
	if err != nil {
		return answer{}, err
	}
	var unchanged map[string]string
	r, err := a.addRelease(c, app, func(next *manifold.Release) error {
		config, set, removed := applyConfig(next.Config, wish)
		if len(set)+len(removed) == 0 {
			unchanged = config
			return errUnchanged
		}
		next.Config, next.Description = config, describeConfig(set, removed)
		return manifold.CheckConfig(config)
	})
	if errors.Is(err, errUnchanged) {
		return ok(unchanged)
	}
	if err != nil {
		return answer{}, err
	}
	c.sayRelease(app, r)
	return answer{status: http.StatusOK, value: configObject(r), header: warnPending(r)}, nil
}

// warnPending has the CLI warn that what was asked for waits for a release
// command.
func warnPending(r manifold.Release) http.Header {
	if r.Status != manifold.ReleasePending {
		return nil
	}
	return http.Header{"X-Heroku-Warning": {"Release command executing: this change will not be available until the command succeeds. See it with: heroku releases:output"}}
}

var errUnchanged = errors.New("nothing to change")

// configWish reads the body: names to values, null for those to remove.
func (c *call) configWish() (map[string]*string, error) {
	var in map[string]json.RawMessage
	if err := c.body(&in); err != nil {
		return nil, err
	}
	wish := make(map[string]*string, len(in))
	for name, raw := range in {
		var value *string
		if json.Unmarshal(raw, &value) != nil {
			return nil, invalidParams(fmt.Sprintf("Config var %s must be a string, or null to remove it.", clip(name)))
		}
		if value != nil {
			if err := manifold.CheckConfigVar(name, *value); err != nil {
				return nil, err
			}
		}
		wish[name] = value
	}
	return wish, nil
}

// applyConfig returns the config with the wish fulfilled and the names it
// really changed, sorted.
func applyConfig(config map[string]string, wish map[string]*string) (next map[string]string, set, removed []string) {
	next = maps.Clone(config)
	if next == nil {
		next = map[string]string{}
	}
	for _, name := range slices.Sorted(maps.Keys(wish)) {
		old, there := next[name]
		switch value := wish[name]; {
		case value == nil && there:
			delete(next, name)
			removed = append(removed, name)
		case value != nil && (!there || old != *value):
			next[name] = *value
			set = append(set, name)
		}
	}
	return next, set, removed
}

// describeConfig words a change for the list of releases. It names the vars,
// never their values.
func describeConfig(set, removed []string) string {
	var parts []string
	if len(set) > 0 {
		parts = append(parts, "Set "+nameList(set))
	}
	if len(removed) > 0 {
		parts = append(parts, "Remove "+nameList(removed))
	}
	return strings.Join(parts, ", ") + " config vars"
}

// nameList keeps a description short where a script sets hundreds at once.
func nameList(names []string) string {
	const most = 20
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
