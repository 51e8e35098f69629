package onemachine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"manifold/cmd/manifold/clientenv"
	"manifold/test/apps"
)

// sampleApp is what the first run deploys.
const sampleApp = "hello"

// answerDeadline is how long a deployed app may take until it answers through
// the router: image fetch, boot (60 s at most) and routing.
const answerDeadline = 90 * time.Second

// sampleRecord remembers that the first run deployed the sample, by the app's
// id: a renamed sample is still found, a deleted one is not made again.
type sampleRecord struct {
	App string `json:"app"`
}

type app struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	SlugSize *int64 `json:"slug_size"` // nil: nothing was pushed yet
}

// answer is what the sample app said through the router.
type answer struct {
	app  app
	text string
}

// sample deploys the sample app the first time and waits until it answers. It
// returns nil where its owner deleted it or keeps it from answering.
func (m *machine) sample(ctx context.Context) (*answer, error) {
	path := filepath.Join(m.Settings.Home, "sample.json")
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var r sampleRecord
	if json.Unmarshal(text, &r) == nil && r.App != "" { // else it is not there, or a power cut left it empty
		return m.knownSample(ctx, r)
	}
	var a app
	switch err := m.api.call(ctx, http.MethodGet, "/apps/"+sampleApp, nil, &a); {
	case errors.Is(err, errNotFound):
		m.say("Creating the sample app %s", sampleApp)
		if err := m.api.call(ctx, http.MethodPost, "/apps", map[string]string{"name": sampleApp}, &a); err != nil {
			return nil, fmt.Errorf("create the sample app: %w", err)
		}
	case err != nil:
		return nil, fmt.Errorf("look for the sample app: %w", err)
	}
	var body string
	pushing := a.SlugSize == nil // else a run ended before the answer came: git would refuse another first commit
	if pushing {
		if err := m.push(ctx, a); err != nil {
			return nil, fmt.Errorf("push the sample app: %w", err)
		}
		if body, err = m.firstAnswer(ctx, a); err != nil {
			return nil, err
		}
	}
	record, err := json.Marshal(sampleRecord{App: a.ID})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, record, 0o644); err != nil || pushing {
		return &answer{a, body}, err
	}
	return m.knownSample(ctx, sampleRecord{App: a.ID})
}

// knownSample waits for the sample of an earlier run. It is the owner's app by
// now: whatever they made of it, the platform is up.
func (m *machine) knownSample(ctx context.Context, r sampleRecord) (*answer, error) {
	var a app
	if err := m.api.call(ctx, http.MethodGet, "/apps/"+r.App, nil, &a); errors.Is(err, errNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("look for the sample app: %w", err)
	}
	var formation []struct {
		Type     string `json:"type"`
		Quantity int    `json:"quantity"`
	}
	if err := m.api.call(ctx, http.MethodGet, "/apps/"+a.ID+"/formation", nil, &formation); err != nil {
		return nil, fmt.Errorf("look for the sample app: %w", err)
	}
	for _, f := range formation {
		if f.Type == "web" && f.Quantity > 0 {
			body, err := m.firstAnswer(ctx, a)
			if err != nil && ctx.Err() == nil {
				m.say("%v. The platform is up; see: heroku logs -a %s", err, a.Name)
				return nil, nil
			}
			return &answer{a, body}, err
		}
	}
	return nil, nil
}

// push really pushes: a fresh repository, git, smart HTTP, the API token.
func (m *machine) push(ctx context.Context, a app) error {
	token, err := clientenv.Token(m.Settings)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "manifold-sample-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	sub, err := fs.Sub(apps.Hello, "hello")
	if err != nil {
		return err
	}
	if err := os.CopyFS(dir, sub); err != nil {
		return err
	}
	remote := "http://" + m.Settings.APIAddr + "/" + a.Name + ".git"
	m.say("git push %s main", remote)
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"},
		{"add", "-A"},
		{"commit", "-q", "-m", "The sample app"},
		{"push", "-q", remote, "main"},
	} {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir, cmd.Env = dir, gitEnv(token)
		cmd.Stdout, cmd.Stderr = m.Out, m.Out
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches only us
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
		cmd.WaitDelay = 5 * time.Second
		if err := cmd.Run(); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("git %s: %w", args[0], err)
		}
	}
	return nil
}

// gitEnv keeps the machine's git settings and proxies out of our push, and
// hands git the token without showing it in an argument.
func gitEnv(token string) []string {
	const helper = `!f() { test "$1" = get && echo username=manifold && echo "password=$MANIFOLD_PUSH_TOKEN"; }; f`
	return append(os.Environ(),
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Manifold", "GIT_AUTHOR_EMAIL=sample@localhost",
		"GIT_COMMITTER_NAME=Manifold", "GIT_COMMITTER_EMAIL=sample@localhost",
		"GIT_CONFIG_COUNT=2",
		"GIT_CONFIG_KEY_0=credential.helper", "GIT_CONFIG_VALUE_0="+helper,
		"GIT_CONFIG_KEY_1=http.proxy", "GIT_CONFIG_VALUE_1=",
		"MANIFOLD_PUSH_TOKEN="+token)
}

// firstAnswer asks the router until the app answers.
func (m *machine) firstAnswer(ctx context.Context, a app) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerDeadline, fmt.Errorf("the app %s did not answer within %s", a.Name, answerDeadline))
	defer cancel()
	for {
		status, body, err := m.api.visit(ctx, m.appHost(a))
		if err == nil && status == http.StatusOK {
			return body, nil
		}
		select {
		case <-ctx.Done():
			if status != 0 {
				return "", fmt.Errorf("%w: the router says %d", context.Cause(ctx), status)
			}
			return "", context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// appHost is the Host header under which the router knows an app.
func (m *machine) appHost(a app) string {
	_, port, _ := net.SplitHostPort(m.Settings.RouterAddr) // preflight parsed it
	return net.JoinHostPort(a.Name+"."+cmp.Or(os.Getenv("MANIFOLD_APP_DOMAIN"), "localhost"), port)
}

// welcome says where everything is and what to try.
func (m *machine) welcome(ctx context.Context, sample *answer, took time.Duration) error {
	vars, err := clientenv.Make(m.Settings)
	if err != nil {
		return err
	}
	var all []app
	if err := m.api.call(ctx, http.MethodGet, "/apps", nil, &all); err != nil {
		return fmt.Errorf("list the apps: %w", err)
	}
	out := m.Out
	if sample != nil {
		fmt.Fprintf(out, "\n%s says, through the router:\n\n", sample.app.Name)
		fmt.Fprintf(indent(out), "%s\n", sample.text)
	}
	fmt.Fprintf(out, "\nThe client environment (manifold env), for another terminal:\n\n")
	if err := clientenv.Print(indent(out), vars); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nApps:\n")
	for _, a := range all {
		fmt.Fprintf(out, "       http://%s/\n", m.appHost(a))
	}
	name := "APP"
	if sample != nil {
		name = sample.app.Name
	}
	program, _ := os.Executable()
	fmt.Fprintf(out, `
Try next, in another terminal:

       eval "$(%s env)"
       curl http://%s/
       heroku ps -a %s                 (npm install -g heroku)
       heroku ps:scale web=2 -a %s
       heroku logs -a %s
       heroku create && git push heroku main    (in a repository of your own)

Ready in %s. Ctrl-C stops everything; apps, releases and config stay in %s.
`, program, m.appHost(app{Name: name}), name, name, name, round(took), m.Settings.Home)
	return nil
}
