// Package proxy brings the doors of a coordinator on another machine to this
// one's loopback, because the heroku CLI sends its token to localhost only. It
// must never listen anywhere else, and never speak to a coordinator whose
// certificate the given CA did not sign.
//
//	heroku ── http  localhost:5000 ─▶ requests, over TLS ─▶ HOST:5443
//	git, log streams ── localhost:5443 ─▶ bytes as they are ─▶ HOST:5443   TLS is between the two ends
//	heroku run ──────── localhost:5444 ─▶ bytes as they are ─▶ HOST:5444
package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"sync"
	"time"
)

// Config says which doors are brought where.
type Config struct {
	// API, TLS and Attach are where to listen: loopback addresses.
	API, TLS, Attach net.Listener
	// RemoteTLS and RemoteAttach are the coordinator's, "host:port".
	RemoteTLS, RemoteAttach string
	CA                      *x509.CertPool // of the coordinator
	Log                     *slog.Logger
}

// Listen listens on a loopback address and refuses every other.
func Listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	if at, err := netip.ParseAddrPort(l.Addr().String()); err != nil || !at.Addr().Unmap().IsLoopback() {
		l.Close()
		return nil, fmt.Errorf("%s is not on this machine's loopback: others could use the proxy", addr)
	}
	return l, nil
}

// Close closes the listeners there are, where Run is not called.
func (cfg Config) Close() error {
	var failed error
	for _, l := range []net.Listener{cfg.API, cfg.TLS, cfg.Attach} {
		if l != nil {
			failed = errors.Join(failed, l.Close())
		}
	}
	return failed
}

// Run forwards until ctx ends, and closes the listeners.
func Run(ctx context.Context, cfg Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{Handler: cfg.api(), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug)}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	var parts sync.WaitGroup
	failed := make(chan error, 3)
	part := func(run func() error) {
		parts.Go(func() {
			defer cancel() // one alone is of no use
			if err := run(); err != nil && ctx.Err() == nil {
				failed <- err
			}
		})
	}
	part(func() error { return server.Serve(cfg.API) })
	part(func() error { return cfg.forward(ctx, cfg.TLS, cfg.RemoteTLS) })
	part(func() error { return cfg.forward(ctx, cfg.Attach, cfg.RemoteAttach) })
	parts.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// api forwards requests. Their Host is our TLS address, so that the URLs the
// coordinator makes of it lead there.
func (cfg Config) api() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "https", Host: cfg.RemoteTLS})
			r.Out.Host = cfg.TLS.Addr().String()
			if _, port, err := net.SplitHostPort(r.Out.Host); err == nil {
				r.Out.Host = net.JoinHostPort("localhost", port) // a name the certificate has
			}
		},
		FlushInterval: -1,
		Transport: &http.Transport{
			Proxy: nil, MaxIdleConns: 8, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second,
			DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			// A coordinator's certificate always has the name localhost; who it is the CA says.
			TLSClientConfig: &tls.Config{RootCAs: cfg.CA, ServerName: "localhost", MinVersion: tls.VersionTLS12},
		},
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			cfg.Log.Error("the coordinator cannot be reached", "at", cfg.RemoteTLS, "err", err)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprintf(w, `{"id":"bad_gateway","message":%q}`+"\n", "manifold proxy cannot reach the coordinator at "+cfg.RemoteTLS+"; it says why.")
		},
	}
}

// forward copies connections byte for byte.
func (cfg Config) forward(ctx context.Context, l net.Listener, remote string) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var open sync.WaitGroup
	defer open.Wait()
	for {
		here, err := l.Accept()
		if err != nil {
			return err
		}
		open.Go(func() {
			defer here.Close()
			there, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", remote)
			if err != nil {
				cfg.Log.Error("the coordinator cannot be reached", "at", remote, "err", err)
				return
			}
			defer there.Close()
			defer context.AfterFunc(ctx, func() { here.Close(); there.Close() })()
			var back sync.WaitGroup
			back.Go(func() { copyHalf(here, there) })
			copyHalf(there, here)
			back.Wait()
		})
	}
}

// copyHalf copies one direction to its end and says that it has ended.
func copyHalf(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		err = errors.Join(err, half.CloseWrite())
	}
	if err != nil { // the other direction has nobody left to talk to
		to.Close()
		from.Close()
	}
}
