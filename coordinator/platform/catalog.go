package platform

import (
	"fmt"
	"strings"

	"manifold"
)

// regionName is that of the one region there is. It is Heroku's default, so
// that scripts which name it work; the CLI does not print this one.
const regionName = "us"

func catalogRoutes(a *api) routes {
	return routes{
		"GET /stacks":            a.stacks,
		"GET /stacks/{stack}":    a.stack,
		"GET /regions":           a.regions,
		"GET /regions/{region}":  a.region,
		"GET /dyno-sizes":        a.sizes,
		"GET /dyno-sizes/{size}": a.size,
	}
}

func (a *api) stacks(c *call) (answer, error) {
	all := make([]object, len(a.Stacks))
	for i, s := range a.Stacks {
		all[i] = stackObject(s, i == 0)
	}
	return list(c, all, func(o object) any { return o }, text("name"), text("id"))
}

func (a *api) stack(c *call) (answer, error) {
	s, err := a.findStack(c.PathValue("stack"))
	if err != nil {
		return answer{}, notFound("stack", err.Error())
	}
	return ok(stackObject(s, s.Name == a.Stacks[0].Name))
}

// findStack finds a stack by name or id.
func (a *api) findStack(name string) (Stack, error) {
	known := make([]string, len(a.Stacks))
	for i, s := range a.Stacks {
		if name == s.Name || name == fixedID("stack", s.Name) {
			return s, nil
		}
		known[i] = s.Name
	}
	return Stack{}, invalidParams(fmt.Sprintf("There is no stack %q. There is: %s.", clip(name), strings.Join(known, ", ")))
}

func isRegion(name string) bool { return name == regionName || name == fixedID("region", regionName) }

func (a *api) regionObject() object {
	built := when(a.Stacks[0].BuiltAt)
	return object{
		"id": fixedID("region", regionName), "name": regionName, "description": "This Manifold",
		"country": "", "locale": "", "private_capable": false,
		"provider":   object{"name": "manifold", "region": regionName},
		"created_at": built, "updated_at": built,
	}
}

func (a *api) regions(c *call) (answer, error) {
	return list(c, []object{a.regionObject()}, func(o object) any { return o }, text("name"), text("id"))
}

func (a *api) region(c *call) (answer, error) {
	if name := c.PathValue("region"); !isRegion(name) {
		return answer{}, notFound("region", fmt.Sprintf("There is no region %q: this platform is one region, %q.", clip(name), regionName))
	}
	return ok(a.regionObject())
}

func (a *api) sizes(c *call) (answer, error) {
	all := make([]object, 0, len(manifold.Sizes()))
	for _, s := range manifold.Sizes() {
		all = append(all, sizeObject(s))
	}
	return ok(all)
}

func (a *api) size(c *call) (answer, error) {
	name := c.PathValue("size")
	for _, s := range manifold.Sizes() {
		if name == fixedID("dyno-size", s.Name) || strings.EqualFold(name, s.Name) {
			return ok(sizeObject(s))
		}
	}
	_, err := manifold.ParseSize(name)
	return answer{}, notFound("dyno-size", err.Error()+".")
}
