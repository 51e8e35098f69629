package platform

import "manifold"

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
