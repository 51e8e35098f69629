package outbound

import (
	"net"
	"net/netip"
	"testing"
)

func TestGuard(t *testing.T) {
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	ours := ""
	for _, a := range own { // the first: links that came later may be those of other tests' dynos, and go
		if p, err := netip.ParsePrefix(a.String()); ours == "" && err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			ours = p.Addr().String()
		}
	}
	nets := []netip.Prefix{netip.MustParsePrefix("172.30.0.0/16")}
	closed, open := Guard{Nets: nets}, Guard{Loopback: true, Ports: []int{5000}, Nets: nets}
	for _, tc := range []struct {
		addr         string
		closed, open bool
	}{
		{"192.0.2.1:514", true, true}, {"[2001:db8::1]:514", true, true}, {"10.1.2.3:5000", true, true},
		{"127.0.0.1:514", false, true}, {"127.9.9.9:514", false, true}, {"[::1]:514", false, true}, {"[::ffff:127.0.0.1]:514", false, true},
		{"127.0.0.1:5000", false, false}, {"[::1]:5000", false, false}, {"[::ffff:127.0.0.1]:5000", false, false},
		{"0.0.0.0:514", false, false}, {"[::]:514", false, false}, {"169.254.169.254:80", false, false}, {"[fd00:ec2::254]:80", false, false}, {"[fe80::1%lo]:514", false, false},
		{"224.0.0.1:514", false, false}, {"172.30.4.2:80", false, false}, {"[::ffff:172.30.4.2]:80", false, false},
		{ours + ":514", false, true}, {ours + ":5000", false, false},
	} {
		addr, err := netip.ParseAddrPort(tc.addr)
		if err != nil {
			continue // a host without such an address
		}
		for name, is := range map[string]struct {
			g  Guard
			ok bool
		}{"closed": {closed, tc.closed}, "open": {open, tc.open}} {
			if err := is.g.check(addr); (err == nil) != is.ok {
				t.Errorf("%s guard, %s: %v", name, tc.addr, err)
			}
		}
	}
}
