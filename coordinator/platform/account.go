package platform

import (
	"fmt"
	"time"

	"manifold"
)

func accountRoutes(a *api) routes {
	return routes{
		"GET /account":               a.account,
		"GET /users/{user}":          a.account,
		"POST /oauth/authorizations": a.createAuthorization,
	}
}

var noUser = notFound("user", "There is no such user, or it is not you. Name yourself as ~.")

func isCaller(c *call, name string) bool {
	return name == "~" || name == c.user.ID || name == c.user.Email
}

func (a *api) account(c *call) (answer, error) {
	if who := c.PathValue("user"); who != "" && !isCaller(c, who) {
		return answer{}, noUser
	}
	return ok(accountObject(c.user))
}

// createAuthorization makes an API token for the caller, which "heroku login
// -i" does with an older token as the password.
func (a *api) createAuthorization(c *call) (answer, error) {
	var in struct {
		Description string
		ExpiresIn   *int `json:"expires_in"`
	}
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	const longest = 10 * 365 * 24 * 3600
	if in.ExpiresIn != nil && (*in.ExpiresIn < 1 || *in.ExpiresIn > longest) {
		return answer{}, invalidParams(fmt.Sprintf("expires_in must be a number of seconds from 1 to %d, or null for a token that does not expire.", longest))
	}
	if len(in.Description) > 256 {
		return answer{}, &manifold.InvalidError{What: "Description", Why: "must be at most 256 bytes long"}
	}
	var ttl time.Duration
	if in.ExpiresIn != nil {
		ttl = time.Duration(*in.ExpiresIn) * time.Second
	}
	secret, err := a.Store.CreateToken(c.Context(), c.user, in.Description, ttl)
	if err != nil {
		return answer{}, err
	}
	return created(authorizationObject(c.user, secret, in.Description, in.ExpiresIn, time.Now()))
}
