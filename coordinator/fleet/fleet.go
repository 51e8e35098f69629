package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"manifold"
	"manifold/coordinator/attach"
	"manifold/coordinator/logs"
	"manifold/coordinator/pki"
	"manifold/slugfs"
)

// Bounds of the door. None of them is a setting: they follow from wire.go.
const (
	heartbeat    = 5 * time.Second  // an empty line on a quiet stream
	liveFor      = 15 * time.Second // after the last word of a peer without a stream
	writeTimeout = 30 * time.Second // of one line on a stream
	readTimeout  = 60 * time.Second // without a byte of a request's body
	maxHeader    = 64 << 10
	maxJoinBody  = 64 << 10
)

// Registry is what the door needs of the store.
type Registry interface {
	RedeemJoinToken(ctx context.Context, secret string) error
	AddHost(ctx context.Context, host manifold.Host) error
}

// Config says what stands behind the door.
type Config struct {
	Cluster string
	Store   Registry
	CA      *pki.CA
	Names   []string // names and addresses peers dial, for the server's certificate
	Logs    *logs.Hub
	Images  *slugfs.Store
	Attach  *attach.Room
	Dir     string // the last observation of each host, so that a restart forgets none
	JobsDir string // outputs of jobs; emptied by Open
	Log     *slog.Logger
}

// Server is the fleet's door. All methods may be called by any goroutine.
type Server struct {
	cfg      Config
	observed *os.Root
	jobsRoot *os.Root
	changed  chan struct{}
	done     chan struct{} // closed when streams shall end
	stop     sync.Once
	disk     sync.Mutex     // one writer below observed
	sessions sync.WaitGroup // handlers of attach, whose connections http.Server lets go of

	maxValue int // bytes of what is told in one message, without its head

	mu       sync.Mutex
	revision int64 // the last one given; shared by desired and routes
	hosts    map[string]*host
	routers  map[string]*router
	routes   *cell
	jobs     map[string]*Job
}

// Open reads the last observations and empties the jobs' directory. Nothing
// is told to anyone before SetDesired and SetRoutes.
func Open(cfg Config) (*Server, error) {
	s := &Server{
		cfg: cfg, changed: make(chan struct{}, 1), done: make(chan struct{}),
		// Peers compare revisions across our restarts, so they must go on growing.
		revision: time.Now().UnixNano(),
		hosts:    map[string]*host{}, routers: map[string]*router{}, jobs: map[string]*Job{},
		routes: newCell(), maxValue: manifold.MaxWireValue - 1024,
	}
	if err := os.RemoveAll(cfg.JobsDir); err != nil {
		return nil, fmt.Errorf("empty the jobs' directory: %w", err)
	}
	var err error
	if s.jobsRoot, err = openRoot(cfg.JobsDir); err != nil {
		return nil, fmt.Errorf("open the jobs' directory: %w", err)
	}
	if s.observed, err = openRoot(cfg.Dir); err != nil {
		return nil, errors.Join(fmt.Errorf("open the fleet's directory: %w", err), s.jobsRoot.Close())
	}
	s.recall()
	return s, nil
}

func openRoot(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return os.OpenRoot(dir)
}

// Close releases the directories. Serve must have returned.
func (s *Server) Close() error { return errors.Join(s.observed.Close(), s.jobsRoot.Close()) }

// Serve answers peers on ln until ctx ends, then ends the streams and gives
// other requests five seconds.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	tlsConfig, err := s.tlsConfig()
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	srv := &http.Server{
		Handler:           s.handler(),
		TLSConfig:         tlsConfig,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		HTTP2:             &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }()
	select {
	case err := <-served:
		return fmt.Errorf("serve the fleet: %w", err)
	case <-ctx.Done():
	}
	s.stop.Do(func() { close(s.done) })
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = srv.Shutdown(bounded)
	if err != nil {
		err = srv.Close() // what is left does not end by itself
	}
	<-served
	s.sessions.Wait()
	return err
}

// Changed gives one token after any change in what hosts and routers say.
func (s *Server) Changed() <-chan struct{} { return s.changed }

func (s *Server) notice() {
	select {
	case s.changed <- struct{}{}:
	default: // one token stands for any number of changes
	}
}

// nextRevision grows with every call. The caller holds mu.
func (s *Server) nextRevision() int64 {
	s.revision++
	return s.revision
}

// heard keeps our revisions above one a peer got before this coordinator
// started, should the clock have been set back since. The bound keeps a
// hostile peer from exhausting the numbers. The caller holds mu.
func (s *Server) heard(revision int64) {
	if revision > s.revision && revision < time.Now().AddDate(10, 0, 0).UnixNano() {
		s.revision = revision
	}
}
