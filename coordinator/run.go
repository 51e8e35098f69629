package coordinator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"manifold/coordinator/compiler"
	"manifold/coordinator/git"
	"manifold/coordinator/platform"
	"manifold/slugfs/stack"
)

// shutdownLimit bounds how long requests may go on after the end was asked.
const shutdownLimit = 10 * time.Second

// Run is the coordinator: it serves until ctx ends or a part of it fails, then
// stops in bounded time. Dynos and routers go on.
func Run(ctx context.Context, cfg Config) error {
	r, err := openRooms(ctx, cfg)
	if err != nil {
		return fmt.Errorf("start the coordinator: %w", err)
	}
	err = r.run(ctx)
	return errors.Join(err, r.close())
}

func (r *rooms) run(ctx context.Context) error {
	fail := func(err error) error { return fmt.Errorf("start the coordinator: %w", err) }
	if err := r.welcome(ctx); err != nil {
		return fail(err)
	}
	if err := r.collect(ctx); err != nil {
		return fail(err)
	}
	front, err := r.front()
	if err != nil {
		return fail(err)
	}
	doors, err := r.open(front)
	if err != nil {
		return fail(err)
	}
	parts, ctx := errgroup.WithContext(ctx)
	for _, d := range doors.http {
		parts.Go(func() error { return serve(ctx, d) })
	}
	parts.Go(func() error { return r.attach.Serve(ctx, doors.attach) })
	parts.Go(func() error { return r.fleet.Serve(ctx, doors.fleet) })
	parts.Go(func() error { return r.scheduler.Run(ctx) })
	parts.Go(func() error { return r.phase.Run(ctx) })
	parts.Go(func() error { return r.clock.Run(ctx) })
	parts.Go(func() error { return r.git.Run(ctx) })
	parts.Go(func() error { return r.drain(ctx, doors) })
	parts.Go(func() error { return r.webhooks(ctx, doors) })
	parts.Go(func() error { return r.followDynos(ctx) })
	addresses := Addresses{API: doors.http[0].ln.Addr(), TLS: doors.http[1].ln.Addr(), Attach: doors.attach.Addr(), Fleet: doors.fleet.Addr()}
	r.cfg.Log.Info("coordinator ready", "api", addresses.API.String(), "tls", addresses.TLS.String(), "attach", addresses.Attach.String(), "fleet", addresses.Fleet.String())
	if r.cfg.Ready != nil {
		r.cfg.Ready(addresses)
	}
	parts.Go(func() error { r.notify(ctx); return nil })
	<-ctx.Done()
	return parts.Wait()
}

// front is what the API's addresses answer: git for /<app>.git/…, log streams,
// health, and the Platform API for the rest.
func (r *rooms) front() (http.Handler, error) {
	stacks, err := stack.Load(r.cfg.stacks())
	if err != nil {
		return nil, err
	}
	offered := make([]platform.Stack, len(stacks))
	for i, s := range stacks {
		offered[i] = platform.Stack{Name: s.Name, BuiltAt: s.BuiltAt}
	}
	api, err := platform.New(platform.Config{
		Store: r.store, Dynos: r.scheduler, Logs: r.logs, Builds: r.compiler, Sources: r.sources, Outputs: r.outputs, Stacks: offered, WebURL: r.webURL,
		AttachURL:    r.attachURL,
		GitURL:       func(app string) string { return "http://" + dialable(r.cfg.APIAddr) + "/" + app + ".git" },
		Forget:       r.forget,
		CallsPerHour: r.cfg.APIRate, Log: r.cfg.Log.With("room", "platform"),
	})
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case git.Owns(req):
			r.git.ServeHTTP(w, req)
		case strings.HasPrefix(req.URL.Path, "/streams/"):
			r.logs.ServeHTTP(w, req)
		case strings.HasPrefix(req.URL.Path, "/outputs/"):
			r.outputs.ServeHTTP(w, req)
		case strings.HasPrefix(req.URL.Path, "/sources/"):
			r.sources.ServeHTTP(w, req)
		case req.URL.Path == "/buildpacks", strings.HasPrefix(req.URL.Path, "/buildpacks/"):
			compiler.Registry(w, req)
		case req.URL.Path == "/healthz":
			r.health(w, req)
		case req.URL.Path == statusPath:
			r.status(w, req)
		default:
			api.ServeHTTP(w, req)
		}
	}), nil
}

// door is one HTTP server and where it listens.
type door struct {
	srv *http.Server
	ln  net.Listener
}

// doors are all of them: API, API over TLS and admin, in this order.
type doors struct {
	http   []door
	attach net.Listener
	fleet  net.Listener
}

// open listens everywhere before anything is served, so that a taken address
// is found first.
func (r *rooms) open(front http.Handler) (_ *doors, err error) {
	var all []net.Listener
	defer func() {
		if err != nil {
			for _, ln := range all {
				err = errors.Join(err, ln.Close())
			}
		}
	}()
	listen := func(what, addr string) (net.Listener, error) {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("listen for %s: %w (is another instance running? MANIFOLD_%s_ADDR moves this one)", what, err, strings.ToUpper(what))
		}
		all = append(all, ln)
		return ln, nil
	}
	api, err := listen("api", r.cfg.APIAddr)
	if err != nil {
		return nil, err
	}
	secure, err := listen("tls", r.cfg.TLSAddr)
	if err != nil {
		return nil, err
	}
	toAttach, err := listen("attach", r.cfg.AttachAddr)
	if err != nil {
		return nil, err
	}
	toFleet, err := listen("fleet", r.cfg.FleetAddr)
	if err != nil {
		return nil, err
	}
	admin, err := listenAdmin(r.cfg.Settings)
	if err != nil {
		return nil, err
	}
	all = append(all, admin)
	cert, err := r.ca.Server(certNames(r.cfg.TLSAddr)...)
	if err != nil {
		return nil, err
	}
	secureServer := r.server(front)
	secureServer.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	return &doors{
		http:   []door{{r.server(front), api}, {secureServer, secure}, {r.server(r.admin()), admin}},
		attach: toAttach, fleet: toFleet,
	}, nil
}

// server has no limit on a whole request or answer: pushes and log streams
// take their time. The rooms bound what they read.
func (r *rooms) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(r.cfg.Log.Handler(), slog.LevelDebug),
	}
}

// serve serves until ctx ends. Requests that go on then have shutdownLimit;
// those that never end by themselves are cut by their contexts.
func serve(ctx context.Context, d door) error {
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	d.srv.BaseContext = func(net.Listener) context.Context { return requests }
	served := make(chan error, 1)
	go func() {
		if d.srv.TLSConfig != nil {
			served <- d.srv.ServeTLS(d.ln, "", "")
		} else {
			served <- d.srv.Serve(d.ln)
		}
	}()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
	defer cancel()
	// Log tails and builds would go on for ever: end them a little before the limit.
	soon := time.AfterFunc(shutdownLimit/4, cut)
	defer soon.Stop()
	err := d.srv.Shutdown(bounded)
	if err != nil {
		err = d.srv.Close() // what is left does not end by itself
	}
	<-served
	return err
}
