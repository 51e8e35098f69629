package isolation_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"manifold/isolation"
)

// outside plays what lies beyond the host: a network namespace behind a veth
// pair. Addresses follow from the process, since several tests may run.
type outside struct {
	t         *testing.T
	name      string
	hostAddr  string // the host's on the way there
	addr      string // of a server
	metadata  string // a link-local one
	blackHole string // three numbers of a network where nobody answers
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	n := os.Getpid() % 60
	o := &outside{
		t: t, name: fmt.Sprintf("to%d", os.Getpid()%100_000), hostAddr: fmt.Sprintf("198.51.100.%d", 4*n+1), addr: fmt.Sprintf("198.51.100.%d", 4*n+2),
		metadata: fmt.Sprintf("169.254.169.%d", 10+n), blackHole: fmt.Sprintf("198.18.%d.", n),
	}
	o.run("ip netns add " + o.name)
	t.Cleanup(func() { o.run("ip netns del " + o.name) })
	o.run("ip link add " + o.name + " type veth peer name eth0 netns " + o.name)
	t.Cleanup(func() { o.run("ip link del " + o.name) }) // the kernel takes a namespace's links away some time after it
	for _, command := range []string{
		"ip addr add " + o.hostAddr + "/30 dev " + o.name,
		"ip link set " + o.name + " up",
		"ip -n " + o.name + " addr add " + o.addr + "/30 dev eth0",
		"ip -n " + o.name + " addr add " + o.metadata + "/32 dev eth0",
		"ip -n " + o.name + " link set lo up",
		"ip -n " + o.name + " link set eth0 up",
		"ip -n " + o.name + " route add default via " + o.hostAddr,
		"ip -n " + o.name + " route add blackhole " + o.blackHole + "0/24",
		"ip route add " + o.blackHole + "0/24 via " + o.addr,
		"ip route add " + o.metadata + "/32 via " + o.addr,
		"sysctl -q -w net.ipv4.conf." + o.name + ".forwarding=1",
	} {
		o.run(command)
	}
	return o
}

func (o *outside) run(command string) {
	o.t.Helper()
	args := strings.Fields(command)
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		o.t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// in calls f in a network namespace.
func in(t *testing.T, ns netns.NsHandle, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		err := netns.Set(ns)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// echo answers datagrams that come to a socket with what it got and from whom.
func echo(t *testing.T, c net.PacketConn) {
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(append(buf[:n:n], " heard"...), from)
		}
	}()
}

func (o *outside) listen(addr string) net.PacketConn {
	o.t.Helper()
	ns, err := netns.GetFromName(o.name)
	if err != nil {
		o.t.Fatal(err)
	}
	defer ns.Close()
	var c net.PacketConn
	in(o.t, ns, func() (err error) { c, err = net.ListenPacket("udp4", addr); return err })
	return c
}

// with opens the rig's host again with other settings.
func (r *rig) with(change func(*isolation.Config)) {
	r.t.Helper()
	change(&r.cfg)
	if err := r.host.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.open()
}

func TestWhomADynoReaches(t *testing.T) {
	r := newRig(t)
	o := newOutside(t)
	for _, addr := range []string{o.addr + ":53", o.metadata + ":53", o.metadata + ":80"} {
		echo(t, o.listen(addr))
	}
	for _, port := range []string{":53", ":5353"} { // services of the host
		c, err := net.ListenPacket("udp4", o.hostAddr+port)
		if err != nil {
			t.Fatal(err)
		}
		echo(t, c)
	}
	r.with(func(cfg *isolation.Config) { cfg.Resolvers = []netip.Addr{netip.MustParseAddr(o.hostAddr)} })
	// All of them answer the host itself.
	for _, addr := range []string{o.addr, o.metadata, o.hostAddr} {
		c, err := net.Dial("udp", addr+":53")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for deadline, n := time.Now().Add(patience), 0; n == 0; { // new links lose what comes first
			if _, err := c.Write([]byte("question")); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			if n, err = c.Read(make([]byte, 64)); n == 0 && time.Now().After(deadline) {
				t.Fatalf("%s does not answer: %v", addr, err)
			}
		}
	}
	for addr, want := range map[string]string{
		o.addr + ":53":         "question heard", // the world
		o.metadata + ":53":     "no answer",
		o.hostAddr + ":53":     "question heard", // the host is the name server
		o.hostAddr + ":5353":   "no answer",
		"[fd00:ec2::254]:80":   "no answer",
		"168.63.129.16:53":     "no answer",
		"255.255.255.255:53":   "no answer",
		"224.0.0.1:53":         "no answer",
		r.gateway(0) + ":5353": "no answer",
	} {
		how := "insist"
		if want == "no answer" {
			how = "ask"
		}
		if got := r.run("calls " + how + " " + addr); got != addr+" "+want+"\n" {
			t.Errorf("%q, want %q", got, want)
		}
	}
	// A link-local name server is asked all the same, and nothing else of it.
	r.with(func(cfg *isolation.Config) { cfg.Resolvers = []netip.Addr{netip.MustParseAddr(o.metadata)} })
	if got := r.run("calls insist " + o.metadata + ":53; calls ask " + o.metadata + ":80"); got != o.metadata+":53 question heard\n"+o.metadata+":80 no answer\n" {
		t.Errorf("a link-local name server: %q", got)
	}
	// Nor are addresses of the pool that no dyno has somebody else's.
	vacant := r.gateway(50)
	o.run("ip -n " + o.name + " addr add " + vacant + "/32 dev eth0")
	o.run("ip route add " + vacant + "/32 via " + o.addr)
	echo(t, o.listen(vacant+":53"))
	if got := r.run("calls ask " + vacant + ":53"); got != vacant+":53 no answer\n" {
		t.Errorf("an address of the pool: %q", got)
	}
}

// gateway is the host's end of a slot's link.
func (r *rig) gateway(slot int) string {
	base := r.cfg.Pool.Addr().As4()
	return netip.AddrFrom4([4]byte{base[0], base[1], base[2], base[3] + byte(4*slot) + 1}).String()
}

func TestRoutersReachPortAlone(t *testing.T) {
	r := newRig(t)
	b := r.start("for p in 19999 20000 59999 60000; do nc -l -p $p -e echo hi & done; echo ready; wait")
	r.said(b, "ready")
	for port, want := range map[int]bool{19999: false, 20000: true, 59999: true, 60000: false} {
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			if up, err := b.Listening(port); err != nil || up {
				break
			} else if time.Now().After(end) {
				t.Fatalf("nobody listens on %d", port)
			}
		}
		limit := patience
		if !want {
			limit = 700 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		conn, err := (&netDialer{}).dial(ctx, netip.AddrPortFrom(b.Addr(), uint16(port)))
		cancel()
		if (err == nil) != want {
			t.Errorf("port %d: %v", port, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

// TestSourceIsPinned: a dyno that could send what it likes (none can, it takes
// a capability) would still be held to its own address.
func TestSourceIsPinned(t *testing.T) {
	r := newRig(t)
	o := newOutside(t)
	heard := o.listen(":7")
	defer heard.Close()
	b, neighbour := r.start("echo ready; exec sleep 1000"), r.start("echo ready; exec sleep 1000")
	r.said(b, "ready")
	r.said(neighbour, "ready")
	ns, err := netns.GetFromPid(b.PID())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	hears := func(source string, within time.Duration) bool {
		in(t, ns, func() error { return sendAs(source, o.addr, 7, "from "+source) })
		_ = heard.SetReadDeadline(time.Now().Add(within))
		for buf := make([]byte, 100); ; {
			n, _, err := heard.ReadFrom(buf)
			if err != nil || string(buf[:n]) == "from "+source {
				return err == nil
			}
		}
	}
	for deadline := time.Now().Add(patience); !hears(b.Addr().String(), 100*time.Millisecond); { // new links lose what comes first
		if time.Now().After(deadline) {
			t.Fatal("the dyno's own address is not heard")
		}
	}
	for _, source := range []string{neighbour.Addr().String(), o.hostAddr, "8.8.8.8", "127.0.0.1", r.gateway(0)} {
		if hears(source, 500*time.Millisecond) {
			t.Errorf("source %s: heard", source)
		}
	}
}

// sendAs sends a datagram with any source address (raw(7), IP_HDRINCL).
func sendAs(source, to string, port uint16, text string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	packet := make([]byte, 28, 28+len(text)) // the kernel fills in length and checksum of the IP header
	packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_UDP
	copy(packet[12:], net.ParseIP(source).To4())
	copy(packet[16:], net.ParseIP(to).To4())
	binary.BigEndian.PutUint16(packet[20:], 12345)
	binary.BigEndian.PutUint16(packet[22:], port)
	binary.BigEndian.PutUint16(packet[24:], uint16(8+len(text)))
	addr := &unix.SockaddrInet4{}
	copy(addr.Addr[:], packet[16:20])
	return unix.Sendto(fd, append(packet, text...), 0, addr)
}

// TestOneDynoCannotFillTheConnectionTable: what is beyond the limits is
// dropped before the kernel keeps it.
func TestOneDynoCannotFillTheConnectionTable(t *testing.T) {
	r := newRig(t)
	o := newOutside(t)
	began := time.Now()
	b := r.start("exec calls flood " + o.blackHole + "1")
	r.said(b, "20000 tried")
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range flows {
		if f.Forward.SrcIP.Equal(b.Addr().AsSlice()) {
			n++
		}
	}
	most := 1000 + 100*int(time.Since(began).Seconds()+1)
	t.Logf("%d connections are tracked after 20,000 tries", n)
	if n < 1000 || n > min(most, 4096) {
		t.Errorf("%d connections of one dyno are tracked, want 1000 to %d", n, min(most, 4096))
	}
}
