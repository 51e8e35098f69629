package coordinator

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strconv"

	"manifold/coordinator/drain"
	"manifold/coordinator/outbound"
	"manifold/coordinator/webhooks"
)

// drain delivers log drains until ctx ends.
func (r *rooms) drain(ctx context.Context, doors *doors) error {
	roots, err := r.receivers()
	if err != nil {
		return err
	}
	return drain.Run(ctx, drain.Config{
		Store: r.store, Logs: r.logs, Dir: r.cfg.dir("drains"), Guard: r.guard(doors), Roots: roots, Log: r.cfg.Log.With("room", "drain"),
	})
}

// webhooks delivers events to webhooks until ctx ends.
func (r *rooms) webhooks(ctx context.Context, doors *doors) error {
	roots, err := r.receivers()
	if err != nil {
		return err
	}
	return webhooks.Run(ctx, webhooks.Config{Store: r.store, Guard: r.guard(doors), Roots: roots, Log: r.cfg.Log.With("room", "webhooks")})
}

// followDynos has webhooks told what dynos do, until ctx ends.
func (r *rooms) followDynos(ctx context.Context) error {
	return webhooks.Follow(ctx, r.scheduler, r.store, r.cfg.Log.With("room", "webhooks"))
}

// guard knows the platform's doors, where neither may lead.
func (r *rooms) guard(doors *doors) outbound.Guard {
	g := r.cfg.Drains
	for _, addr := range []net.Addr{doors.http[0].ln.Addr(), doors.http[1].ln.Addr(), doors.attach.Addr(), doors.fleet.Addr()} {
		if tcp, ok := addr.(*net.TCPAddr); ok {
			g.Ports = append(g.Ports, tcp.Port)
		}
	}
	if _, port, err := net.SplitHostPort(r.cfg.RouterAddr); err == nil {
		if n, err := strconv.Atoi(port); err == nil {
			g.Ports = append(g.Ports, n)
		}
	}
	return g
}

// receivers are the authorities whose certificates receivers may have; nil:
// the host's.
func (r *rooms) receivers() (*x509.CertPool, error) {
	if r.cfg.DrainCA == "" {
		return nil, nil
	}
	text, err := os.ReadFile(r.cfg.DrainCA)
	if err != nil {
		return nil, fmt.Errorf("read MANIFOLD_DRAIN_CA: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the host's certificates: %w", err)
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("MANIFOLD_DRAIN_CA: there is no certificate in %s", r.cfg.DrainCA)
	}
	return roots, nil
}
