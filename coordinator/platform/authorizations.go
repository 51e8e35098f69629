package platform

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"manifold/coordinator/store"
)

func authorizationRoutes(a *api) routes {
	return routes{
		loginEndpoint:                                               a.createAuthorization,
		"GET /oauth/authorizations":                                 a.authorizations,
		"GET /oauth/authorizations/{id}":                            a.authorization,
		"PATCH /oauth/authorizations/{id}":                          a.patchAuthorization,
		"POST /oauth/authorizations/{id}/actions/regenerate-tokens": a.regenerateToken,
		"DELETE /oauth/authorizations/{id}":                         a.revoke,
		"DELETE /oauth/sessions/{id}":                               a.endSession,
	}
}

// seconds reads a number, or a string that is one: the CLI sends what was
// typed behind -e.
type seconds int

func (n *seconds) UnmarshalJSON(text []byte) error {
	var number int
	if len(text) > 2 && text[0] == '"' {
		text = text[1 : len(text)-1]
	}
	err := json.Unmarshal(text, &number)
	*n = seconds(number)
	return err
}

// createAuthorization makes an API token for the caller. "heroku login -i"
// does it with the password of the account, or an older token in its place.
func (a *api) createAuthorization(c *call) (answer, error) {
	var in struct {
		Description string
		ExpiresIn   *seconds `json:"expires_in"`
		Scope       []string
	}
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	const longest = 10 * 365 * 24 * 3600
	if in.ExpiresIn != nil && (*in.ExpiresIn < 1 || *in.ExpiresIn > longest) {
		return answer{}, invalidParams(fmt.Sprintf("expires_in must be a number of seconds from 1 to %d, or null for a token that does not expire.", longest))
	}
	var ttl time.Duration
	if in.ExpiresIn != nil {
		ttl = time.Duration(*in.ExpiresIn) * time.Second
	}
	if len(in.Scope) == 0 {
		in.Scope = []string{store.ScopeGlobal}
	}
	made, token, err := a.Store.Authorize(c.Context(), c.user, in.Description, in.Scope, ttl)
	if err != nil {
		return answer{}, err
	}
	return created(authorizationObject(c.user, made, token))
}

func (a *api) authorizations(c *call) (answer, error) {
	all, err := a.Store.Authorizations(c.Context(), c.user.ID)
	if err != nil {
		return answer{}, err
	}
	show := func(x store.Authorization) any {
		if x.ID == c.token.ID {
			return authorizationObject(c.user, x, bearer(c.Request)) // who asked has it; the CLI looks for it
		}
		return authorizationObject(c.user, x, x.Hint)
	}
	return list(c, all, show, key[store.Authorization]{name: "id", of: func(x store.Authorization) string { return x.ID }})
}

var noAuthorization = notFound("authorization", "You have no such authorization. See which you have with: heroku authorizations")

// findAuthorization finds one of the caller's. "~" is their first token: the
// CLI asks for it when it logs out, so as not to end what others depend on.
func (a *api) findAuthorization(c *call) (store.Authorization, error) {
	all, err := a.Store.Authorizations(c.Context(), c.user.ID)
	if err != nil {
		return store.Authorization{}, err
	}
	id := c.PathValue("id")
	for _, x := range all {
		if x.ID == id || id == "~" && x.Default {
			return x, nil
		}
	}
	return store.Authorization{}, noAuthorization
}

func (a *api) authorization(c *call) (answer, error) {
	x, err := a.findAuthorization(c)
	if err != nil {
		return answer{}, err
	}
	return ok(authorizationObject(c.user, x, x.Hint))
}

func (a *api) patchAuthorization(c *call) (answer, error) {
	var in struct{ Description *string }
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	x, err := a.findAuthorization(c)
	if err != nil {
		return answer{}, err
	}
	if x, _, err = a.Store.Reauthorize(c.Context(), c.user.ID, x.ID, in.Description, false); err != nil {
		return answer{}, gone(err)
	}
	return ok(authorizationObject(c.user, x, x.Hint))
}

// regenerateToken gives an authorization a new token; the old one ends.
func (a *api) regenerateToken(c *call) (answer, error) {
	x, err := a.findAuthorization(c)
	if err != nil {
		return answer{}, err
	}
	x, token, err := a.Store.Reauthorize(c.Context(), c.user.ID, x.ID, nil, true)
	if err != nil {
		return answer{}, gone(err)
	}
	return ok(authorizationObject(c.user, x, token))
}

func (a *api) revoke(c *call) (answer, error) {
	x, err := a.findAuthorization(c)
	if err != nil {
		return answer{}, err
	}
	return a.end(c, x)
}

// endSession is what "heroku logout" asks first. The session is the token it
// comes with, unless that is the user's first, which other programs may use.
func (a *api) endSession(c *call) (answer, error) {
	if id := c.PathValue("id"); id != "~" && id != c.token.ID || c.token.Default {
		return answer{}, notFound("session", "There is no such session: a first token is ended with heroku authorizations:revoke.")
	}
	return a.end(c, c.token)
}

func (a *api) end(c *call, x store.Authorization) (answer, error) {
	if err := a.Store.Revoke(c.Context(), c.user.ID, x.ID); err != nil {
		return answer{}, gone(err)
	}
	return ok(authorizationObject(c.user, x, x.Hint))
}

// gone says that another call ended an authorization meanwhile.
func gone(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return noAuthorization
	}
	return err
}
