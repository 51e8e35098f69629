package git

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"

	"manifold"
	"manifold/coordinator/compiler"
)

// Store is what this room needs of the coordinator's memory. *store.Store is
// one; its errors are store.ErrNotFound and store.ErrUnauthorized.
type Store interface {
	App(ctx context.Context, nameOrID string) (manifold.App, error)
	Authenticate(ctx context.Context, token string) (manifold.User, error)
}

// Builder builds and deploys what was pushed. *compiler.Compiler is one.
type Builder interface {
	Build(ctx context.Context, r compiler.Request, out io.Writer) (manifold.Release, error)
}

// Config is what a Server is made of.
type Config struct {
	Dir     string // the repositories; ours alone
	Socket  string // path of the hook's unix socket
	Hook    string // the program whose argument "pre-receive" runs Hook; "" is this one
	Store   Store
	Builder Builder
	MaxPack int64 // bytes of one push; default 2 GiB
	Log     *slog.Logger
}

// Server serves git over smart HTTP.
type Server struct{ cfg Config }

// New makes a server.
func New(cfg Config) (*Server, error) { return &Server{cfg: cfg}, nil }

// Owns says whether a request is for git: its path is /<name>.git/….
func Owns(r *http.Request) bool { return false }

// ServeHTTP serves one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {}

// Run serves the hook's socket until ctx ends.
func (s *Server) Run(ctx context.Context) error { return nil }

// Collect removes the repositories of apps that exist does not know.
func (s *Server) Collect(exists func(app string) bool) error { return nil }

// Hook is the pre-receive hook: it reads git's list of updates from stdin,
// has the coordinator judge them, and shows the progress on stderr. An error
// refuses the push; its text was already shown.
func Hook(ctx context.Context, stdin io.Reader, stderr io.Writer) error {
	return errors.New("git: not yet written")
}
