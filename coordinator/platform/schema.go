package platform

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// schemaRoutes describe this API itself, as Heroku's does: a hyper-schema of
// the calls there are, made from the routes, so that it cannot be wrong.
func schemaRoutes(a *api) routes {
	return routes{schemaEndpoint: func(*call) (answer, error) { return ok(a.schema) }}
}

const schemaEndpoint = "GET /schema"

var rels = map[string]string{"GET": "self", "POST": "create", "PATCH": "update", "PUT": "update", "DELETE": "destroy"}

// describe makes the schema; each resource has its calls by path and method.
func describe(all []func(*api) routes) object {
	type call struct{ method, path string }
	byResource := map[string][]call{}
	for _, resource := range all {
		for pattern := range resource(&api{}) {
			method, path, _ := strings.Cut(pattern, " ")
			name := resourceOf(path)
			byResource[name] = append(byResource[name], call{method, path})
		}
	}
	definitions := object{}
	for _, name := range slices.Sorted(maps.Keys(byResource)) {
		calls := byResource[name]
		slices.SortFunc(calls, func(x, y call) int { return cmp.Or(cmp.Compare(x.path, y.path), cmp.Compare(x.method, y.method)) })
		links := make([]object, len(calls))
		for i, c := range calls {
			links[i] = object{
				"method": c.method, "href": c.path, "rel": rels[c.method], "title": c.method + " " + c.path,
				"scope": scopeOf(c.method + " " + c.path),
			}
		}
		definitions[name] = object{"title": name, "type": []string{"object"}, "links": links}
	}
	return object{
		"$schema": "http://json-schema.org/draft-04/hyper-schema", "title": "Manifold Platform API",
		"description": "The calls of Heroku's Platform API, version 3, that this platform answers. Objects are as in Heroku's schema.",
		"type":        []string{"object"}, "definitions": definitions,
	}
}

// resourceOf is the last element of a path that is neither a name in braces
// nor an action.
func resourceOf(path string) string {
	name := ""
	for part := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if part == "actions" {
			break
		}
		if !strings.HasPrefix(part, "{") {
			name = part
		}
	}
	return name
}
