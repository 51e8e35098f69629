package test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"manifold/test/platform"
)

// Every sample app is pushed, built by the buildpack for its language, and
// answers through the router. Some then become quite another app.
func TestPushAndServe(t *testing.T) {
	entries, err := os.ReadDir("apps")
	if err != nil {
		t.Fatal(err)
	}
	served, became := 0, 0
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		served++
		become := thirdParty[e.Name()]
		if become != nil {
			became++
		}
		t.Run(e.Name(), func(t *testing.T) {
			p := running(t)
			app := p.CreateApp(t)
			out := p.Push(t, platform.Sample(t, e.Name()), app)
			if !strings.Contains(out, "remote: -----> ") {
				t.Errorf("the build was not shown:\n%s", out)
			}
			t.Logf("answer: %q", p.Answers(t, app, "/", ""))
			if become != nil {
				become(t, p, app)
			}
		})
	}
	if served < 5 || became != len(thirdParty) {
		t.Errorf("only %d sample apps, of which %d became another", served, became)
	}
}

// Apps that were not written for this platform, as their authors published
// them: mountebank (Express with 22 packages of its own choice) and
// Prometheus' blackbox exporter (Go, 13 modules). Both take their port as a
// flag, so a Procfile is what is added to them. Each is forced upon a sample
// app of its language, whose build cache it finds.
var thirdParty = map[string]func(t *testing.T, p *platform.Instance, app string){
	"node-express": func(t *testing.T, p *platform.Instance, app string) {
		dir := t.TempDir()
		unpackNPM(t, "mountebank@2.9.1", dir)
		platform.Write(t, dir, map[string]string{"Procfile": "web: bin/mb start --port $PORT --nologfile\n"})
		platform.Commit(t, dir)
		p.ForcePush(t, dir, app)
		p.Answers(t, app, "/config", `"version": "2.9.1"`)
		p.Answers(t, app, "/", `"_links"`)
	},
	"go-web": func(t *testing.T, p *platform.Instance, app string) {
		dir := t.TempDir()
		unpackGo(t, "github.com/prometheus/blackbox_exporter@v0.25.0", dir)
		platform.Write(t, dir, map[string]string{"Procfile": "web: blackbox_exporter --web.listen-address=:$PORT --config.file=blackbox.yml\n"})
		platform.Commit(t, dir)
		p.ForcePush(t, dir, app)
		p.Answers(t, app, "/", "Blackbox Exporter")
		p.Answers(t, app, "/metrics", "blackbox_exporter_config_last_reload_successful 1")
	},
}

// unpackNPM puts a package of the npm registry into dir.
func unpackNPM(t *testing.T, pkg, dir string) {
	t.Helper()
	tarball := filepath.Join(platform.Cache, "npm", strings.ReplaceAll(pkg, "@", "-")+".tgz")
	if _, err := os.Stat(tarball); err != nil {
		if err := os.MkdirAll(filepath.Dir(tarball), 0o755); err != nil {
			t.Fatal(err)
		}
		output(t, filepath.Dir(tarball), "npm", "pack", "--silent", pkg)
	}
	output(t, dir, "tar", "-xzf", tarball, "--strip-components=1")
}

// unpackGo puts a module of the Go module proxy into dir.
func unpackGo(t *testing.T, module, dir string) {
	t.Helper()
	var found struct{ Dir string }
	if err := json.Unmarshal(output(t, "", "go", "mod", "download", "-json", module), &found); err != nil {
		t.Fatal(err)
	}
	output(t, dir, "cp", "-rT", "--no-preserve=mode", found.Dir, ".")
}

func output(t *testing.T, dir, command string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(command, args...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v", command, strings.Join(args, " "), err)
	}
	return out
}

// A push to a branch that is not deployed is kept, and the pusher is told.
func TestPushOtherBranch(t *testing.T) {
	p := running(t)
	app := p.CreateApp(t)
	out, err := p.TryPush(t, platform.Sample(t, "hello"), app, "topic", p.Token)
	if err != nil {
		t.Errorf("git push of another branch: %v\n%s", err, out)
	}
	if !strings.Contains(out, "main") || strings.Contains(out, "Launching") {
		t.Errorf("the pusher is not told that nothing was deployed:\n%s", out)
	}
	if status, _, _ := p.Visit(app, "/"); status == http.StatusOK {
		t.Error("the branch was deployed")
	}
	t.Logf("pusher reads:\n%s", out)
}
