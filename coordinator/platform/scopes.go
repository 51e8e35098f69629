package platform

import (
	"net/http"
	"strings"

	"manifold/coordinator/store"
)

// scopeOf is what a token must be good for to call an endpoint (the pattern of
// http.ServeMux). Config vars can be read by whoever may run a command, so that
// this needs the protected scope too.
//
//	who one is                          identity
//	apps, stacks, logs: read, change    read, write
//	config vars, commands: read, change read-protected, write-protected
//	account, tokens, keys               global
func scopeOf(pattern string) string {
	method, path, _ := strings.Cut(pattern, " ")
	reads := method == http.MethodGet || strings.HasSuffix(path, "/log-sessions")
	switch {
	case reads && (path == "/account" || path == "/users/{user}"), pattern == rateEndpoint, pattern == schemaEndpoint, method == "/":
		return store.ScopeIdentity
	case strings.HasPrefix(path, "/account"), strings.HasPrefix(path, "/oauth"):
		return store.ScopeGlobal
	}
	protected := strings.HasSuffix(path, "/config-vars") ||
		!reads && (strings.Contains(path, "/scheduler-jobs") || strings.HasSuffix(path, "/dynos") || strings.HasSuffix(path, "/dynos/{dyno}"))
	switch {
	case protected && method == http.MethodDelete: // restarts dynos
		return store.ScopeWrite
	case protected && reads:
		return store.ScopeReadProtected
	case protected:
		return store.ScopeWriteProtected
	case reads:
		return store.ScopeRead
	}
	return store.ScopeWrite
}

// checkScope refuses what the caller's token is not good for.
func (c *call) checkScope() error {
	need := scopeOf(c.Pattern)
	if c.token.May(need) {
		return nil
	}
	return &fault{
		Status: http.StatusForbidden, ID: "forbidden",
		Message: "This API token's scope is " + strings.Join(c.token.Scope, ", ") + "; this call needs " + need + ". Make another token with: heroku authorizations:create -s " + need,
	}
}
