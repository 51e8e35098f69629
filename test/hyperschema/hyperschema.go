// Package hyperschema holds answers of the Platform API against Heroku's public
// description of it, a JSON hyper-schema of 290 links that comes with the Go
// client. It looks and counts; it never changes what passes by.
package hyperschema

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// module is where the description comes from.
const module = "github.com/heroku/heroku-go/v5"

// Schema is the description, and what was held against it so far.
type Schema struct {
	links []*link

	mu         sync.Mutex
	validated  int
	violations []string
}

// link is one kind of request.
type link struct {
	method string
	href   string
	path   *regexp.Regexp
	answer *jsonschema.Schema // nil: the description says nothing of it
	count  int                // answers of 2xx
}

// Load reads the description. dir is a directory of the Go module that requires
// the client.
func Load(dir string) (*Schema, error) {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Dir = dir
	where, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("find module %s: %w", module, err)
	}
	f, err := os.Open(filepath.Join(strings.TrimSpace(string(where)), "schema.json"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	doc, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return parse(doc.(map[string]any))
}

const resource = "heroku.json"

func parse(doc map[string]any) (*Schema, error) {
	obey(doc)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft4)
	c.AssertFormat()
	if err := c.AddResource(resource, doc); err != nil {
		return nil, err
	}
	s := &Schema{}
	definitions := doc["definitions"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(definitions)) {
		links, _ := definitions[name].(map[string]any)["links"].([]any)
		for i, l := range links {
			l := l.(map[string]any)
			made := &link{method: l["method"].(string), href: l["href"].(string)}
			made.path = regexp.MustCompile("^" + placeholder.ReplaceAllString(made.href, `[^/]+`) + "$")
			if l["targetSchema"] != nil {
				answer, err := c.Compile(fmt.Sprintf("%s#/definitions/%s/links/%d/targetSchema", resource, name, i))
				if err != nil {
					return nil, fmt.Errorf("%s %s: %w", made.method, made.href, err)
				}
				made.answer = answer
			}
			s.links = append(s.links, made)
		}
	}
	return s, nil
}

var placeholder = regexp.MustCompile(`\{[^}]*\}`)

// obey makes plain JSON schema of strictProperties, which demands every member
// it lists. That it forbids others is not taken over: Heroku itself answers
// more, which its CLI reads.
func obey(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, isText := v["$schema"].(string); isText { // a meta-schema of their own, and a name that is no address
			delete(v, "$schema")
			delete(v, "id")
		}
		if properties, ok := v["properties"].(map[string]any); ok && v["strictProperties"] == true {
			required := []any{}
			for name := range properties {
				required = append(required, name)
			}
			v["required"] = required
		}
		if required, ok := v["required"].([]any); ok && len(required) == 0 { // which draft 4 does not allow
			delete(v, "required")
		}
		if pattern, ok := v["pattern"].(string); ok { // some look ahead, which Go's expressions do not; some name Heroku's hosts
			if _, err := regexp.Compile(pattern); err != nil || strings.Contains(pattern, "heroku") {
				delete(v, "pattern")
			}
		}
		if v["format"] == "uri" { // which it says of bare host names
			v["format"] = "uri-reference"
		}
		if names, ok := v["enum"].([]any); ok && slices.Contains(names, any("us-east-1")) { // another provider's
			delete(v, "enum")
		}
		if v["additionalProperties"] == false {
			delete(v, "additionalProperties")
		}
		for _, child := range v {
			obey(child)
		}
	case []any:
		for _, child := range v {
			obey(child)
		}
	}
}

// Watch is a transport that holds every answer of the Platform API against the
// description.
func (s *Schema) Watch(next http.RoundTripper) http.RoundTripper { return watcher{s, next} }

type watcher struct {
	schema *Schema
	next   http.RoundTripper
}

func (w watcher) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := w.next.RoundTrip(req)
	if err != nil || req.Method == http.MethodHead || res.StatusCode == http.StatusNotModified || !strings.Contains(req.Header.Get("Accept"), "application/vnd.heroku+json") ||
		!strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		return res, err
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	w.schema.check(req.Method, req.URL.Path, res.StatusCode, body)
	return res, nil
}

// check holds one answer against every link it may belong to: it must suit one.
func (s *Schema) check(method, path string, status int, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		s.violate(method, path, status, fmt.Errorf("it is no JSON: %w", err))
		return
	}
	if status/100 != 2 {
		if failure, _ := value.(map[string]any); status/100 >= 4 && (!isText(failure["id"]) || !isText(failure["message"])) {
			s.violate(method, path, status, fmt.Errorf("an error without id and message: %.200s", body))
		}
		return
	}
	var first error // none if the request is of our own, or of the CLI's private ones
	for _, l := range s.links {
		if l.method != method || !l.path.MatchString(path) {
			continue
		}
		if l.answer != nil {
			if err := l.answer.Validate(value); err != nil {
				first = err
				continue
			}
			s.validated++
		}
		l.count++
		return
	}
	if first != nil {
		s.violate(method, path, status, first)
	}
}

func isText(v any) bool { text, ok := v.(string); return ok && text != "" }

func (s *Schema) violate(method, path string, status int, err error) {
	const enough = 50
	if len(s.violations) < enough {
		s.violations = append(s.violations, fmt.Sprintf("%s %s (%d): %v", method, path, status, err))
	}
}

// Violations are the answers so far that the description does not allow.
func (s *Schema) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.violations)
}

// Report sums up in words.
func (s *Schema) Report() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	answered := 0
	for _, l := range s.links {
		if l.count > 0 {
			answered++
		}
	}
	return fmt.Sprintf("%d of %d links of Heroku's schema answered, %d answers validated, %d violations", answered, len(s.links), s.validated, len(s.violations))
}

// Answered names the links that were answered, as "GET /apps/{}".
func (s *Schema) Answered() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.links {
		if l.count > 0 {
			list = append(list, l.method+" "+placeholder.ReplaceAllString(l.href, "{}"))
		}
	}
	return list
}
