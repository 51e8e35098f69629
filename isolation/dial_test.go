package isolation_test

import (
	"context"
	"net"
	"net/netip"
	"time"
)

type netDialer struct{}

func (netDialer) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	return d.DialContext(ctx, "tcp", to.String())
}
