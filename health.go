package manifold

import "strings"

// HealthCheckVar is the config var by which an app asks for a check of its web
// dynos: the path of a page that a dyno which works answers.
const HealthCheckVar = "MANIFOLD_HEALTH_CHECK"

// ParseHealthCheck accepts the path of a health check, or "" for none: from the
// root, at most 256 printable ASCII characters, and no query, since the path is
// shown in logs.
func ParseHealthCheck(path string) (string, error) {
	odd := func(c rune) bool { return c <= ' ' || c > '~' || c == '?' || c == '#' }
	if path != "" && (path[0] != '/' || len(path) > 256 || strings.ContainsFunc(path, odd)) {
		return "", invalid("Config var", "%s must be a path such as /health, of at most 256 characters and without a query", HealthCheckVar)
	}
	return path, nil
}
