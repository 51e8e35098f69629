package platform

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"manifold"
	"manifold/coordinator/store"
)

// auditRoutes show who changed what. They are ours; no schema of Heroku's has
// them.
func auditRoutes(a *api) routes {
	return routes{
		"GET /apps/{app}/audit": onApp(func(c *call, app manifold.App) (answer, error) { return a.audit(c, app.ID) }),
		"GET /account/audit":    func(c *call) (answer, error) { return a.audit(c, c.user.ID) },
	}
}

func (a *api) audit(c *call, subject string) (answer, error) {
	entries, err := a.Store.Audit(c.Context(), subject)
	if err != nil {
		return answer{}, err
	}
	return list(c, entries, func(e store.Entry) any { return auditObject(e) },
		key[store.Entry]{name: "seq", number: true, of: func(e store.Entry) string { return strconv.FormatInt(e.Seq, 10) }})
}

// sign makes the caller the author of what the store is asked to change from
// now on: each change is then in the audit trail from the same moment on. via
// is how they came, where that is not the API.
func (c *call) sign(via string) {
	c.author = c.signature(via)
	c.Request = c.WithContext(store.By(c.Context(), c.author))
}

func (c *call) signature(via string) *store.Author {
	from, _, _ := net.SplitHostPort(c.RemoteAddr)
	return &store.Author{ID: c.user.ID, Email: c.user.Email, From: from, Request: c.id, Authorization: c.token.ID, Via: via}
}

// logChanges writes what the store changed of an app for the caller into the
// app's own log, so that its owners see who changed what.
func (c *call) logChanges(app manifold.App) {
	for _, words := range c.author.Changes(app.ID) {
		c.log(app, "%s", words)
	}
}

// say writes what the caller did that changed nothing in the store, such as a
// restart, into the app's log and its audit trail. The trail has it even if
// the caller left: it was done.
func (c *call) say(app manifold.App, format string, args ...any) {
	c.log(app, format, args...)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), 10*time.Second)
	defer cancel()
	if err := c.api.Store.Record(ctx, app.ID, fmt.Sprintf(format, args...)); err != nil {
		c.api.Log.Error("the audit trail misses what was done", "app", app.ID, "user", c.user.Email, "request", c.id, "endpoint", c.Pattern, "err", err)
	}
}

// sayRelease writes of a release into the app's log, in Heroku's two lines. Of
// one whose release command is still to run, the second comes when that has
// succeeded.
func (c *call) sayRelease(app manifold.App, r manifold.Release) {
	c.log(app, "%s", r.Description)
	if r.Status == manifold.ReleaseSucceeded {
		c.log(app, "Release %s created", releaseName(r.Version))
	}
}

func (c *call) log(app manifold.App, format string, args ...any) {
	c.api.Logs.Write(app.ID, manifold.SourceApp, "api", fmt.Sprintf(format, args...)+" by user "+c.user.Email)
}
