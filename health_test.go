package manifold

import (
	"strings"
	"testing"
)

func TestParseHealthCheck(t *testing.T) {
	for path, fine := range map[string]bool{
		"": true, "/": true, "/health": true, "/a/%20b;c=d": true, "health": false, "http://x/": false, "/a?b=c": false, "/a#b": false,
		"/a b": false, "/ä": false, "/a\r\nHost: x": false, "/" + strings.Repeat("a", 256): false,
	} {
		if err := CheckConfigVar(HealthCheckVar, path); (err == nil) != fine {
			t.Errorf("%q: %v", path, err)
		}
	}
}
