package manifold

import (
	"strings"
	"testing"
)

func TestCheckHostname(t *testing.T) {
	for in, want := range map[string]string{
		"www.example.com": "www.example.com", "Example.COM.": "example.com", "*.example.com": "*.example.com",
		"xn--mnchen-3ya.de": "xn--mnchen-3ya.de", "a-b.1x.example": "a-b.1x.example", strings.Repeat("a", 63) + ".com": strings.Repeat("a", 63) + ".com",
	} {
		if got, err := CheckHostname(in); err != nil || got != want {
			t.Errorf("CheckHostname(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", ".", "*", "*.", "*.com", "com", "localhost", "x.localhost", "db.internal", "printer.local", "1.0.0.127.in-addr.arpa",
		"127.0.0.1", "10.0.0.1.", "[::1]", "::1", "0x7f.1", "1.2.3", "www..example.com", ".example.com", "-a.example.com", "a-.example.com",
		"a_b.example.com", "*.*.example.com", "a.*.example.com", "**.example.com", "example.com:80", "http://example.com", "example.com/",
		"exa mple.com", "example.com\n", "münchen.de", "example.com\x00", strings.Repeat("a", 64) + ".com", strings.Repeat("a.", 127) + "com",
		"../../etc", "a@example.com",
	} {
		if got, err := CheckHostname(in); err == nil {
			t.Errorf("CheckHostname(%q) accepts it as %q", in, got)
		}
	}
}

// What is accepted is a name that routers can look up, and is accepted again.
func FuzzCheckHostname(f *testing.F) {
	for _, seed := range []string{"www.example.com", "*.example.com", "EXAMPLE.com.", "127.0.0.1", "a..b", "xn--x.y", "*.com", "\xff.com"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, err := CheckHostname(text)
		if err != nil {
			if len(err.Error()) > 400 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if again, err := CheckHostname(name); err != nil || again != name {
			t.Errorf("%q became %q, which becomes %q, %v", text, name, again, err)
		}
		if name != strings.ToLower(name) || len(name) > 253 || strings.ContainsAny(name, " :/\\\x00\n%") || strings.Count(name, "*") > 1 || !strings.Contains(name, ".") {
			t.Errorf("%q was accepted as %q", text, name)
		}
	})
}

func FuzzParseQuantity(f *testing.F) {
	for _, seed := range []string{"0", "1", "+1", "-1", "100", "101", "", "1e3", "-0", "+", "٣", "99999999999999999999"} {
		f.Add(seed, 1)
	}
	f.Fuzz(func(t *testing.T, text string, present int) {
		q, err := ParseQuantity(text)
		if err != nil {
			return
		}
		if n, err := q.Of(min(max(present, 0), MaxQuantity)); err == nil && (n < 0 || n > MaxQuantity) {
			t.Errorf("%q of %d is %d", text, present, n)
		}
	})
}
