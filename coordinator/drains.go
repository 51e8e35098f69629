package coordinator

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strconv"

	"manifold/coordinator/drain"
)

// drain delivers log drains until ctx ends.
func (r *rooms) drain(ctx context.Context, doors *doors) error {
	cfg := drain.Config{
		Store: r.store, Logs: r.logs, Dir: r.cfg.dir("drains"), Guard: r.cfg.Drains, Log: r.cfg.Log.With("room", "drain"),
	}
	for _, addr := range []net.Addr{doors.http[0].ln.Addr(), doors.http[1].ln.Addr(), doors.attach.Addr(), doors.fleet.Addr()} {
		if tcp, ok := addr.(*net.TCPAddr); ok {
			cfg.Guard.Ports = append(cfg.Guard.Ports, tcp.Port)
		}
	}
	if _, port, err := net.SplitHostPort(r.cfg.RouterAddr); err == nil {
		if n, err := strconv.Atoi(port); err == nil {
			cfg.Guard.Ports = append(cfg.Guard.Ports, n)
		}
	}
	if r.cfg.DrainCA != "" {
		text, err := os.ReadFile(r.cfg.DrainCA)
		if err != nil {
			return fmt.Errorf("read MANIFOLD_DRAIN_CA: %w", err)
		}
		if cfg.Roots, err = x509.SystemCertPool(); err != nil {
			return fmt.Errorf("read the host's certificates: %w", err)
		}
		if !cfg.Roots.AppendCertsFromPEM(text) {
			return fmt.Errorf("MANIFOLD_DRAIN_CA: there is no certificate in %s", r.cfg.DrainCA)
		}
	}
	return drain.Run(ctx, cfg)
}
