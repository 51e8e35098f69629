package isolation_test

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"manifold/isolation"
)

// TestTracesOfABusyHost: a dyno's link is known as one, also where the kernel's
// list of addresses changes while it is read. The host is a network namespace.
func TestTracesOfABusyHost(t *testing.T) {
	r := newRig(t)
	o := &outside{t: t, name: fmt.Sprintf("busy%d", os.Getpid()%100_000)}
	o.run("ip netns add " + o.name)
	t.Cleanup(func() { o.run("ip netns del " + o.name) })
	ns, err := netns.GetFromName(o.name)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	host, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: r.cfg.Instance + "-3"}, PeerName: "other"}
	if err := host.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	other, err := host.LinkByName("other")
	if err != nil {
		t.Fatal(err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{Mask: net.CIDRMask(32, 32)}}
	for i := range 1000 { // more than the kernel tells in one piece
		addr.IP = net.IPv4(10, 0, byte(i>>8), byte(i))
		if err := host.AddrAdd(other, addr); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		var changes sync.WaitGroup
		changes.Go(func() {
			for range 8 { // fewer than there are tries
				time.Sleep(200 * time.Microsecond)
				if err := errors.Join(host.AddrDel(other, addr), host.AddrAdd(other, addr)); err != nil {
					t.Error(err)
				}
			}
		})
		var traces isolation.Traces
		in(t, ns, func() (err error) { traces, err = isolation.FindTraces(r.cfg); return err })
		changes.Wait()
		if len(traces.Links) != 1 || traces.Links[0].Slot != 3 {
			t.Fatalf("its links are %+v", traces.Links)
		}
	}
}

// TestUplinksOfEveryKindOfRoute: a host whose way out is a route by several
// links, or that also has one which only refuses, is a host like others.
func TestUplinksOfEveryKindOfRoute(t *testing.T) {
	r := newRig(t)
	o := &outside{t: t, name: fmt.Sprintf("ways%d", os.Getpid()%100_000)}
	o.run("ip netns add " + o.name)
	t.Cleanup(func() { o.run("ip netns del " + o.name) })
	for _, command := range []string{
		"link add up1 type veth peer name up2", "addr add 192.0.2.1/30 dev up1", "addr add 192.0.2.5/30 dev up2", "link set up1 up", "link set up2 up",
		"route add default nexthop via 192.0.2.2 dev up1 nexthop via 192.0.2.6 dev up2",
		"route add unreachable default metric 1000",
	} {
		o.run("ip -n " + o.name + " " + command)
	}
	ns, err := netns.GetFromName(o.name)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var traces isolation.Traces
	in(t, ns, func() (err error) { traces, err = isolation.FindTraces(r.cfg); return err })
	if uplinks := slices.Sorted(maps.Keys(traces.Forwarding)); !slices.Equal(uplinks, []string{"up1", "up2"}) {
		t.Errorf("its uplinks are %q", uplinks)
	}
}
