package isolation_test

import (
	"context"
	"net"
	"net/netip"
)

type netDialer struct{}

func (netDialer) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Timeout: patience}
	return d.DialContext(ctx, "tcp", to.String())
}
