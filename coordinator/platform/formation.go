package platform

import (
	"encoding/json"
	"fmt"
	"slices"

	"manifold"
)

const maxScalings = 1000 // of one request

func formationRoutes(a *api) routes {
	return routes{
		"GET /apps/{app}/formation":          onApp(a.formation),
		"PATCH /apps/{app}/formation":        onApp(a.patchFormation),
		"GET /apps/{app}/formation/{type}":   onApp(a.oneFormation),
		"PATCH /apps/{app}/formation/{type}": onApp(a.patchOneFormation),
	}
}

func (a *api) formation(c *call, app manifold.App) (answer, error) {
	formation, err := a.Store.Formation(c.Context(), app.ID)
	if err != nil {
		return answer{}, err
	}
	commands, err := a.commands(c, app)
	if err != nil {
		return answer{}, err
	}
	show := func(f manifold.Formation) any { return formationObject(app, f, commands[f.Type]) }
	return list(c, formation, show,
		key[manifold.Formation]{name: "type", of: func(f manifold.Formation) string { return f.Type }},
		key[manifold.Formation]{name: "id", of: func(f manifold.Formation) string { return f.ID }})
}

// commands are the process types of the code that runs.
func (a *api) commands(c *call, app manifold.App) (map[string]string, error) {
	r, err := a.Store.CurrentRelease(c.Context(), app.ID)
	if err != nil {
		return nil, err
	}
	slug, err := a.slugOf(c, r)
	if err != nil || slug == nil {
		return nil, err
	}
	return slug.ProcessTypes, nil
}

func (a *api) oneFormation(c *call, app manifold.App) (answer, error) {
	formation, err := a.Store.Formation(c.Context(), app.ID)
	if err != nil {
		return answer{}, err
	}
	return a.showOne(c, app, formation, c.PathValue("type"))
}

func (a *api) showOne(c *call, app manifold.App, formation []manifold.Formation, typ string) (answer, error) {
	i := slices.IndexFunc(formation, func(f manifold.Formation) bool { return f.Type == typ || f.ID == typ })
	if i < 0 {
		return answer{}, noSuchType(app, formation, typ)
	}
	commands, err := a.commands(c, app)
	if err != nil {
		return answer{}, err
	}
	return ok(formationObject(app, formation[i], commands[formation[i].Type]))
}

// scaling is one wish of a PATCH: "two web dynos, Standard-2X".
type scaling struct {
	Type     string
	Quantity *quantity
	Size     *size
}

// quantity reads a JSON number, or a string such as "2", "+1" and "-1". The
// CLI sends strings, the schema and heroku-go numbers. A number is never
// relative.
type quantity struct{ manifold.Quantity }

func (q *quantity) UnmarshalJSON(text []byte) (err error) {
	var s string
	if text[0] == '"' {
		err = json.Unmarshal(text, &s)
	} else {
		s = string(text)
	}
	if err != nil {
		return err
	}
	if q.Quantity, err = manifold.ParseQuantity(s); err == nil && text[0] == '-' {
		err = &manifold.InvalidError{What: "Quantity", Why: "must not be negative; to take dynos away write it as a string, such as \"-1\""}
	}
	return err
}

// size reads a size's name, or the {"name": …} of newer schemas.
type size struct{ name string }

func (s *size) UnmarshalJSON(text []byte) error {
	var in struct{ Name string }
	if err := stringOr(text, &in.Name, &in); err != nil {
		return err
	}
	found, err := manifold.ParseSize(in.Name)
	s.name = found.Name
	return err
}

func (a *api) patchFormation(c *call, app manifold.App) (answer, error) {
	var in struct{ Updates []scaling }
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	if len(in.Updates) > maxScalings {
		return answer{}, invalidParams(fmt.Sprintf("One request may scale at most %d process types.", maxScalings))
	}
	formation, err := a.scale(c, app, in.Updates)
	if err != nil {
		return answer{}, err
	}
	commands, err := a.commands(c, app)
	if err != nil {
		return answer{}, err
	}
	shown := make([]object, len(formation))
	for i, f := range formation {
		shown[i] = formationObject(app, f, commands[f.Type])
	}
	return ok(shown)
}

func (a *api) patchOneFormation(c *call, app manifold.App) (answer, error) {
	var in scaling
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	in.Type = c.PathValue("type")
	formation, err := a.scale(c, app, []scaling{in})
	if err != nil {
		return answer{}, err
	}
	return a.showOne(c, app, formation, in.Type)
}

// scale does all of the wishes or none. Relative quantities apply to what is
// there when the change is made, so that two writers' "+1" add up to 2.
func (a *api) scale(c *call, app manifold.App, wishes []scaling) ([]manifold.Formation, error) {
	return a.Store.UpdateFormation(c.Context(), app.ID, func(present []manifold.Formation) ([]manifold.Formation, error) {
		return scaled(app, present, wishes)
	})
}

// scaled changes formation, which is the caller's own.
func scaled(app manifold.App, formation []manifold.Formation, wishes []scaling) ([]manifold.Formation, error) {
	at := make(map[string]*manifold.Formation, 2*len(formation))
	for i := range formation {
		f := &formation[i]
		at[f.ID], at[f.Type] = f, f
	}
	for _, w := range wishes {
		f := at[w.Type]
		if f == nil {
			return nil, noSuchType(app, formation, w.Type)
		}
		if w.Quantity != nil {
			n, err := w.Quantity.Of(f.Quantity)
			if err != nil {
				return nil, err
			}
			f.Quantity = n
		}
		if w.Size != nil {
			f.Size = w.Size.name
		}
	}
	return formation, nil
}

// noSuchType says which types there are, and how to get another.
func noSuchType(app manifold.App, formation []manifold.Formation, typ string) error {
	if len(formation) == 0 {
		return notFound("formation", fmt.Sprintf("%s has no process types yet, so there is no %q to scale. Push its code first: git push heroku main", app.Name, clip(typ)))
	}
	types := make([]string, len(formation))
	for i, f := range formation {
		types[i] = f.Type
	}
	return notFound("formation", fmt.Sprintf("%s has no process type %q. It has: %s. To add one, name it in the Procfile and push.",
		app.Name, clip(typ), nameList(types)))
}
