package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/compiler"
	"manifold/coordinator/store"
)

// Store is what this room needs of the coordinator's memory. *store.Store is
// one; its errors are store.ErrNotFound and store.ErrUnauthorized.
type Store interface {
	App(ctx context.Context, nameOrID string) (manifold.App, error)
	Authenticate(ctx context.Context, token string) (manifold.User, store.Authorization, error)
}

// Builder builds and deploys what was pushed. *compiler.Compiler is one.
type Builder interface {
	Build(ctx context.Context, r compiler.Request, out io.Writer) (manifold.Release, error)
}

// Config is what a Server is made of.
type Config struct {
	Dir     string // the repositories; ours alone
	Socket  string // path of the hook's unix socket; its directory must exist
	Hook    string // the program whose argument "pre-receive" runs Hook; "" is this one
	Store   Store
	Builder Builder
	MaxPack int64 // bytes of one push; default 2 GiB
	Log     *slog.Logger
}

// A client may keep its place for as long as it sends, reads or is built for: so
// there is a bound for all, and one for each user that leaves others a place.
const (
	maxServed = 64
	maxOfUser = maxServed / 2
)

// Server serves git over smart HTTP. It is safe for use by several
// goroutines.
type Server struct {
	cfg Config
	git string // path of the binary

	mu     sync.Mutex
	served int              // requests that have a git process
	of     map[string]int   // User.ID → those of them that are that user's
	pushes map[string]*push // by the secret their hook knows
	busy   map[string]bool  // App.ID: a push is being judged
	repos  sync.Mutex       // held while a repository is made or removed
}

// New makes a server and writes its hook. It needs a git binary in PATH.
func New(cfg Config) (*Server, error) {
	cfg.MaxPack = cmp.Or(cfg.MaxPack, 2<<30)
	binary, err := exec.LookPath("git")
	if err != nil {
		return nil, fmt.Errorf("find git, which serves the pushes (install the package git): %w", err)
	}
	if cfg.Hook == "" {
		if cfg.Hook, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("find the hook's program: %w", err)
		}
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("find the repositories: %w", err)
	}
	s := &Server{cfg: cfg, git: binary, of: map[string]int{}, pushes: map[string]*push{}, busy: map[string]bool{}}
	if err := os.MkdirAll(s.hooks(), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of repositories: %w", err)
	}
	// A script, since git gives a hook no argument; what it runs is named in
	// the environment, so no path need be quoted here.
	script := "#!/bin/sh\nexec \"$MANIFOLD_HOOK\" pre-receive\n"
	if err := os.WriteFile(filepath.Join(s.hooks(), "pre-receive"), []byte(script), 0o700); err != nil {
		return nil, fmt.Errorf("write the git hook: %w", err)
	}
	if err := s.sweep(); err != nil {
		return nil, fmt.Errorf("remove what killed pushes left: %w", err)
	}
	return s, nil
}

// Owns says whether a request is for this room: its path begins with a name
// that ends in ".git".
func Owns(r *http.Request) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return strings.HasSuffix(first, ".git")
}

// The two services of smart HTTP (gitprotocol-http(5)).
const (
	uploadPack  = "git-upload-pack"
	receivePack = "git-receive-pack"
)

// scopes are what a token must be good for.
var scopes = map[string]string{uploadPack: store.ScopeRead, receivePack: store.ScopeWrite}

// target is what a request is for; see parse.
type target struct {
	app     string
	service string
	refs    bool // GET info/refs, else POST to the service
}

// parse accepts the five requests of smart HTTP and nothing else:
//
//	GET  /<app>.git/info/refs?service=git-upload-pack | git-receive-pack
//	POST /<app>.git/git-upload-pack | git-receive-pack
//
// It looks at the path as it came, so nothing escaped, doubled or dotted gets
// through.
func parse(r *http.Request) (t target, status int) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	name, ok := strings.CutSuffix(first, ".git")
	if !ok || manifold.CheckAppName(name) != nil && uuid.Validate(name) != nil {
		return t, http.StatusNotFound
	}
	t.app = name
	switch rest {
	case "info/refs":
		t.refs, t.service = true, r.URL.Query().Get("service")
	case uploadPack, receivePack:
		t.service = rest
	default:
		return t, http.StatusNotFound
	}
	switch {
	case t.service != uploadPack && t.service != receivePack:
		return t, http.StatusForbidden // the dumb protocol, or another service of git's
	case t.refs && r.Method != http.MethodGet, !t.refs && r.Method != http.MethodPost:
		return t, http.StatusMethodNotAllowed
	}
	return t, 0
}

// ServeHTTP serves one request: who asks, for what app, then git. A push's
// request lasts as long as its build, so the http.Server it is served by must
// have no ReadTimeout and no WriteTimeout.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t, status := parse(r)
	if status != 0 {
		refuse(w, status, "This is no address of a repository. It looks like https://HOST/APP.git")
		return
	}
	user, token, err := s.authenticate(r)
	switch {
	case errors.Is(err, store.ErrUnauthorized):
		w.Header().Set("WWW-Authenticate", `Basic realm="Manifold git", charset="UTF-8"`)
		refuse(w, http.StatusUnauthorized, "Log in with any user name and an API token as the password. This token is wrong, expired or missing.")
		return
	case err != nil:
		s.fail(w, r, "authenticate", err)
		return
	case !token.May(scopes[t.service]):
		refuse(w, http.StatusForbidden, "This API token's scope is too narrow: it needs "+scopes[t.service]+".")
		return
	}
	app, err := s.cfg.Store.App(r.Context(), t.app)
	if errors.Is(err, store.ErrNotFound) || err == nil && !app.Lets(user.ID) {
		// The same answer to both, so that names of others' apps cannot be
		// learnt here.
		refuse(w, http.StatusNotFound, "You have no app named "+t.app+".")
		return
	}
	if err != nil {
		s.fail(w, r, "find the app", err)
		return
	}
	if err := s.prepare(r.Context(), app.ID); err != nil {
		s.fail(w, r, "make the repository", err)
		return
	}
	if !s.admit(user.ID) {
		refuse(w, http.StatusServiceUnavailable, "Too many pushes and fetches are running. Try again in a minute.")
		return
	}
	defer s.leave(user.ID)
	from, _, _ := net.SplitHostPort(r.RemoteAddr)
	s.serve(w, r, t, pusher{user, from, token.ID}, app)
}

func (s *Server) admit(user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.served == maxServed || s.of[user] == maxOfUser {
		return false
	}
	s.served++
	s.of[user]++
	return true
}

func (s *Server) leave(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served--
	if s.of[user]--; s.of[user] == 0 {
		delete(s.of, user)
	}
}

// authenticate takes the token from the password, as git sends it.
func (s *Server) authenticate(r *http.Request) (manifold.User, store.Authorization, error) {
	_, token, ok := r.BasicAuth()
	if !ok || token == "" || len(token) > 1024 {
		return manifold.User{}, store.Authorization{}, store.ErrUnauthorized
	}
	return s.cfg.Store.Authenticate(r.Context(), token)
}

// refuse answers in plain text, which git shows behind "remote: ".
func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, doing string, err error) {
	if r.Context().Err() == nil {
		s.cfg.Log.Error("git request failed", "doing", doing, "path", r.URL.Path, "error", err)
	}
	refuse(w, http.StatusInternalServerError, "The coordinator could not do this. Try again; if it stays, ask your operator to look at its log.")
}
