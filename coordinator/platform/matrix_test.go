package platform

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// bad is what strangers send, to every endpoint there is: the routes are asked
// for, so that one that is new cannot be forgotten.
var bad = []struct {
	name    string
	body    string
	header  []string
	methods string // those that read it; "": all
	status  int    // 0: any of 4xx, or success where what is sent does no harm
}{
	{name: "no token", header: []string{"Authorization", ""}, status: 401},
	{name: "a wrong token", header: []string{"Authorization", "Bearer mfld_x"}, status: 401},
	{name: "another version", header: []string{"Accept", "application/vnd.heroku+json; version=4"}, status: 406},
	{name: "a huge body", body: `{"x":"` + strings.Repeat("x", 1<<20) + `"}`, status: 413, methods: "POST PATCH PUT"},
	{name: "1 MB of nesting", body: strings.Repeat("[", 1<<20-1), status: 400, methods: "POST PATCH PUT"},
	{name: "nesting that ends", body: `{"x":` + strings.Repeat("[", 500_000) + strings.Repeat("]", 500_000) + `}`, status: 400, methods: "POST PATCH PUT"},
	{name: "invalid UTF-8", body: "{\"name\":\"a\xff\"}", status: 400, methods: "POST PATCH PUT"},
	{name: "no JSON", body: "name=foo", status: 400, methods: "POST PATCH PUT"},
	{name: "an array", body: `[1,2]`, status: 400, methods: "POST PATCH PUT"},
	{name: "a number", body: `7`, status: 400, methods: "POST PATCH PUT"},
	{name: "a text", body: `"x"`, status: 400, methods: "POST PATCH PUT"},
	{name: "wrong types", body: wrongTypes(`{"a":[]}`), methods: "POST PATCH PUT"},
	{name: "numbers for texts", body: wrongTypes(`-1e999`), methods: "POST PATCH PUT"},
	{name: "NUL in texts", body: wrongTypes(`"a\u0000b"`), methods: "POST PATCH PUT"},
	{name: "paths in texts", body: wrongTypes(`"../../../etc/passwd"`), methods: "POST PATCH PUT"},
	{name: "nulls", body: wrongTypes(`null`), methods: "POST PATCH PUT"},
	{name: "Range nonsense", header: []string{"Range", "id ]a..b[; max=-1, order=sideways"}, methods: "GET"},
	{name: "a Range of another list", header: []string{"Range", "nosuch ..; max=1"}, methods: "GET"},
	{name: "a huge Range", header: []string{"Range", "id " + strings.Repeat("9", 8000) + "..;max=99999999999999999999"}, methods: "GET"},
	{name: "If-Match of nothing", header: []string{"If-Match", `"x"`}},
}

// wrongTypes gives every field any endpoint knows the same value.
func wrongTypes(value string) string {
	fields := map[string]json.RawMessage{}
	for name := range strings.FieldsSeq(`name stack region build_stack maintenance user updates type quantity size hostname sni_endpoint enabled command attach env
		release slug description scope expires_in public_key url include level secret authorization every at source_blob buildpacks lines tail dyno source
		app recipient state time_to_live force_no_tty type buildpack A`) {
		fields[name] = json.RawMessage(value)
	}
	text, err := json.Marshal(fields)
	if err != nil { // a number JSON can hold and Go cannot
		return `{"quantity":` + value + `,"lines":` + value + `,"expires_in":` + value + `,"name":` + value + `}`
	}
	return string(text)
}

var placeholder = regexp.MustCompile(`\{[a-z]+\}`)

// bodiless are POST, PATCH and PUT endpoints that read no body.
var bodiless = []string{
	"PATCH /account/features/{feature}", "POST /apps/{app}/sources", "POST /sources", "POST /apps/{app}/scheduler-jobs/{job}/actions/run",
	"POST /apps/{app}/dynos/{dyno}/actions/stop", "POST /apps/{app}/formations/{type}/actions/stop",
	"POST /oauth/authorizations/{id}/actions/regenerate-tokens",
	// They look first whether there is what is to be changed.
	"PATCH /apps/{app}/features/{feature}", "PATCH /apps/{app}/domains/{domain}",
}

// Every endpoint answers every kind of nonsense with an error that can be read,
// never with 500, and of another user's app knows as little as of none.
func TestEveryEndpointMeetsStrangers(t *testing.T) {
	r := newRig(t, func(c *Config) { c.CallsPerHour = 1 << 20 })
	stranger := r.strangersApp()
	patterns := map[string]bool{}
	for _, resource := range resources {
		for pattern := range resource(&api{}) {
			patterns[pattern] = true
		}
	}
	checks := 0
	for i, pattern := range slices.Sorted(maps.Keys(patterns)) {
		mine := fmt.Sprintf("mine-%d", i) // an earlier one may be renamed or destroyed
		r.app(mine)
		method, path, _ := strings.Cut(pattern, " ")
		at := placeholder.ReplaceAllString(strings.ReplaceAll(path, "{app}", mine), "none")
		for _, b := range bad {
			reads := b.methods == "" || slices.Contains(strings.Fields(b.methods), method)
			if !reads || b.body != "" && slices.Contains(bodiless, pattern) {
				continue
			}
			checks++
			got := r.send(method, at, b.body, b.header...)
			var said struct{ ID, Message string }
			isError := json.Unmarshal([]byte(got.text), &said) == nil && said.ID != "" && said.Message != ""
			switch {
			case got.status >= 500, got.status >= 400 && !isError, got.status/100 == 3:
				t.Errorf("%s, %s: %d %.200s", pattern, b.name, got.status, got.text)
			case b.status != 0 && got.status != b.status:
				t.Errorf("%s, %s: %d, want %d: %.200s", pattern, b.name, got.status, b.status, got.text)
			}
		}
		if strings.HasPrefix(path, "/apps/{app}") {
			for _, name := range []string{stranger.Name, stranger.ID, "no-such-app", "..%2f..%2fetc", "localhost:5000", "a%00b", "%ff%fe", strings.Repeat("x", 4000)} {
				checks++
				at := placeholder.ReplaceAllString(strings.ReplaceAll(path, "{app}", name), "none")
				r.send(method, at, "").fails(404, "not_found", "no app of yours")
			}
		}
		for _, name := range []string{"..%2f..%2fetc%2fpasswd", "%00", "%ff", "*", strings.Repeat("x", 4000)} {
			if at := placeholder.ReplaceAllString(strings.ReplaceAll(path, "{app}", mine), name); strings.Contains(at, name) {
				checks++
				if got := r.send(method, at, ""); got.status >= 500 {
					t.Errorf("%s of %.20q: %d %.200s", pattern, name, got.status, got.text)
				}
			}
		}
	}
	if got := r.send("GET", "/apps", "").want(200).text; strings.Contains(got, stranger.Name) {
		t.Errorf("the list of apps shows another's: %s", got)
	}
	if app, err := r.store.App(t.Context(), stranger.ID); err != nil || app.Name != stranger.Name || len(app.Domains)+len(app.Collaborators) > 0 {
		t.Errorf("the stranger's app is %+v (%v)", app, err)
	}
	if checks < 1000 {
		t.Errorf("only %d requests", checks)
	}
	t.Logf("%d endpoints, %d requests", len(patterns), checks)
}
