package why

import (
	"regexp"
	"strings"

	"manifold"
)

// What an app or its shell says when it ends. Each is a hint at what the
// status alone does not tell.
var (
	// ld.so(8), and dlopen(3) through whatever language.
	missingLibrary = regexp.MustCompile(`(?:error while loading shared libraries: )?([\w.+-]+\.so[\w.]*): cannot open shared object file`)
	// bash: "bash: line 1: foo: command not found"; sh: "sh: 1: foo: not found".
	missingCommand = regexp.MustCompile(`([^\s:]+): (?:command )?not found`)
	// bash: "bash: line 1: ./foo: No such file or directory"; env(1): "env: ‘foo’: No such …"; PID 1: "could not start …".
	missingFile = regexp.MustCompile(`(?:: |start )[‘'"]?([^\s:‘’'"]+)[’'"]?: (?i:no such file or directory)`)
	noSpace     = regexp.MustCompile(`(?i)no space left on device|\bENOSPC\b|disk quota exceeded`)
)

// maxHints is how many of the last lines are searched for hints.
const maxHints = 20

// hint returns what a pattern caught in the app's last lines, the last first.
func (r Run) hint(pattern *regexp.Regexp) (caught string, ok bool) {
	seen := 0
	for i := len(r.Lines) - 1; i >= 0 && seen < maxHints; i-- {
		if r.Lines[i].Source != manifold.SourceApp {
			continue
		}
		seen++
		if m := pattern.FindStringSubmatch(r.Lines[i].Text); m != nil {
			return m[len(m)-1], true
		}
	}
	return "", false
}

// lastWords is the app's last line that holds anything.
func (r Run) lastWords() string {
	for i := len(r.Lines) - 1; i >= 0; i-- {
		if text := strings.TrimSpace(r.Lines[i].Text); r.Lines[i].Source == manifold.SourceApp && text != "" {
			return clip(text, 160)
		}
	}
	return ""
}

// clip cuts text to n bytes.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "") + "…"
}
