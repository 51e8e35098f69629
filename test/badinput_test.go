package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manifold/test/platform"
)

// tight returns a platform whose builds may take little, and with a directory
// of hostile buildpacks. Each name below is a buildpack, its text bin/compile.
func tight(t *testing.T) *platform.Instance {
	t.Helper()
	p := own(t)
	packs := filepath.Join(p.Dir, "buildpacks")
	for name, compile := range map[string]string{
		"failing": "echo 'no compiler for this'; exit 3",
		"hanging": "echo 'thinking …'; sleep 1000000",
		"filling": "echo 'filling …'; fallocate -l 7G $1/most; head -c 3G /dev/zero > $1/rest",
		"huge":    "head -c 60M /dev/urandom > $1/noise",
		"spam":    "head -c 3000000 /dev/urandom | base64 -w 0; echo; exit 1",
	} {
		platform.Write(t, filepath.Join(packs, name, "bin"), map[string]string{
			"detect":  "#!/bin/sh\necho " + name + "\n",
			"compile": "#!/bin/sh\n" + compile + "\n",
			"release": "#!/bin/sh\nprintf -- '---\\ndefault_process_types:\\n  web: sleep 1000\\n'\n",
		})
	}
	p.Extra = []string{"MANIFOLD_BUILD_TIMEOUT=50s", "MANIFOLD_SLUG_LIMIT=40", "MANIFOLD_BUILDPACKS=" + packs}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// What a build may do wrong: the pusher reads a sentence, the old release
// serves on, and the next good push works.
func TestBadBuilds(t *testing.T) {
	t.Parallel() // a platform of its own
	p := tight(t)
	good := map[string]string{"Procfile": "web: python3 app.py\n", "requirements.txt": "", "app.py": answering("good")}
	hangs := badBuild{name: "compile hangs", buildpack: "hanging", files: good, words: []string{"took longer than 50s"}}
	t.Run("beside each other", func(t *testing.T) {
		t.Run("one that hangs", func(t *testing.T) {
			t.Parallel()
			badBuilds(t, p, good, hangs)
		})
		t.Run("one after another", func(t *testing.T) {
			t.Parallel()
			badBuilds(t, p, good, []badBuild{
				{name: "nothing to detect", files: map[string]string{"notes.txt": "hello"}, words: []string{"no buildpack fits", "package.json"}},
				{name: "procfile with a bad line", files: with(good, "Procfile", "web: python3 app.py\nthis is no process\n"), words: []string{"Procfile line 2", "this is no process"}},
				{name: "procfile with a type twice", files: with(good, "Procfile", "web: python3 app.py\nweb: python3 other.py\n"), words: []string{"Procfile line 2", "again"}},
				{name: "procfile with 1,000 types", files: with(good, "Procfile", manyTypes(1000)), words: []string{"1000 process types", "at most"}},
				{name: "compile fails", buildpack: "failing", files: good, words: []string{"no compiler for this", "failed to compile"}},
				{name: "compile fills the disk", buildpack: "filling", files: good, words: []string{"filled its disk"}},
				{name: "compile spams", buildpack: "spam", files: good, words: []string{"failed to compile"}},
				{name: "slug over the limit", buildpack: "huge", files: good, words: []string{"too large (max is 40M)"}},
				{name: "buildpack that is not there", buildpack: "missing", files: good, words: []string{"missing", "cannot be opened"}},
			}...)
		})
	})
}

// badBuild is a push that must be refused with words.
type badBuild struct {
	name, buildpack string
	files           map[string]string
	words           []string
}

// badBuilds pushes each of bad to an app that good was deployed to.
func badBuilds(t *testing.T, p *platform.Instance, good map[string]string, bad ...badBuild) {
	app := p.CreateApp(t)
	p.Push(t, platform.Repository(t, good), app)
	p.Answers(t, app, "/", "good")
	for _, c := range bad {
		t.Run(c.name, func(t *testing.T) {
			packs := []map[string]string{}
			if c.buildpack != "" {
				packs = append(packs, map[string]string{"buildpack": filepath.Join(p.Dir, "buildpacks", c.buildpack)})
			}
			p.Call(t, "PUT", "/apps/"+app+"/buildpack-installations", map[string]any{"updates": packs}, nil)
			began := time.Now()
			p.PushRefused(t, platform.Repository(t, c.files), app, c.words...)
			t.Logf("refused after %.1f s", time.Since(began).Seconds())
			p.Answers(t, app, "/", "good")
		})
	}
	p.Call(t, "PUT", "/apps/"+app+"/buildpack-installations", map[string]any{"updates": []any{}}, nil)
	p.ForcePush(t, platform.Repository(t, with(good, "app.py", answering("better"))), app)
	p.Answers(t, app, "/", "better")
	var releases []struct{ Version int }
	p.Call(t, "GET", "/apps/"+app+"/releases", nil, &releases)
	if len(releases) != 4 {
		t.Errorf("there are %d releases; refused pushes must make none (want 4)", len(releases))
	}
}

func with(files map[string]string, name, content string) map[string]string {
	all := map[string]string{name: content}
	for n, c := range files {
		if n != name {
			all[n] = c
		}
	}
	return all
}

func manyTypes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "type%d: true\n", i)
	}
	return b.String()
}

// Odd things that are allowed in a repository and must come through a build
// unharmed and harmless: links that point out of it, names no one can read,
// Windows line ends.
func TestOddFiles(t *testing.T) {
	p := running(t)
	dir := t.TempDir()
	platform.Write(t, dir, map[string]string{
		"Procfile":         "web: python3 app.py\r\n\r\nworker: sleep 1000\r\n",
		"requirements.txt": "",
		"new\nline":        "a name with a newline",
		"app.py":           answering("odd"),
		"latin-\xe9":       "a name that is not UTF-8",
	})
	for link, target := range map[string]string{
		"outside": "../../../../etc/shadow", "absolute": "/etc/shadow", "loop": "loop", "dangling": "nowhere", "up": "..",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	platform.Commit(t, dir)
	app := p.CreateApp(t)
	p.Push(t, dir, app)
	p.Answers(t, app, "/", "odd")
	var formation []struct{ Type, Command string }
	p.Call(t, "GET", "/apps/"+app+"/formation", nil, &formation)
	for _, f := range formation {
		if strings.ContainsAny(f.Command+f.Type, "\r\n") {
			t.Errorf("a line end got into process type %q, command %q", f.Type, f.Command)
		}
	}
	if len(formation) != 2 {
		t.Errorf("process types: %+v, want web and worker", formation)
	}
}

// What a person may send to the API: a status and a sentence.
func TestBadRequests(t *testing.T) {
	p := running(t)
	app := p.CreateApp(t)
	p.Push(t, platform.Sample(t, "hello"), app)
	p.Answers(t, app, "/", "Hello")

	for _, name := range []string{"", "ab", "Upper", "-dash", "dash-", "two words", "../etc", "a.b", strings.Repeat("x", 31), "naïve", "new\nline"} {
		if name == "" {
			continue // means: draw one
		}
		p.Refused(t, 422, "POST", "/apps", map[string]string{"name": name}, "Name")
	}
	p.Refused(t, 422, "POST", "/apps", map[string]string{"name": app}, "taken")

	scale := func(typ string, quantity any) map[string]any {
		return map[string]any{"updates": []any{map[string]any{"type": typ, "quantity": quantity}}}
	}
	p.Refused(t, 404, "PATCH", "/apps/"+app+"/formation", scale("nosuch", 1), "nosuch")
	for _, quantity := range []any{"-5x", 101, "1e9", "99999999999999999999", 1.5, "", true} {
		p.Refused(t, 422, "PATCH", "/apps/"+app+"/formation", scale("web", quantity), "")
	}
	p.Refused(t, 422, "PATCH", "/apps/"+app+"/formation", scale("web", -1), "")

	p.Refused(t, 422, "PATCH", "/apps/"+app+"/config-vars", map[string]string{"BIG": strings.Repeat("x", 64<<10)}, "64 KB")
	p.Refused(t, 422, "PATCH", "/apps/"+app+"/config-vars", map[string]string{"NUL": "a\x00b"}, "NUL")
	p.Refused(t, 422, "PATCH", "/apps/"+app+"/config-vars", map[string]string{"1BAD": "x"}, "1BAD")
	if status, text := p.Request(t, "PATCH", "/apps/"+app+"/config-vars", p.Token, []byte(`{"A": `)); status/100 != 4 {
		t.Errorf("half a JSON object: %d %s", status, text)
	}

	var vars map[string]string
	p.Call(t, "GET", "/apps/"+app+"/config-vars", nil, &vars)
	if len(vars) != 0 {
		t.Errorf("a refused config var was kept: %v", vars)
	}
	p.Answers(t, app, "/", "Hello")
}

// Tokens that are wrong or missing, at each door.
func TestBadTokens(t *testing.T) {
	p := running(t)
	app := p.CreateApp(t)
	for name, token := range map[string]string{"wrong": "0000-1111", "missing": "", "almost": p.Token[:len(p.Token)-1]} {
		if status, text := p.Request(t, "GET", "/account", token, nil); status != 401 {
			t.Errorf("API with the %s token: %d %s", name, status, text)
		}
		out, err := p.TryPush(t, platform.Sample(t, "hello"), app, "main", token)
		if err == nil {
			t.Errorf("git push with the %s token was accepted:\n%s", name, out)
		}
		if strings.Contains(out, p.Token) {
			t.Error("a token is in what git shows")
		}
	}

	// A host that joins with a wrong token is told why, and runs nothing.
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	right, err := os.ReadFile(filepath.Join(p.Home, "coordinator", "join-token"))
	if err != nil {
		t.Fatal(err)
	}
	_, fingerprint, _ := strings.Cut(strings.TrimSpace(string(right)), ".")
	if err := os.WriteFile(token, []byte("nonsense."+fingerprint+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stranger, err := platform.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out platform.Buffer
	cmd := exec.Command(filepath.Join(platform.Programs, "manifold-agent"))
	cmd.Env = append(stranger.Environ(), "MANIFOLD_FLEET_ADDR="+p.Fleet, "MANIFOLD_JOIN_TOKEN_FILE="+token)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := stranger.Agent().Post("http://agent/v1/teardown", "", nil); err != nil {
			t.Errorf("tear the stranger down: %v", err)
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait()
		stranger.NothingLeft(t)
	}()
	platform.Eventually(t, time.Minute, func() error {
		if !strings.Contains(out.String(), "token") {
			return fmt.Errorf("the agent does not say that its token is wrong: %s", out.String())
		}
		return nil
	})
	t.Logf("agent with a wrong join token says: %s", out.String())
}
