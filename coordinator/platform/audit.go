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

// say writes what the caller did into the app's own log and its audit trail,
// so that its owners see who changed what. Every handler that changed
// something of an app calls it or sayRelease.
func (c *call) say(app manifold.App, format string, args ...any) {
	c.log(app, format, args...)
	c.record(app.ID, fmt.Sprintf(format, args...))
}

// sayRelease is say of a release, which the log has in Heroku's two lines. Of
// one whose release command is still to run, the second comes when that has
// succeeded.
func (c *call) sayRelease(app manifold.App, r manifold.Release) {
	c.log(app, "%s", r.Description)
	if r.Status == manifold.ReleaseSucceeded {
		c.log(app, "Release %s created", releaseName(r.Version))
	}
	c.record(app.ID, r.Description+" ("+releaseName(r.Version)+")")
}

// note writes what the caller did into the audit trail of their account.
func (c *call) note(format string, args ...any) { c.record(c.user.ID, fmt.Sprintf(format, args...)) }

func (c *call) log(app manifold.App, format string, args ...any) {
	c.api.Logs.Write(app.ID, manifold.SourceApp, "api", fmt.Sprintf(format, args...)+" by user "+c.user.Email)
}

// record is done even if the caller left: the change was made.
func (c *call) record(subject, action string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), 10*time.Second)
	defer cancel()
	const longest = 1024 // of an action: a command line may be 32 KB
	if len(action) > longest {
		action = action[:longest] + "…"
	}
	from, _, _ := net.SplitHostPort(c.RemoteAddr)
	err := c.api.Store.Record(ctx, subject, store.Entry{
		User: c.user.Email, Action: action, From: from, Request: c.id, Authorization: c.token.ID,
	})
	if err != nil {
		c.api.Log.Error("the audit trail misses a change", "subject", subject, "user", c.user.Email, "request", c.id, "endpoint", c.Pattern, "err", err)
	}
}
