package jobs

import "testing"

func TestPassword(t *testing.T) {
	const text = "machine other login a password wrong\nmachine localhost\n  login me@example.com\n  password right\nmachine late password no\n"
	for host, want := range map[string]string{"localhost": "right", "late": "no", "none": "", "login": ""} {
		if got := password(text, host); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
	if got := password("machine localhost password", "localhost"); got != "" {
		t.Errorf("cut off: %q", got)
	}
}
