package platform

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"manifold/test/hyperschema"
)

// Eventually polls until check is content, and fails the test if it is not
// within limit. It returns how long that took.
func Eventually(t testing.TB, limit time.Duration, check func() error) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		last := time.Since(began) > limit // one that begins after it: the one before may have taken all that time
		err := check()
		if err == nil {
			return time.Since(began)
		}
		if last {
			t.Fatalf("after %s: %v", limit, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// Loopback is how tests reach the platform: never through a proxy, nor on a
// connection about to be closed for its idleness. Schema sees what passes.
var Loopback = &http.Client{Timeout: 90 * time.Second, Transport: Schema.Watch(&http.Transport{
	Proxy: nil, MaxIdleConnsPerHost: 32, IdleConnTimeout: 30 * time.Second,
})}

// Schema has seen every answer of the Platform API that the tests of this
// process asked for, by Loopback or by the heroku CLI.
var Schema = func() *hyperschema.Schema {
	s, err := hyperschema.Load(root)
	if err != nil {
		panic(err)
	}
	return s
}()

// watched is the API's address for a client that is a program: a forwarder
// that lets Schema see the answers. It ends with this process.
func (p *Instance) watched(t testing.TB) string {
	t.Helper()
	p.forward.Do(func() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		forwarder := &httputil.ReverseProxy{
			Rewrite:       func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", p.API },
			Transport:     Loopback.Transport,
			FlushInterval: -1,
			ErrorLog:      log.New(io.Discard, "", 0), // a CLI that went away
		}
		go http.Serve(l, forwarder)
		p.watchedAPI = fmt.Sprintf("localhost:%d", l.Addr().(*net.TCPAddr).Port)
	})
	return p.watchedAPI
}

// Call does a Platform API request with the first user's token and decodes a
// 2xx answer into reply.
func (p *Instance) Call(t testing.TB, method, path string, body, reply any) {
	t.Helper()
	status, text := p.Request(t, method, path, p.Token, body)
	if status/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	if reply != nil {
		if err := json.Unmarshal(text, reply); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
}

// Request does a Platform API request and returns whatever was answered.
func (p *Instance) Request(t testing.TB, method, path, token string, body any) (int, []byte) {
	t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		in = bytes.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, "http://"+p.API+path, in)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/vnd.heroku+json; version=3")
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := Loopback.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, text
}

// Refused does a Platform API request that must be answered with status and a
// sentence that contains each of words.
func (p *Instance) Refused(t testing.TB, status int, method, path string, body any, words ...string) {
	t.Helper()
	got, text := p.Request(t, method, path, p.Token, body)
	var failure struct{ ID, Message string }
	if err := json.Unmarshal(text, &failure); err != nil || failure.ID == "" || failure.Message == "" {
		t.Errorf("%s %s: no error body but %d %s", method, path, got, text)
		return
	}
	if got != status {
		t.Errorf("%s %s: status %d (%s), want %d", method, path, got, failure.Message, status)
	}
	for _, w := range words {
		if !strings.Contains(failure.Message, w) {
			t.Errorf("%s %s: %q does not say %q", method, path, failure.Message, w)
		}
	}
	t.Logf("%s %s: %d %q", method, path, got, failure.Message)
}

// CreateApp makes an app that goes with the test.
func (p *Instance) CreateApp(t testing.TB) (name string) {
	t.Helper()
	name = "t-" + strings.ToLower(rand.Text()[:10])
	p.Call(t, "POST", "/apps", map[string]string{"name": name}, nil)
	t.Cleanup(func() { p.DeleteApp(name) })
	return name
}

// AddUser makes a user as the operator does and returns their token.
func (p *Instance) AddUser(t testing.TB, email string) (token string) {
	t.Helper()
	return strings.TrimSpace(p.Coordinator(t, "", "user", "add", email))
}

// Coordinator runs a command of the coordinator's program, with input.
func (p *Instance) Coordinator(t testing.TB, input string, args ...string) string {
	t.Helper()
	var said bytes.Buffer
	cmd := exec.Command(filepath.Join(Programs, "manifold-coordinator"), args...)
	cmd.Env, cmd.Stdin, cmd.Stderr = p.Environ(), strings.NewReader(input), &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("manifold-coordinator %v: %v: %s", args, err, said.String())
	}
	return string(out)
}

// Manifold runs a command of the operator's tool.
func (p *Instance) Manifold(t testing.TB, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(filepath.Join(Programs, "manifold"), args...)
	cmd.Env = p.Environ()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// DeleteApp deletes an app if it can: its platform may be gone by then.
func (p *Instance) DeleteApp(name string) {
	req, err := http.NewRequest("DELETE", "http://"+p.API+"/apps/"+name, nil)
	if err != nil {
		return
	}
	req.Header.Set("Accept", "application/vnd.heroku+json; version=3")
	req.Header.Set("Authorization", "Bearer "+p.Token)
	if res, err := Loopback.Do(req); err == nil {
		res.Body.Close()
	}
}

// Sample returns a repository with a copy of a directory of apps/.
func Sample(t testing.TB, name string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "test", "apps", name))); err != nil {
		t.Fatal(err)
	}
	Commit(t, dir)
	return dir
}

// Repository returns a repository with these files.
func Repository(t testing.TB, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	Write(t, dir, files)
	Commit(t, dir)
	return dir
}

// Write puts these files below dir, executable.
func Write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// Commit commits everything in dir on main.
func Commit(t testing.TB, dir string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, ".git")); err != nil {
		Git(t, dir, "init", "-q", "-b", "main")
	}
	Git(t, dir, "add", "-A")
	Git(t, dir, "commit", "-q", "--allow-empty", "-m", "A change")
}

// gitEnviron keeps the machine's own git settings out of the tests.
func gitEnviron(dir string) []string {
	return append(os.Environ(),
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Test", "GIT_AUTHOR_EMAIL=test@localhost",
		"GIT_COMMITTER_NAME=Test", "GIT_COMMITTER_EMAIL=test@localhost",
		"NO_PROXY=localhost", "no_proxy=localhost",
	)
}

// Git runs git in dir, which must succeed.
func Git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = dir, gitEnviron(dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TryPush pushes HEAD of dir to a branch of app over smart HTTP and returns
// what the pusher saw.
func (p *Instance) TryPush(t testing.TB, dir, app, branch, token string, flags ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	out, err := p.push(ctx, dir, app, branch, token, flags...).CombinedOutput()
	return string(out), err
}

// PushCommand is a push to main for a test that does something to it.
func (p *Instance) PushCommand(t testing.TB, dir, app string) *exec.Cmd {
	return p.push(t.Context(), dir, app, "main", p.Token)
}

func (p *Instance) push(ctx context.Context, dir, app, branch, token string, flags ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "git", append(append([]string{"push"}, flags...), "http://"+p.API+"/"+app+".git", "HEAD:refs/heads/"+branch)...)
	const helper = `!f() { test "$1" = get && echo username=any && echo "password=$TEST_TOKEN"; }; f`
	cmd.Dir = dir
	cmd.Env = append(gitEnviron(dir), "TEST_TOKEN="+token,
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=credential.helper", "GIT_CONFIG_VALUE_0="+helper)
	return cmd
}

// Push must succeed and deploy.
func (p *Instance) Push(t testing.TB, dir, app string) string {
	t.Helper()
	return p.deploys(t, dir, app)
}

// ForcePush is Push for a history that does not descend from the last one.
func (p *Instance) ForcePush(t testing.TB, dir, app string) {
	t.Helper()
	p.deploys(t, dir, app, "--force")
}

func (p *Instance) deploys(t testing.TB, dir, app string, flags ...string) string {
	t.Helper()
	began := time.Now()
	out, err := p.TryPush(t, dir, app, "main", p.Token, flags...)
	if err != nil {
		t.Fatalf("git push: %v\n%s", err, out)
	}
	t.Logf("pushed to %s in %.1f s", app, time.Since(began).Seconds())
	return out
}

// PushRefused must be refused with a sentence for the pusher.
func (p *Instance) PushRefused(t testing.TB, dir, app string, words ...string) {
	t.Helper()
	out, err := p.TryPush(t, dir, app, "main", p.Token, "--force")
	if err == nil {
		t.Errorf("the push was accepted:\n%s", out)
		return
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("the pusher is not told %q:\n%s", w, out)
		}
	}
}

// Visit sends a request to an app through the router.
func (p *Instance) Visit(app, path string) (status int, body string, err error) {
	req, err := http.NewRequest("GET", "http://"+p.Router+path, nil)
	if err != nil {
		return 0, "", err
	}
	if req.Host = app; !strings.Contains(app, ".") {
		req.Host += ".localhost"
	}
	res, err := Loopback.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

// Answers waits until the app answers 200 with a body that contains want.
func (p *Instance) Answers(t testing.TB, app, path, want string) (body string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("log of %s:\n%s", app, strings.Join(p.Log(t, app), "\n"))
		}
	}()
	took := Eventually(t, 90*time.Second, func() error {
		status, text, err := p.Visit(app, path)
		if err != nil {
			return err
		}
		if status != 200 || !strings.Contains(text, want) {
			return fmt.Errorf("%s%s answers %d %q, want 200 with %q", app, path, status, text, want)
		}
		body = text
		return nil
	})
	t.Logf("%s%s answered after %.2f s", app, path, took.Seconds())
	return body
}

// Log is what the app's log keeps, a line "app[web.1]: text" each.
func (p *Instance) Log(t testing.TB, app string) (lines []string) {
	t.Helper()
	return p.LogOf(t, app, "")
}

// LogOf is what the app's log keeps of a source: "" is all.
func (p *Instance) LogOf(t testing.TB, app, source string) (lines []string) {
	t.Helper()
	for _, line := range p.TimedLog(t, app, source) {
		_, text, _ := strings.Cut(line, " ")
		lines = append(lines, text)
	}
	return lines
}

// TimedLog is the same with a line's time before it, in the order in which the
// lines came; sorted, they are in the order of what happened.
func (p *Instance) TimedLog(t testing.TB, app, source string) (lines []string) {
	t.Helper()
	asked := map[string]any{"lines": 1500}
	if source != "" {
		asked["source"] = source
	}
	var session struct {
		URL string `json:"logplex_url"`
	}
	p.Call(t, "POST", "/apps/"+app+"/log-sessions", asked, &session)
	res, err := Loopback.Get(session.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		if data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: "); ok {
			lines = append(lines, data)
		}
	}
	return lines
}

// LogContains looks for text in the app's log.
func (p *Instance) LogContains(t testing.TB, app, text string) error {
	t.Helper()
	log := strings.Join(p.Log(t, app), "\n")
	if !strings.Contains(log, text) {
		return fmt.Errorf("the log of %s does not say %q:\n%s", app, text, log)
	}
	return nil
}

// Heroku runs the unmodified CLI in dir, with the environment that `manifold
// env` prints, and returns what it printed.
func (p *Instance) Heroku(t testing.TB, dir string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := p.HerokuCommand(ctx, t, dir, args...).CombinedOutput()
	return string(out), err
}

// HerokuVersions are CLIs that test/heroku-cli puts into the cache, newest
// first: what MANIFOLD_TEST_CLIS names, else one.
var HerokuVersions = strings.Fields(cmp.Or(os.Getenv("MANIFOLD_TEST_CLIS"), "11.10.0"))

// HerokuCommand is what Heroku runs, for a test that gives it a terminal or
// input.
func (p *Instance) HerokuCommand(ctx context.Context, t testing.TB, dir string, args ...string) *exec.Cmd {
	t.Helper()
	return p.HerokuCommandOf(ctx, t, HerokuVersions[0], dir, args...)
}

// HerokuCommandOf is the same with a CLI of HerokuVersions.
func (p *Instance) HerokuCommandOf(ctx context.Context, t testing.TB, version, dir string, args ...string) *exec.Cmd {
	t.Helper()
	test, _, _ := strings.Cut(t.Name(), "/")
	home := filepath.Join(p.Dir, "homes", test) // the CLI writes to it, and to git's settings
	if err := os.MkdirAll(home, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(Cache, "heroku-"+version, "heroku"), args...)
	cmd.Dir = dir
	cmd.Env = append(environWithout("SSL_CERT_FILE", "SSL_CERT_DIR"), "HOME="+home, "GIT_CONFIG_GLOBAL="+filepath.Join(home, "gitconfig"), "FORCE_COLOR=0",
		"PATH="+filepath.Dir(cmd.Path)+":"+os.Getenv("PATH")) // git asks the CLI for the password
	watched := p.watched(t)
	for name, value := range p.ClientEnv(t) {
		if name == "HEROKU_HOST" {
			value = "http://" + watched
		}
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// environWithout is the test's environment without some variables: the CLI
// warns of these two, and reaches nothing that needs them.
func environWithout(names ...string) (env []string) {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); !slices.Contains(names, name) {
			env = append(env, entry)
		}
	}
	return env
}

// ClientEnv is what `manifold env` prints, read as a shell would. It is asked
// once; the caller must not change it.
func (p *Instance) ClientEnv(t testing.TB) map[string]string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.clientEnv != nil {
		return p.clientEnv
	}
	cmd := exec.Command(filepath.Join(Programs, "manifold"), "env", "--json")
	cmd.Env = p.Environ()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("manifold env: %v", err)
	}
	if err := json.Unmarshal(out, &p.clientEnv); err != nil {
		t.Fatal(err)
	}
	return p.clientEnv
}
