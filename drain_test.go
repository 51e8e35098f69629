package manifold

import (
	"strings"
	"testing"
)

func TestCheckDrainURL(t *testing.T) {
	for _, ok := range []string{
		"https://logs.example.com/in", "http://u:p@10.0.0.7:8080/x?y=z", "syslog://logs.example.com:514",
		"syslog+tls://[2001:db8::1]:6514", "syslog+tls://logs.example.com:6514/",
	} {
		if err := CheckDrainURL(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{
		"", "x", "/etc/passwd", "file:///etc/passwd", "gopher://h/", "https://", "https:opaque", "http://h/#f", "http:///x",
		"syslog://h", "syslog://h:514/x", "syslog://u:p@h:514", "syslog+tls://h:99999999999", "http://h:x/", "https://a b/",
		"https://h/\r\nX: y", "https://h/ü", "https://h/" + strings.Repeat("x", MaxDrainURL),
	} {
		err := CheckDrainURL(bad)
		if err == nil {
			t.Errorf("%.60q was accepted", bad)
		} else if len(bad) > 8 && strings.Contains(err.Error(), bad) {
			t.Errorf("%q tells the whole URL", err)
		}
	}
}

func FuzzCheckDrainURL(f *testing.F) {
	f.Add("https://u:p@logs.example.com:1/x?y")
	f.Add("syslog+tls://[::1]:6514")
	f.Fuzz(func(t *testing.T, raw string) {
		if CheckDrainURL(raw) == nil && strings.ContainsAny(raw, " \r\n\x00") {
			t.Errorf("%q was accepted", raw)
		}
	})
}
