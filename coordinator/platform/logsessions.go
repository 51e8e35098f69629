package platform

import (
	"cmp"
	"fmt"
	"time"

	"github.com/google/uuid"

	"manifold"
)

const (
	logLines     = 100
	mostLogLines = 1500 // what is kept of an app; the hub sees to it
)

func logRoutes(a *api) routes {
	return routes{"POST /apps/{app}/log-sessions": onApp(a.createLogSession)}
}

// createLogSession makes a log stream and answers with its URL, whose secret
// is all that is needed to read it. The CLI sends a process type as "dyno"
// as well; the published schema calls the field dyno_name.
func (a *api) createLogSession(c *call, app manifold.App) (answer, error) {
	in := struct {
		Lines        *int
		Tail         bool
		Source, Dyno string
		DynoName     string `json:"dyno_name"`
		Type         string
	}{}
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	lines := logLines
	set(&lines, in.Lines)
	if lines < 0 {
		return answer{}, invalidParams(fmt.Sprintf("Lines must be a number from 0 to %d.", mostLogLines))
	}
	dyno := in.Dyno
	for _, other := range []string{in.DynoName, in.Type} {
		if dyno == "" {
			dyno = other
		}
	}
	token := a.Logs.NewSession(app.ID, c.user.ID, lines, in.Tail, in.Source, dyno)
	// Who was shut out before there was a session to end gets none.
	if now, err := a.Store.App(c.Context(), app.ID); err != nil || !now.Lets(c.user.ID) {
		a.Logs.Revoke(app.ID, c.user.ID)
		return answer{}, cmp.Or(err, error(noApp))
	}
	now := when(time.Now())
	return created(object{
		"id": uuid.NewString(), "logplex_url": c.streamURL(token, in.Tail),
		"created_at": now, "updated_at": now,
	})
}

// streamURL is on the address the client reached us by, with its port. CLIs
// before 10 look for tail=true in it.
func (c *call) streamURL(token string, tail bool) string {
	if tail {
		token += "?tail=true"
	}
	return c.url("/streams/" + token)
}

// url is a path of ours on the address the client reached us by.
func (c *call) url(path string) string {
	scheme := "http"
	if c.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + c.Host + path
}
