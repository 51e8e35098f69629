package platform

import (
	"net/http"
	"strings"

	"manifold"
)

// emptyRoutes answer for what this platform has none of, so that commands
// which look there on their way to something else go on.
func emptyRoutes(*api) routes {
	r := routes{
		"GET /apps/{app}/pipeline-couplings":     noneOf("pipeline-coupling"), // the CLI crashes on an empty 200
		"GET /apps/{app}/addons/{addon}":         noneOf("add_on"),
		"GET /apps/{app}/sni-endpoints/{domain}": noneOf("sni_endpoint"),
	}
	for _, path := range []string{
		"/account/credits", "/account/invoices", "/addon-attachments", "/addon-region-capabilities", "/addon-services", "/addons",
		"/enterprise-accounts", "/oauth/clients", "/oauth/sessions", "/pipeline-couplings", "/pipelines", "/spaces", "/teams",
		"/users/~/addons", "/users/~/pipeline-couplings",
	} {
		r["GET "+path] = func(*call) (answer, error) { return ok([]object{}) }
	}
	for _, path := range []string{
		"addon-attachments", "addons", "sni-endpoints",
	} {
		r["GET /apps/{app}/"+path] = onApp(func(*call, manifold.App) (answer, error) { return ok([]object{}) })
	}
	return r
}

func none(resource string) handler {
	return func(*call) (answer, error) {
		return answer{}, notFound(resource, "There is none: this platform keeps no list of them.")
	}
}

func noneOf(resource string) handler {
	return onApp(func(*call, manifold.App) (answer, error) {
		return answer{}, notFound(resource, "The app has none.")
	})
}

// lacking is what Heroku has and this platform has not, by a part of the path
// that asks for it, and what to do instead.
var lacking = []struct{ part, instead string }{
	{"/addon", "This platform has no add-ons. Run the service where you like and tell the app its address: heroku config:set DATABASE_URL=… -a APP"},
	{"/acm", "This platform keeps no certificates: apps are served over plain HTTP. Put a proxy that speaks TLS before its router."},
	{"/sni-endpoints", "This platform keeps no certificates: apps are served over plain HTTP. Put a proxy that speaks TLS before its router."},
	{"/pipeline", "This platform has no pipelines. Push the commit that was tried in one app to the other: git push"},
	{"/teams", "This platform has no teams. Share an app with: heroku access:add EMAIL -a APP, or give it away with: heroku apps:transfer EMAIL -a APP"},
	{"/spaces", "This platform has no spaces: all apps run on its hosts."},
}

func noSuchEndpoint(c *call) (answer, error) {
	say := "There is no " + c.Method + " " + clip(c.URL.Path) + " in this API. Check the path and the method."
	for _, l := range lacking {
		if strings.Contains(c.URL.Path, l.part) {
			say = l.instead
			break
		}
	}
	return answer{}, &fault{Status: http.StatusNotFound, ID: "not_found", Message: say}
}
