package bundle

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const removed = "[removed]"

// minSecret is the shortest value that is looked for in texts. Shorter ones
// ("1", "true") would make every text unreadable, and are removed where they
// belong: from records.
const minSecret = 6

// scrubber takes secrets out of texts: those it was told, in any form they are
// likely to be written in, and what looks like one.
type scrubber struct {
	known    map[string]bool
	replacer *strings.Replacer
}

func newScrubber() *scrubber { return &scrubber{known: map[string]bool{}} }

// learn adds a secret.
func (s *scrubber) learn(secret string) {
	s.replacer = nil
	forms := []string{secret, strings.TrimSpace(secret)}
	for line := range strings.Lines(secret) { // keys in PEM are logged by the line, if at all
		if line = strings.TrimSpace(line); len(line) >= 16 {
			forms = append(forms, line)
		}
	}
	for _, form := range forms {
		if len(form) < minSecret {
			continue
		}
		escaped, _ := json.Marshal(form) // a string always can
		quoted, inURL := strconv.Quote(form), url.QueryEscape(form)
		for _, f := range []string{
			form, string(escaped[1 : len(escaped)-1]), quoted[1 : len(quoted)-1], inURL, url.PathEscape(form),
			base64.RawStdEncoding.EncodeToString([]byte(form)), base64.RawURLEncoding.EncodeToString([]byte(form)),
		} {
			s.known[f] = true
		}
	}
}

// learnEnv adds the values of every environment in a JSON text: of records and
// of what is desired.
func (s *scrubber) learnEnv(text []byte) {
	var v any
	if json.Unmarshal(text, &v) == nil {
		eachEnv(v, func(env map[string]any) {
			for _, value := range env {
				if secret, ok := value.(string); ok {
					s.learn(secret)
				}
			}
		})
	}
}

// eachEnv calls f with every object that is called env or config.
func eachEnv(v any, f func(map[string]any)) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			eachEnv(one, f)
		}
	case map[string]any:
		for key, one := range v {
			if env, ok := one.(map[string]any); ok && (strings.EqualFold(key, "env") || strings.EqualFold(key, "config")) {
				f(env)
			} else {
				eachEnv(one, f)
			}
		}
	}
}

// withoutEnv is a JSON text whose environments have names only. What is no
// JSON is not shown at all.
func withoutEnv(text []byte) []byte {
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return []byte("not JSON (" + err.Error() + "), so it is left out\n")
	}
	eachEnv(v, func(env map[string]any) {
		for name := range env {
			env[name] = removed
		}
	})
	out, _ := json.MarshalIndent(v, "", "  ") // it came from JSON
	return append(out, '\n')
}

// What looks like a secret, whoever's it is. $1 stays.
var looks = []*regexp.Regexp{
	regexp.MustCompile(`()-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*PRIVATE KEY-----)?`),
	regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9+/=._~-]{8,}`),
	regexp.MustCompile(`(://[^/\s:@"]*:)[^/\s@"]+(?:@)`),
	regexp.MustCompile(`(?i)((?:token|secret|passw(?:or)?d|api_?key|private_?key|credential)s?\\?["']?\s*[=:]\s*\\?["']?)[^\s"'\\,;}{\[\]]+`),
	regexp.MustCompile(`()\bHRKU-[A-Za-z0-9_-]{8,}`),
}

func (s *scrubber) scrub(text []byte) []byte {
	if s.replacer == nil {
		all := make([]string, 0, len(s.known))
		for form := range s.known {
			all = append(all, form)
		}
		// One that holds another goes first.
		slices.SortFunc(all, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
		pairs := make([]string, 0, 2*len(all))
		for _, form := range all {
			pairs = append(pairs, form, removed)
		}
		s.replacer = strings.NewReplacer(pairs...)
	}
	out := []byte(s.replacer.Replace(string(text)))
	for _, look := range looks {
		out = look.ReplaceAll(out, []byte("${1}"+removed))
	}
	return out
}
