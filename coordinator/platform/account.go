package platform

func accountRoutes(a *api) routes {
	return routes{
		"GET /account":      a.account,
		"GET /users/{user}": a.account,
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
