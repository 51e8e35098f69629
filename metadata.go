package manifold

import "net/netip"

// MetadataAddrs are the addresses at which clouds keep their machines' secrets
// or control, beside link-local ones. Neither dynos nor what the platform
// connects to at a stranger's wish may reach them.
func MetadataAddrs() []netip.Addr {
	return []netip.Addr{
		netip.MustParseAddr("100.100.100.200"), // Alibaba Cloud
		netip.MustParseAddr("168.63.129.16"),   // Azure
		netip.MustParseAddr("192.0.0.192"),     // Oracle Cloud
		netip.MustParseAddr("fd00:ec2::254"),   // AWS
		netip.MustParseAddr("fd20:ce::254"),    // Google Cloud
	}
}
