package isolation

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// dynoLink is the name of the dyno's end of its veth pair.
const dynoLink = "eth0"

// connect joins the network namespace of process pid to the host by a veth
// pair with the slot's addresses. The pair ends with the namespace.
func (cfg Config) connect(s slot, pid int) error {
	name := s.link(cfg)
	// A link left by a run that was killed half-way would be in the way; the
	// slot is ours alone, so it is nobody else's.
	if old, err := netlink.LinkByName(name); err == nil {
		_ = netlink.LinkDel(old)
	}
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: name, TxQLen: 1000},
		PeerName:      dynoLink,
		PeerNamespace: netlink.NsPid(pid),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make link %s: %w", name, err)
	}
	host, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if err := sysctls("net/ipv4/conf/"+name, map[string]string{"forwarding": "1", "rp_filter": "1", "send_redirects": "0"}); err != nil {
		return err
	}
	// No IPv6 on the host's end: the table drops it too.
	_ = sysctls("net/ipv6/conf/"+name, map[string]string{"disable_ipv6": "1"})
	if err := raise(netlink.LinkSetUp, netlink.AddrAdd, host, s.hostAddr(cfg)); err != nil {
		return fmt.Errorf("raise link %s: %w", name, err)
	}
	return cfg.connectInside(s, pid)
}

// connectInside sets up the dyno's end, from outside, so that PID 1 needs no
// network code.
func (cfg Config) connectInside(s slot, pid int) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer inside.Close()
	lo, err := inside.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := inside.LinkSetUp(lo); err != nil {
		return fmt.Errorf("raise loopback: %w", err)
	}
	eth, err := inside.LinkByName(dynoLink)
	if err != nil {
		return fmt.Errorf("find %s: %w", dynoLink, err)
	}
	if err := raise(inside.LinkSetUp, inside.AddrAdd, eth, s.dynoAddr(cfg)); err != nil {
		return fmt.Errorf("raise %s: %w", dynoLink, err)
	}
	route := &netlink.Route{LinkIndex: eth.Attrs().Index, Gw: s.hostAddr(cfg).AsSlice()}
	if err := inside.RouteAdd(route); err != nil {
		return fmt.Errorf("set default route: %w", err)
	}
	return nil
}

func raise(up func(netlink.Link) error, addr func(netlink.Link, *netlink.Addr) error, link netlink.Link, ip netip.Addr) error {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(30, 32)}}
	if err := addr(link, a); err != nil {
		return err
	}
	return up(link)
}

// disconnect removes the slot's link, if the namespace's end has not yet.
func (cfg Config) disconnect(s slot) error {
	link, err := netlink.LinkByName(s.link(cfg))
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find link: %w", err)
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove link: %w", err)
	}
	return nil
}

// overlap looks for routes of the host that the pool would hide. Routes over
// our own links are ours.
func (cfg Config) overlap() error {
	routes, err := routes()
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.Dst.IP.IsUnspecified() {
			continue
		}
		addr, _ := netip.AddrFromSlice(r.Dst.IP.To4())
		ones, _ := r.Dst.Mask.Size()
		if !cfg.Pool.Overlaps(netip.PrefixFrom(addr, ones)) {
			continue
		}
		link, err := netlink.LinkByIndex(r.LinkIndex)
		var gone netlink.LinkNotFoundError
		if errors.As(err, &gone) || err == nil && strings.HasPrefix(link.Attrs().Name, cfg.linkPrefix()) {
			continue // ours, or gone since it was listed: such as a dyno's of an agent that was killed just now
		}
		return fmt.Errorf("address pool %v overlaps this host's route to %v: set MANIFOLD_POOL to a network that is free here", cfg.Pool, r.Dst)
	}
	return nil
}

// routes lists the host's IPv4 routes.
func routes() ([]netlink.Route, error) {
	return whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
}

// whole asks again for a list that changed while the kernel told it: hosts on
// which dynos come and go always change.
func whole[T any](list func() ([]T, error)) ([]T, error) {
	for tries := 1; ; tries++ {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || tries == 20 {
			return all, err
		}
	}
}

// uplinks are the links the host reaches the world by.
func uplinks() ([]string, error) {
	routes, err := routes()
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var names []string
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		// A route by several links names each as a hop, one that only refuses
		// (unreachable, blackhole) names none.
		links := []int{r.LinkIndex}
		for _, hop := range r.MultiPath {
			links = append(links, hop.LinkIndex)
		}
		for _, index := range links {
			if index == 0 {
				continue
			}
			link, err := netlink.LinkByIndex(index)
			if err != nil {
				return nil, fmt.Errorf("find uplink: %w", err)
			}
			names = append(names, link.Attrs().Name)
		}
	}
	return names, nil
}

// sysctls writes settings below /proc/sys/<dir>.
func sysctls(dir string, settings map[string]string) error {
	for name, value := range settings {
		if err := os.WriteFile("/proc/sys/"+dir+"/"+name, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s: %w", strings.ReplaceAll(dir+"/"+name, "/", "."), err)
		}
	}
	return nil
}
