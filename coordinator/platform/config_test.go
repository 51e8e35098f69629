package platform

import (
	"fmt"
	"strings"
	"testing"
)

func TestConfig(t *testing.T) {
	r := newRig(t)
	app := r.app("configured")
	const path = "/apps/configured/config-vars"
	type release struct {
		Version     int
		Description string
		Current     bool
		User        struct{ ID, Email string }
	}
	for _, tc := range []struct {
		body        string
		want        map[string]string
		description string // of the newest release
		version     int
	}{
		{`{}`, map[string]string{}, "Enable Logplex", 2},
		{`{"FOO":"1"}`, map[string]string{"FOO": "1"}, "Set FOO config vars", 3},
		{`{"FOO":"1"}`, map[string]string{"FOO": "1"}, "Set FOO config vars", 3}, // no change, no release
		{`{"NONE":null}`, map[string]string{"FOO": "1"}, "Set FOO config vars", 3},
		{`{"FOO":"2","BAR":"ä b\n","FOO2":""}`, map[string]string{"FOO": "2", "BAR": "ä b\n", "FOO2": ""}, "Set BAR, FOO, FOO2 config vars", 4},
		{`{"FOO":"2","BAR":null}`, map[string]string{"FOO": "2", "FOO2": ""}, "Remove BAR config vars", 5},
		{`{"FOO":null,"NEW":"x"}`, map[string]string{"FOO2": "", "NEW": "x"}, "Set NEW, Remove FOO config vars", 6},
	} {
		got := into[map[string]string](r.send("PATCH", path, tc.body).want(200))
		read := into[map[string]string](r.send("GET", path, "").want(200))
		if fmt.Sprint(got) != fmt.Sprint(tc.want) || fmt.Sprint(read) != fmt.Sprint(tc.want) {
			t.Errorf("%s gives %q, then %q; want %q", tc.body, got, read, tc.want)
		}
		last := into[[]release](r.send("GET", "/apps/configured/releases", "", "Range", "version ..; order=desc,max=1"))
		if len(last) != 1 || last[0].Version != tc.version || last[0].Description != tc.description || !last[0].Current || last[0].User.ID != r.user.ID {
			t.Errorf("%s leaves release %+v, want v%d %q", tc.body, last, tc.version, tc.description)
		}
	}
	r.said(app, "Set FOO config vars by user ada@example.com")
	r.said(app, "Release v3 created by user ada@example.com")
	r.said(app, "Remove BAR config vars by user ada@example.com")
	old := into[map[string]string](r.send("GET", "/apps/configured/releases/4/config-vars", "").want(200))
	if old["BAR"] != "ä b\n" || len(old) != 3 {
		t.Errorf("config of v4: %q", old)
	}
}

func TestBadConfig(t *testing.T) {
	r := newRig(t)
	r.app("bad-config")
	const path = "/apps/bad-config/config-vars"
	r.send("PATCH", path, `{"KEEP":"me"}`).want(200)
	var many strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&many, `"V%d":"x",`, i)
	}
	const secret = "s3cr3t-value"
	for _, tc := range []struct{ name, body, id, words string }{
		{"over 64 KB", `{"BIG":"` + strings.Repeat("x", 64<<10) + `"}`, "invalid_params", "64 KB"},
		{"over 64 KB with what is there", `{"BIG":"` + strings.Repeat("x", 64<<10-8) + `"}`, "invalid_params", "64 KB"},
		{"NUL", `{"NUL":"` + secret + `\u0000b"}`, "invalid_params", "NUL"},
		{"10,000 vars", `{` + many.String() + `"LAST":"x"}`, "invalid_params", "1000"},
		{"name with a blank", `{"A B":"` + secret + `"}`, "invalid_params", `"A B"`},
		{"name with =", `{"A=B":"` + secret + `"}`, "invalid_params", `"A=B"`},
		{"empty name", `{"":"` + secret + `"}`, "invalid_params", "name"},
		{"digit first", `{"1A":"` + secret + `"}`, "invalid_params", "letter"},
		{"number", `{"NUM":12345678}`, "invalid_params", "NUM must be a string"},
		{"object", `{"OBJ":{"x":"` + secret + `"}}`, "invalid_params", "OBJ must be a string"},
		{"boolean", `{"B":true}`, "invalid_params", "string"},
		{"list", `["` + secret + `"]`, "bad_request", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := r.on(t)
			status := map[string]int{"invalid_params": 422, "bad_request": 400}[tc.id]
			got := r.send("PATCH", path, tc.body)
			got.fails(status, tc.id, tc.words)
			if strings.Contains(got.text, secret) || strings.Contains(got.text, "12345678") {
				t.Errorf("the answer repeats a value: %s", got.text)
			}
		})
	}
	if got := r.send("GET", path, "").want(200); strings.TrimSpace(got.text) != "{\n  \"KEEP\": \"me\"\n}" {
		t.Errorf("after bad requests: %s", got.text)
	}
	if all := into[[]object](r.send("GET", "/apps/bad-config/releases", "").want(200)); len(all) != 3 {
		t.Errorf("bad requests made releases: %d", len(all))
	}
}

func TestDescriptionOfHundreds(t *testing.T) {
	var names []string
	for i := range 300 {
		names = append(names, fmt.Sprintf("V%d", i))
	}
	if got := describeConfig(names, nil); len(got) > 200 || !strings.HasSuffix(got, "and 280 more config vars") {
		t.Errorf("%q", got)
	}
}
