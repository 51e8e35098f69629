// Package door is the agent's door for the people of a host: HTTP and JSON on
// $MANIFOLD_RUN/agent.sock. What is asked here is answered from this host
// alone, so all of it works while the coordinator is away.
//
// Whoever may open the socket (root, group manifold) may do everything here.
// Each caller is known by the kernel's word (SO_PEERCRED) and written to an
// audit log. The package must never import the agent: what it needs of it is
// the interface Agent. It must never show a config var's value or another
// secret, and never wait for the coordinator.
//
//	GET  /healthz            200 while the agent's loops make progress
//	GET  /v1/ps              every dyno on this host
//	GET  /v1/dynos/{dyno}    those that go by that name, and everything about them
//	GET  /v1/dynos/{dyno}/why   what ended it last
//	GET  /v1/dynos/{dyno}/logs  its last lines; ?last=N, ?follow=true
//	GET  /metrics            for Prometheus; /debug/pprof/ for go tool pprof
//	GET  /v1/events          changes of state; ?last=N or ?after=N, ?follow=true
//	POST /v1/teardown        stop every dyno, remove all that is ours, answer, exit;
//	                         with ?now=true kill them, also while one is under way
//	POST /v1/drain           have this host emptied; /v1/undrain takes new dynos again
//	POST /v1/dynos/{dyno}/restart  another in its place, which is up before it goes
//	POST /v1/dynos/{dyno}/stop     now, with ?grace=10s to SIGKILL
//	POST /v1/dynos/{dyno}/freeze   until /thaw, at most for ?limit=15m
//	POST /v1/dynos/{dyno}/keep     what is left of it stays when it ends; ?off=true
//	POST /v1/dynos/{dyno}/exec     a process in it: an upgrade to manifold-attach/1
//	GET  /v1/autopsies             what is kept; DELETE /v1/autopsies/{run}
//
// A {dyno} is a name ("web.1"), an app and a name ("hello:web.1"), an
// assignment or a run. Errors are answered as manifold.ErrorBody.
//
//	door.go    the server       listen.go  the socket
//	audit.go   who did what     answer.go  replies and errors
//	sees.go    what is shown    acts.go    what is done (dynoacts.go, exec.go)
//	why.go, logs.go, events.go, metrics.go
package door

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Agent is the little the door needs of the agent. Its methods may be called
// by many at once.
type Agent interface {
	Sees
	Acts
}

// Config is what a door is made of.
type Config struct {
	Agent  Agent
	Dir    string // the agent's directory: the audit log is in it
	Events *Events
	Log    *slog.Logger
}

// Door answers on the socket.
type Door struct {
	agent     Agent
	log       *slog.Logger
	audit     *audit
	eventLog  *Events
	followers chan struct{}   // one for each
	sessions  sync.WaitGroup  // connections that became a process's streams
	torn      chan struct{}   // holds one: a teardown was done and answered
	ctx       context.Context // of Serve: what must outlive its client's request runs on it
}

// New opens the audit log. The caller closes the door.
func New(c Config) (*Door, error) {
	audit, err := openAudit(c.Dir, c.Log)
	if err != nil {
		return nil, err
	}
	return &Door{
		agent: c.Agent, log: c.Log, audit: audit, eventLog: c.Events,
		followers: make(chan struct{}, maxFollowers), torn: make(chan struct{}, 1),
	}, nil
}

// Close closes the audit log, after Serve returned.
func (d *Door) Close() error { return d.audit.close() }

const maxBody = 64 << 10 // bytes of a request

// Serve answers on l until ctx ends or a teardown was done and answered; then
// it is true. It closes l.
func (d *Door) Serve(ctx context.Context, l net.Listener) (tornDown bool) {
	d.ctx = ctx
	server := &http.Server{
		Handler:           http.MaxBytesHandler(d.audited(d.routes()), maxBody),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnContext:       withCaller,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // who follows something is let go with it
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(limit(l)); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("the agent's socket failed", "error", err)
		}
	}()
	select {
	case <-ctx.Done():
	case <-d.torn:
		tornDown = true
	}
	grace, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if server.Shutdown(grace) != nil {
		server.Close()
	}
	<-ended
	d.sessions.Wait() // their lines end with the agent's context
	return tornDown
}

// routes is all there is. What is not there is answered in our form too.
func (d *Door) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h handler) { mux.Handle(pattern, d.answering(h)) }
	d.sees(handle)
	d.measures(handle)
	d.acts(handle)
	handle("/", func(_ http.ResponseWriter, r *http.Request) error {
		return refuse(http.StatusNotFound, "not_found", "there is no %s %.100q here; docs/host.md lists what there is", r.Method, r.URL.Path)
	})
	return mux
}
