package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/net/netutil"

	"manifold"
	"manifold/supervisor"
)

// The agent's door for people on this host: HTTP and JSON on agent.sock. It
// works while the coordinator is away.
//
//	GET  /healthz          200 while the loops make progress
//	GET  /v1/ps            every dyno on this host
//	GET  /v1/dynos/{name}  those of that name ("web.1"), assignment or run
//	POST /v1/teardown      stop every dyno, remove all that is ours, answer, exit;
//	                       with ?now=true kill them, also while one is under way
const (
	socketClients = 64
	socketBody    = 64 << 10
)

// DynoStatus is what the socket says of a dyno.
type DynoStatus struct {
	manifold.Dyno
	AppName string           `json:"app_name"`
	Kind    manifold.Kind    `json:"kind"`
	Release int              `json:"release,omitempty"`
	Size    string           `json:"size"`
	Step    supervisor.State `json:"step"` // finer than State
}

func (a *agent) socketPath() string { return filepath.Join(a.cfg.Run, "agent.sock") }

// listen opens the socket. The home's lock is held, so one that lies there is
// an earlier agent's.
func (a *agent) listen() (net.Listener, error) {
	path := a.socketPath()
	if err := os.MkdirAll(a.cfg.Run, 0o755); err != nil {
		return nil, fmt.Errorf("open the agent's socket: %w", err)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("open the agent's socket: %s is there and is not a socket; move it away", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("open the agent's socket: another agent answers on %s; give this one its own MANIFOLD_RUN", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open the agent's socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the agent's socket: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("open the agent's socket: %w", err)
	}
	return l, nil
}

// serve answers on the socket until ctx ends. torndown is closed once a
// teardown was done and answered.
func (a *agent) serve(ctx context.Context, l net.Listener, torndown chan<- struct{}) {
	mux := http.NewServeMux()
	done := make(chan struct{}, 1)
	mux.HandleFunc("GET /healthz", a.serveHealth)
	mux.HandleFunc("GET /v1/ps", a.servePS)
	mux.HandleFunc("GET /v1/dynos/{name}", a.serveDyno)
	mux.HandleFunc("POST /v1/teardown", func(w http.ResponseWriter, r *http.Request) {
		if err := a.teardown(ctx, r.URL.Query().Get("now") == "true"); err != nil {
			a.log.Error("teardown failed", "error", err)
			answer(w, http.StatusInternalServerError, manifold.ErrorBody{ID: "teardown_failed", Message: err.Error()})
			return
		}
		answer(w, http.StatusOK, map[string]string{"status": "torn down"})
		select {
		case done <- struct{}{}:
		default:
		}
	})
	server := &http.Server{
		Handler:           http.MaxBytesHandler(mux, socketBody),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	a.work.Go(func() {
		select {
		case <-ctx.Done():
		case <-done:
		}
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
		if ctx.Err() == nil {
			close(torndown)
		}
	})
	if err := server.Serve(netutil.LimitListener(l, socketClients)); !errors.Is(err, http.ErrServerClosed) {
		a.log.Error("the agent's socket failed", "error", err)
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client left: nobody to tell
}

func (a *agent) serveHealth(w http.ResponseWriter, r *http.Request) {
	if err := a.alive(r.Context()); err != nil {
		answer(w, http.StatusServiceUnavailable, manifold.ErrorBody{ID: "unhealthy", Message: err.Error()})
		return
	}
	dropped := a.ship.logsDropped()
	a.mu.Lock()
	defer a.mu.Unlock()
	answer(w, http.StatusOK, map[string]any{
		"status": "ok", "host": a.id.ID, "dynos": len(a.drivers), "revision": a.applied, "logs_dropped": dropped,
	})
}

// alive takes the lock that every loop needs: one that hangs shows.
func (a *agent) alive(ctx context.Context) error {
	got := make(chan string, 1)
	go func() { got <- a.identity().ID }() // an agent that never gets the lock is killed by its watchdog
	select {
	case <-got:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(5 * time.Second):
		return errors.New("the agent's loops make no progress")
	}
}

func (a *agent) servePS(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, a.statuses(func(DynoStatus) bool { return true }))
}

func (a *agent) serveDyno(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	list := a.statuses(func(s DynoStatus) bool { return s.Name == name || s.Assignment == name || s.Run == name })
	if len(list) == 0 {
		answer(w, http.StatusNotFound, manifold.ErrorBody{ID: "not_found", Message: "no dyno of that name, assignment or run is on this host; GET /v1/ps lists them"})
		return
	}
	answer(w, http.StatusOK, list)
}

func (a *agent) statuses(keep func(DynoStatus) bool) []DynoStatus {
	list := []DynoStatus{}
	for _, dyno := range a.observation().Dynos {
		a.mu.Lock()
		d := a.drivers[dyno.Assignment]
		a.mu.Unlock()
		if d == nil {
			continue
		}
		as := d.assignment
		_, state := d.look()
		s := DynoStatus{Dyno: dyno, AppName: as.AppName, Kind: as.Kind, Release: as.Release, Size: as.Size.Name, Step: state}
		if keep(s) {
			list = append(list, s)
		}
	}
	return list
}
