package compiler

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"manifold"
)

func TestParseProcfile(t *testing.T) {
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "t%d: true\n", i)
		}
		return b.String()
	}
	for _, c := range []struct {
		name, text string
		want       map[string]string
		err        string // a part of it
	}{
		{name: "empty", text: "", want: map[string]string{}},
		{name: "plain", text: "web: bin/web -p $PORT\nworker: a: b\n", want: map[string]string{"web": "bin/web -p $PORT", "worker": "a: b"}},
		{name: "windows", text: "\xef\xbb\xbfweb: a\r\n\r\n# c\r\nworker: b\r\n", want: map[string]string{"web": "a", "worker": "b"}},
		{name: "comments and space", text: "\n# web: no\n  web :  a b  \n\t\n", want: map[string]string{"web": "a b"}},
		{name: "no newline at the end", text: "web: a", want: map[string]string{"web": "a"}},
		{name: "as many types as may be", text: many(MaxProcessTypes), want: nil},
		{name: "bad line", text: "web: a\n\nweb server\n", err: `line 3: "web server" is not of the form`},
		{name: "bad type", text: "we b: a\n", err: "line 1"},
		{name: "dotted type", text: "web.1: a\n", err: "letters, digits"},
		{name: "no type", text: ": a\n", err: "line 1"},
		{name: "no command", text: "web:\n", err: "process type web has no command"},
		{name: "twice", text: "web: a\nworker: b\nweb: c\n", err: "line 3: \"web: c\" declares process type web again; line 1"},
		{name: "too many", text: many(1000), err: "Procfile declares 1000 process types; at most 100"},
		{name: "NUL", text: "web: a\x00b\n", err: "NUL"},
		{name: "not UTF-8", text: "web: a\xffb\n", err: "UTF-8"},
		{name: "too large", text: "web: a\n#" + strings.Repeat("x", manifold.MaxProcfile), err: "larger than 256 KB"},
		{name: "long command", text: "web: " + strings.Repeat("x", manifold.MaxCommand+1), err: "longer than 32 KB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseProcfile([]byte(c.text))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q in it", err, c.err)
				}
				return
			}
			if err != nil || c.want != nil && !maps.Equal(got, c.want) {
				t.Fatalf("%v, %v; want %v", got, err, c.want)
			}
		})
	}
}

func FuzzParseProcfile(f *testing.F) {
	f.Add([]byte("web: a\r\nworker: b\n"))
	f.Add([]byte("\xef\xbb\xbf# c\nweb: \x00\n"))
	f.Add([]byte("a:b\na:c"))
	f.Fuzz(func(t *testing.T, text []byte) {
		types, err := ParseProcfile(text)
		if err != nil {
			return
		}
		if len(types) > MaxProcessTypes {
			t.Errorf("%d types", len(types))
		}
		for name, command := range types {
			if checkProcess(name, command) != nil || strings.ContainsAny(command, "\n\x00") {
				t.Errorf("accepted %q: %q", name, command)
			}
		}
	})
}

func TestParseRelease(t *testing.T) {
	got, err := parseRelease([]byte("---\naddons: [x]\nconfig_vars: {A: b}\ndefault_process_types:\n  web: bin/web\n  rake: \"bundle exec rake\"\n"))
	if want := map[string]string{"web": "bin/web", "rake": "bundle exec rake"}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	for _, ok := range []string{"", "---\n", "--- {}\n", "default_process_types:\n", "addons:\n"} {
		if got, err := parseRelease([]byte(ok)); err != nil || len(got) != 0 {
			t.Errorf("%q: %v, %v", ok, got, err)
		}
	}
	for _, bad := range []string{
		"default_process_types: [a]\n", "- a\n", "\t", "default_process_types: {web: {a: b}}", "default_process_types: {\"a b\": c}",
		"default_process_types: {web: \"\"}", "default_process_types: {web: \"a\\0b\"}", strings.Repeat("a", maxRelease+1),
		"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\n" +
			"e: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\ndefault_process_types: *f\n",
		"default_process_types: {web: a, web: b}", "default_process_types: {a: &x b, c: *x}", "{[a]: b}",
		// Each took a decoder minutes or gigabytes, or might.
		strings.Repeat("a: |\n", 13_000), strings.Repeat("[", 65_000), strings.Repeat("{a: ", 16_000), strings.Repeat("? ", 32_000),
		"default_process_types:\n" + strings.Repeat(" <<: *a\n", 8_000),
		"x: &a {b: c}\ndefault_process_types:\n" + strings.Repeat(" <<: *a\n", 5_000),
	} {
		began := time.Now()
		if got, err := parseRelease([]byte(bad)); err == nil {
			t.Errorf("%.60q was taken: %v", bad, got)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%.60q took %s", bad, took)
		}
	}
}

func FuzzParseRelease(f *testing.F) {
	f.Add([]byte("default_process_types:\n  web: a\n"))
	f.Add([]byte("default_process_types: &a {web: *a}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		types, err := parseRelease(text)
		for name, command := range types {
			if err == nil && checkProcess(name, command) != nil {
				t.Errorf("accepted %q: %q", name, command)
			}
		}
	})
}
