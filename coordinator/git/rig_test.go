package git

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/compiler"
	"manifold/coordinator/store"
)

// The test binary is also the hook's program, as manifold-coordinator is.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "pre-receive" {
		if Hook(context.Background(), os.Stdin, os.Stderr) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const (
	appID    = "0b2f4c26-7a4e-4cf6-9b6a-0e8f3d1c5a01"
	otherID  = "0b2f4c26-7a4e-4cf6-9b6a-0e8f3d1c5a02"
	token    = "token-of-alice"
	otherTok = "token-of-bob"
	readTok  = "alice-may-read"
)

type fakeStore struct{}

func (fakeStore) App(_ context.Context, name string) (manifold.App, error) {
	switch name {
	case "demo", appID:
		return manifold.App{ID: appID, Name: "demo", Owner: "alice"}, nil
	case "bobs", otherID:
		return manifold.App{ID: otherID, Name: "bobs", Owner: "bob"}, nil
	}
	return manifold.App{}, fmt.Errorf("app %s: %w", name, store.ErrNotFound)
}

func (fakeStore) Authenticate(_ context.Context, t string) (manifold.User, store.Authorization, error) {
	all := store.Authorization{Scope: []string{store.ScopeGlobal}}
	switch t {
	case token:
		return manifold.User{ID: "alice"}, all, nil
	case readTok:
		return manifold.User{ID: "alice"}, store.Authorization{Scope: []string{store.ScopeRead}}, nil
	case otherTok:
		return manifold.User{ID: "bob"}, all, nil
	}
	return manifold.User{}, store.Authorization{}, fmt.Errorf("token: %w", store.ErrUnauthorized)
}

// fakeBuilder plays the compiler: it reads the source and does as told.
type fakeBuilder struct {
	mu     sync.Mutex
	builds []string // commits
	files  string   // tar -t of the last source
	do     func(ctx context.Context, out io.Writer) error
}

func (b *fakeBuilder) Build(ctx context.Context, r compiler.Request, out io.Writer) (manifold.Release, error) {
	var source bytes.Buffer
	if err := r.Source(&source); err != nil {
		return manifold.Release{}, err
	}
	cmd := exec.Command("tar", "-tvf", "-")
	cmd.Stdin = &source
	files, err := cmd.CombinedOutput()
	b.mu.Lock()
	b.builds, b.files = append(b.builds, r.Commit), string(files)
	do := b.do
	b.mu.Unlock()
	if err != nil {
		return manifold.Release{}, err
	}
	fmt.Fprintln(out, "-----> Building", r.App.Name)
	if do != nil {
		return manifold.Release{}, do(ctx, out)
	}
	return manifold.Release{Version: 3}, nil
}

func (b *fakeBuilder) set(do func(ctx context.Context, out io.Writer) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.do = do
}

func (b *fakeBuilder) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.builds)
}

// rig is a served git server and a client's work tree.
type rig struct {
	t       *testing.T
	server  *Server
	builder *fakeBuilder
	http    *httptest.Server
	work    string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	// A unix socket's path may be 107 bytes long at most.
	run, err := os.MkdirTemp("", "mgit")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	r := &rig{t: t, builder: &fakeBuilder{}, work: t.TempDir()}
	r.server, err = New(Config{
		Dir: t.TempDir(), Socket: filepath.Join(run, "git.sock"), Store: fakeStore{}, Builder: r.builder,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	r.http = httptest.NewServer(r.server)
	t.Cleanup(r.http.Close)
	waitFor(t, "the hook's socket", func() bool {
		st, err := os.Stat(r.server.cfg.Socket)
		return err == nil && st.Mode().Perm() == 0o600 // it is open to others when it is made
	})
	r.must("init", "-q", "-b", "main")
	r.commit("hello.txt", "hello\n")
	return r
}

// patience is with what must happen.
const patience = time.Minute

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

func (r *rig) url(token, app string) string {
	return strings.Replace(r.http.URL, "://", "://x:"+token+"@", 1) + "/" + app + ".git"
}

func (r *rig) cmd(args ...string) *exec.Cmd {
	cmd := exec.Command("git", args...)
	cmd.Dir = r.work
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@localhost", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@localhost")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

func (r *rig) run(args ...string) (string, error) {
	out, err := r.cmd(args...).CombinedOutput()
	return string(out), err
}

func (r *rig) must(args ...string) string {
	r.t.Helper()
	out, err := r.run(args...)
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return out
}

func (r *rig) commit(name, content string) {
	r.t.Helper()
	path := filepath.Join(r.work, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		r.t.Fatal(err)
	}
	r.must("add", "-A", "-f")
	r.must("commit", "-q", "-m", "change "+name)
}

func (r *rig) push(refs ...string) (string, error) {
	return r.run(append([]string{"push", r.url(token, "demo")}, refs...)...)
}

func wants(t *testing.T, out string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(out, p) {
			t.Errorf("missing %q in:\n%s", p, out)
		}
	}
}

// quarantines lists what pushes left of objects that were never accepted.
func (r *rig) quarantines() []string {
	left, err := filepath.Glob(filepath.Join(r.server.repo(appID), "objects", "*incoming*"))
	if err != nil {
		r.t.Fatal(err)
	}
	return left
}
