// Package platform is the outside door of Manifold: Heroku's Platform API,
// version 3, as the unmodified heroku CLI, heroku-go, Terraform and curl speak
// it. It turns requests into calls of the store, the scheduler and the log
// hub, and their answers into the API's JSON.
//
// It must never decide where or how a dyno runs, keep state that must outlive
// it, or show one user what belongs to another. Config var values and tokens pass
// through it; they never enter its logs or error texts.
//
//	request ─▶ door.go      Request-Id, Accept, token and its scope, bounds
//	        ─▶ *.go         one small handler an endpoint, one file a resource
//	        ─▶ shapes.go    nouns to JSON objects
//	        ─▶ reply.go     status, ETag, paging ─▶ response
//	           faults.go    any error to {id, message, url}
//
// A new resource is a new file and a line in resources.
package platform

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"manifold/coordinator/scheduler"
	"manifold/coordinator/store"
)

// Config is what the API stands on. Fields without a default are needed.
type Config struct {
	Store   *store.Store
	Dynos   Dynos
	Logs    Logs
	Builds  Builds
	Sources Sources
	Outputs Outputs
	Stacks  []Stack // at least one; the first is for apps that name none
	// WebURL is where an app answers, GitURL where it is pushed to. Both get
	// the app's name, and both results hold an explicit port, since the CLI
	// fills in the API's own where there is none.
	WebURL func(app string) string
	GitURL func(app string) string
	// AttachURL is where a client brings the secret of its session.
	AttachURL func(secret string) string
	// Forget removes what other rooms keep of an app (App.ID) that was deleted.
	Forget func(app string) error
	// CallsPerHour is how many calls a user may make, all at once or spread;
	// 0 is 4,500.
	CallsPerHour int
	Log          *slog.Logger
}

// Dynos is the scheduler, as far as the API needs it. Apps are named by id.
type Dynos interface {
	Dynos(app string) []scheduler.Dyno
	Restart(ctx context.Context, app string, match func(dyno string) bool) error
	Start(ctx context.Context, o scheduler.OneOff) (d scheduler.Dyno, secret string, err error)
	Stop(ctx context.Context, app string, match func(dyno string) bool) (n int, err error)
	Exec(ctx context.Context, e scheduler.Exec) (d scheduler.Dyno, secret string, err error)
}

// Logs is the log hub, as far as the API needs it. Apps are named by id.
type Logs interface {
	// Write adds a line of the coordinator's own to the app's log.
	Write(app, source, process, text string)
	// NewSession makes the secret that ends a log stream's URL,
	// /streams/{token} on the address the API is on.
	NewSession(app, user string, lines int, tail bool, source, dyno string) (token string)
	// Revoke ends the sessions of a user who may not read the app's log any more.
	Revoke(app, user string)
}

// Stack is a stack an app can be built on.
type Stack struct {
	Name    string
	BuiltAt time.Time
}

// New makes the API's handler. It answers every path, so that mounted at "/"
// it also speaks for paths that do not exist.
func New(cfg Config) (http.Handler, error) {
	switch {
	case cfg.Store == nil || cfg.Dynos == nil || cfg.Logs == nil || cfg.Log == nil:
		return nil, errors.New("platform: Store, Dynos, Logs and Log must be set")
	case cfg.Builds == nil || cfg.Sources == nil || cfg.Outputs == nil:
		return nil, errors.New("platform: Builds, Sources and Outputs must be set")
	case cfg.WebURL == nil || cfg.GitURL == nil || cfg.AttachURL == nil || cfg.Forget == nil:
		return nil, errors.New("platform: WebURL, GitURL, AttachURL and Forget must be set")
	case len(cfg.Stacks) == 0:
		return nil, errors.New("platform: there is no stack to build apps on: build one with: manifold stack build")
	}
	a := &api{
		Config: cfg, rates: newRates(cmp.Or(cfg.CallsPerHour, 4500)), maxTime: maxTime,
		guesses: newGuesses(), logins: newLogins(), schema: describe(resources),
	}
	return a.handler(), nil
}

func (a *api) handler() http.Handler {
	mux := http.NewServeMux()
	a.shows = map[string]handler{}
	for _, resource := range resources {
		for pattern, h := range resource(a) {
			mux.Handle(pattern, a.door(h))
			if path, reads := strings.CutPrefix(pattern, "GET "); reads {
				a.shows[path] = h
			}
		}
	}
	a.loginRoutes(mux)
	mux.Handle("/", a.door(noSuchEndpoint))
	return mux
}

type api struct {
	Config
	rates   *rates
	guesses *guesses
	logins  *logins
	schema  object
	maxTime time.Duration
	shows   map[string]handler // what a GET of a path answers

	conditions conditions
}

// routes are the endpoints of one resource: method and path (the pattern of
// http.ServeMux) to handler.
type routes map[string]handler

var resources = []func(*api) routes{
	accountRoutes,
	appRoutes,
	transferRoutes,
	buildRoutes,
	auditRoutes,
	authorizationRoutes,
	buildpackRoutes,
	catalogRoutes,
	collaboratorRoutes,
	configRoutes,
	domainRoutes,
	drainRoutes,
	dynoRoutes,
	emptyRoutes,
	featureRoutes,
	formationRoutes,
	keyRoutes,
	jobRoutes,
	logRoutes,
	rateRoutes,
	releaseRoutes,
	schemaRoutes,
	slugRoutes,
	sourceRoutes,
	webhookRoutes,
}
