package git

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/cgi"
	"net/url"
	"strings"

	"manifold"
)

// setting is one entry of git's configuration. All of it is given by the
// environment (GIT_CONFIG_COUNT, git-config(1)): repositories hold none that
// matters, so none can be out of date.
type setting struct{ key, value string }

func (s *Server) settings() []setting {
	return []setting{
		{"http.receivepack", "true"},
		{"core.hooksPath", s.hooks()},
		{"core.bigFileThreshold", "64m"}, // larger blobs are streamed, not held in memory
		{"receive.maxInputSize", fmt.Sprint(s.cfg.MaxPack)},
		{"receive.unpackLimit", "1"}, // keep packs packed: what expands does so in a build only
		{"receive.fsckObjects", "true"},
		// Old but harmless faults that real histories hold.
		{"receive.fsck.zeroPaddedFilemode", "ignore"},
		{"receive.fsck.badTimezone", "ignore"},
		{"receive.fsck.missingSpaceBeforeDate", "ignore"},
		// The app runs on without its branch; a wrong delete is mended by the
		// next push. Heroku lets users do both.
		{"receive.denyDeletes", "false"},
		{"receive.denyDeleteCurrent", "ignore"},
		{"receive.denyNonFastForwards", "false"},
		// Nothing may outlive the request that started it.
		{"gc.autoDetach", "false"},
		{"maintenance.autoDetach", "false"},
		{"uploadpack.allowFilter", "true"},
		{"transfer.advertiseSID", "false"},
	}
}

// environment is all that git knows of us: nothing of the coordinator's own
// environment, of the user's token, or of files in anyone's home.
func (s *Server) environment(more ...string) []string {
	env := []string{
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1", "HOME=/nonexistent",
		"LC_ALL=C.UTF-8", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0",
		// Of one piece of memory. A pack of some kilobytes may hold an object of
		// any size, which git takes at its word; none that an app needs is so large.
		"GIT_ALLOC_LIMIT=1g",
	}
	settings := s.settings()
	env = append(env, fmt.Sprint("GIT_CONFIG_COUNT=", len(settings)))
	for i, c := range settings {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, c.key), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, c.value))
	}
	return append(env, more...)
}

// passedHeaders are the request's headers that git http-backend may see.
var passedHeaders = []string{"Content-Type", "Content-Encoding", "Git-Protocol"}

// serve runs git http-backend for one request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, t target, who pusher, app manifold.App) {
	ctx, cancel := context.WithCancel(r.Context())
	env := s.environment("GIT_PROJECT_ROOT="+s.cfg.Dir, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER="+who.ID)
	if t.service == receivePack && !t.refs {
		p := s.open(ctx, app, who)
		// The client is gone or served: whatever its hook still does is
		// called off, and waited for.
		defer s.close(p)
		env = append(env, "MANIFOLD_HOOK="+s.cfg.Hook, "MANIFOLD_PUSH_SOCKET="+s.cfg.Socket, "MANIFOLD_PUSH="+p.secret)
	}
	defer cancel()

	clean := &http.Request{
		Method: r.Method, Proto: r.Proto, ProtoMajor: 1, ProtoMinor: 1, Host: "localhost", RemoteAddr: r.RemoteAddr,
		URL:    &url.URL{Path: "/" + app.ID + ".git/" + t.service},
		Header: http.Header{},
		Body:   http.MaxBytesReader(w, r.Body, s.cfg.MaxPack+1<<20), ContentLength: r.ContentLength,
	}
	if t.refs {
		clean.URL.Path = "/" + app.ID + ".git/info/refs"
		clean.URL.RawQuery = "service=" + t.service
	}
	for _, name := range passedHeaders {
		if v := r.Header.Get(name); v != "" {
			clean.Header.Set(name, v)
		}
	}
	stderr := &clipped{}
	log := s.cfg.Log.With("app", app.Name, "service", t.service)
	backend := &cgi.Handler{
		Path: s.git, Args: []string{"http-backend"}, Dir: s.cfg.Dir, Env: env,
		Logger: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		// Not a file, so cgi waits until the last process of the request has
		// let go of it.
		Stderr: stderr,
	}
	backend.ServeHTTP(&flushing{w: w, control: http.NewResponseController(w), lost: cancel}, clean.WithContext(ctx))
	if text := strings.TrimSpace(stderr.String()); text != "" {
		log.Debug("git said", "stderr", text)
	}
}

// flushing sends every piece at once, since a push is read while it happens,
// and tells when nobody is there to read any more.
type flushing struct {
	w       http.ResponseWriter
	control *http.ResponseController
	lost    context.CancelFunc
}

func (f *flushing) Header() http.Header    { return f.w.Header() }
func (f *flushing) WriteHeader(status int) { f.w.WriteHeader(status) }

func (f *flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.control.Flush()
	}
	if err != nil {
		f.lost()
	}
	return n, err
}

// clipped keeps the first 4 KB written to it. The buffer is no part of what it
// offers: with its ReadFrom, io.Copy would go around Write and its bound.
type clipped struct{ kept bytes.Buffer }

func (c *clipped) String() string { return c.kept.String() }

func (c *clipped) Write(p []byte) (int, error) {
	if room := 4096 - c.kept.Len(); room > 0 {
		c.kept.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
