// Package outbound connects to where strangers said: to log drains' receivers
// and to webhooks'. It must never connect to the platform itself, to dynos, or
// to where clouds keep their hosts' credentials, by whatever name or redirect
// that is asked for.
package outbound

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"manifold"
)

// ConnectTime bounds a TCP connect, and is a fair bound on a TLS handshake.
const ConnectTime = 5 * time.Second

// Guard says where drains and webhooks may lead. A URL is a stranger's, and so
// is what its name resolves to: each address is looked at when it is about to
// be dialled. Never allowed are multicast addresses, those
// where clouds keep their hosts' credentials, Nets, and the platform's own Ports; the host's own
// addresses only if Loopback.
type Guard struct {
	Loopback bool
	Ports    []int          // the platform's doors, on whatever address of this host
	Nets     []netip.Prefix // dynos
}

// ForbiddenError says, to the drain's or webhook's owner, why a connection was
// not made.
type ForbiddenError struct{ why string }

func (e *ForbiddenError) Error() string { return e.why }

func (g Guard) check(addr netip.AddrPort) error {
	ip := addr.Addr().Unmap().WithZone("")
	within := func(p netip.Prefix) bool { return p.Contains(ip) }
	switch {
	case ip.IsUnspecified(), ip.IsMulticast(), ip.IsLinkLocalUnicast(), slices.Contains(manifold.MetadataAddrs(), ip), slices.ContainsFunc(g.Nets, within):
		return &ForbiddenError{fmt.Sprintf("it leads to %s, which is not where a receiver can be", ip)}
	case !ours(ip):
		return nil
	case !g.Loopback:
		return &ForbiddenError{fmt.Sprintf("it leads to %s, which is this platform's own host (MANIFOLD_DRAIN_LOOPBACK=true lets log drains and webhooks lead there)", ip)}
	case slices.Contains(g.Ports, int(addr.Port())):
		return &ForbiddenError{fmt.Sprintf("it leads to port %d of this host, which is the platform's own", addr.Port())}
	}
	return nil
}

// ours says whether an address is this host's. When that cannot be known it is.
func ours(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return true
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	return slices.ContainsFunc(all, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap() == ip
	})
}

// Dialer connects to what the guard lets pass.
func (g Guard) Dialer() *net.Dialer {
	return &net.Dialer{Timeout: ConnectTime, Control: func(_, address string, _ syscall.RawConn) error {
		addr, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		return g.check(addr)
	}}
}
