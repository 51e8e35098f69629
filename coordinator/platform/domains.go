package platform

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/net/idna"

	"manifold"
	"manifold/coordinator/store"
)

func domainRoutes(a *api) routes {
	return routes{
		"GET /apps/{app}/domains":             onApp(a.domains),
		"POST /apps/{app}/domains":            onApp(a.addDomain),
		"GET /apps/{app}/domains/{domain}":    onApp(a.domain),
		"PATCH /apps/{app}/domains/{domain}":  onApp(a.patchDomain),
		"DELETE /apps/{app}/domains/{domain}": onApp(a.removeDomain),
	}
}

// hostOf is the name every app answers to.
func (a *api) hostOf(app string) string {
	u, err := url.Parse(a.WebURL(app))
	if err != nil {
		return app
	}
	return u.Hostname()
}

func (a *api) allDomains(app manifold.App) []object {
	host := a.hostOf(app.Name)
	all := []object{domainObject(app, manifold.Domain{ID: fixedID("domain", app.ID), Hostname: host, CreatedAt: app.CreatedAt}, "heroku", nil)}
	for _, d := range app.Domains {
		all = append(all, domainObject(app, d, "custom", host))
	}
	return all
}

func (a *api) domains(c *call, app manifold.App) (answer, error) {
	return list(c, a.allDomains(app), func(d object) any { return d }, text("hostname"), text("id"))
}

// findDomain finds one by its name or id.
func (a *api) findDomain(c *call, app manifold.App) (object, error) {
	name := c.PathValue("domain")
	for _, d := range a.allDomains(app) {
		if d["id"] == name || strings.EqualFold(d["hostname"].(string), strings.TrimSuffix(name, ".")) {
			return d, nil
		}
	}
	return nil, notFound("domain", fmt.Sprintf("%s has no domain %q. See which it has with: heroku domains -a %s", app.Name, clip(name), app.Name))
}

func (a *api) domain(c *call, app manifold.App) (answer, error) {
	d, err := a.findDomain(c, app)
	if err != nil {
		return answer{}, err
	}
	return ok(d)
}

// checkDomain accepts a name an app may have, in any script, and returns it
// as DNS has it. What lies in the platform's own domain is given by app names.
func (a *api) checkDomain(text string) (string, error) {
	ascii := text
	if base, isWildcard := strings.CutPrefix(text, "*."); len(text) <= 1024 {
		if name, err := idna.Lookup.ToASCII(base); err == nil {
			ascii = name
			if isWildcard {
				ascii = "*." + name
			}
		}
	}
	host, err := manifold.CheckHostname(ascii)
	if err != nil {
		return "", err
	}
	ours := a.hostOf("x")[len("x."):]
	if base := strings.TrimPrefix(host, "*."); base == ours || strings.HasSuffix(base, "."+ours) {
		return "", invalidParams(fmt.Sprintf("Hostname %s belongs to the platform, which gives names below %s to apps by their own names.", clip(host), ours))
	}
	return host, nil
}

// addDomain makes routers send requests for a name to the app, from the next
// route table on. DNS for it is its owner's business.
func (a *api) addDomain(c *call, app manifold.App) (answer, error) {
	var in struct {
		Hostname    string
		SNIEndpoint json.RawMessage `json:"sni_endpoint"`
	}
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	if err := noEndpoint(in.SNIEndpoint); err != nil {
		return answer{}, err
	}
	host, err := a.checkDomain(in.Hostname)
	if err != nil {
		return answer{}, err
	}
	added := manifold.Domain{ID: uuid.NewString(), Hostname: host, CreatedAt: time.Now().UTC().Truncate(time.Second)}
	app, err = a.Store.UpdateApp(c.Context(), app.ID, func(app *manifold.App) error {
		if slices.ContainsFunc(app.Domains, func(d manifold.Domain) bool { return d.Hostname == host }) {
			return invalidParams(fmt.Sprintf("%s is a domain of %s already.", host, app.Name))
		}
		app.Domains = append(app.Domains, added)
		return nil
	})
	if errors.Is(err, store.ErrTaken) {
		err = invalidParams(fmt.Sprintf("%s is in use by another app of this platform. Its owner has to remove it first.", host))
	}
	if err != nil {
		return answer{}, err
	}
	return created(domainObject(app, added, "custom", a.hostOf(app.Name)))
}

// noEndpoint accepts that no certificate is wanted.
func noEndpoint(given json.RawMessage) error {
	if len(given) == 0 || string(given) == "null" {
		return nil
	}
	return invalidParams("There are no SNI endpoints on this platform: its routers speak plain HTTP. Leave sni_endpoint null.")
}

func (a *api) patchDomain(c *call, app manifold.App) (answer, error) {
	d, err := a.findDomain(c, app)
	if err != nil {
		return answer{}, err
	}
	var in struct {
		SNIEndpoint json.RawMessage `json:"sni_endpoint"`
	}
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	if err := noEndpoint(in.SNIEndpoint); err != nil {
		return answer{}, err
	}
	return ok(d)
}

func (a *api) removeDomain(c *call, app manifold.App) (answer, error) {
	d, err := a.findDomain(c, app)
	if err != nil {
		return answer{}, err
	}
	if d["kind"] != "custom" {
		return answer{}, invalidParams(fmt.Sprintf("%s is the name every app has by itself; it cannot be removed.", d["hostname"]))
	}
	app, err = a.Store.UpdateApp(c.Context(), app.ID, func(app *manifold.App) error {
		app.Domains = slices.DeleteFunc(app.Domains, func(x manifold.Domain) bool { return x.Hostname == d["hostname"] })
		return nil
	})
	if err != nil {
		return answer{}, err
	}
	return ok(d)
}
