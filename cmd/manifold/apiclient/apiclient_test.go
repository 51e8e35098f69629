package apiclient

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"manifold"
)

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

func TestFirstUsersTokenStaysHere(t *testing.T) {
	settings := manifold.Settings{Home: t.TempDir(), APIAddr: "localhost:5000"}
	dir := filepath.Join(settings.Home, "coordinator")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "first-token"), []byte("mfld_first\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("HEROKU_API_KEY", "")
	t.Setenv("HEROKU_HOST", "")
	if c, err := New(settings); err != nil || c.token != "mfld_first" {
		t.Errorf("without HEROKU_HOST: %+v, %v", c, err)
	}
	t.Setenv("HEROKU_HOST", "http://localhost:7000")
	if c, err := New(settings); err == nil {
		t.Errorf("to another platform goes %q", c.token)
	}
	for _, name := range []string{"platform.example.com", "platform.example.com:5000", "10.0.0.1:5000"} {
		t.Setenv("HEROKU_HOST", name)
		if c, err := New(settings); err == nil || !strings.Contains(err.Error(), "no URL") {
			t.Errorf("what is meant for %s goes to %+v, %v", name, c, err)
		}
	}
}

// Who logged in with the heroku CLI is who they are for us too: it names a host
// with its port in ~/.netrc.
func TestLoginOfTheHerokuCLI(t *testing.T) {
	home := t.TempDir()
	text := "machine localhost:5000\n  login grace@example.com\n  password grace's\nmachine localhost:5443\n  login grace@example.com\n  password git's\n"
	if err := os.WriteFile(filepath.Join(home, ".netrc"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	t.Setenv("HEROKU_API_KEY", "")
	t.Setenv("HEROKU_HOST", "http://localhost:5000")
	if c, err := New(manifold.Settings{Home: t.TempDir(), APIAddr: "localhost:5000"}); err != nil || c.token != "grace's" {
		t.Errorf("logged in as %+v, %v", c, err)
	}
}
