package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the test tells of the world around, as an attacker would find out.
var (
	hostAddrs   = list("HOST_ADDRS") // of the host: the gateway, the uplink's, …
	scanPorts   = list("SCAN_PORTS") // where something listens on the host
	neighbourAt = os.Getenv("NEIGHBOUR_ADDR")
	worldAt     = os.Getenv("WORLD_ADDR") // a server beyond the host
	blackHole   = os.Getenv("BLACK_HOLE") // the first three numbers of a network where nobody answers
	metadataAt  = list("METADATA_ADDRS")
	abstract    = os.Getenv("ABSTRACT_SOCKET")
)

func list(name string) []string {
	return strings.FieldsFunc(os.Getenv(name), func(r rune) bool { return r == ',' })
}

// network are attempts to be somebody else, or to reach who must not be.
var network = []attempt{
	{"the world outside (must work)", func() string { return dial(worldAt) }},
	call("packet socket (ARP)", unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW),
	call("raw socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW),
	call("ICMP socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
	call("kernel crypto socket", unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET),
	call("vsock to the hypervisor", unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM),
	{"transparent source (IP_TRANSPARENT)", func() string { return spoof(unix.IP_TRANSPARENT) }},
	{"foreign source (IP_FREEBIND)", func() string { return spoof(unix.IP_FREEBIND) }},
	{"a static ARP entry", func() string { return ioctl(unix.SIOCSARP) }},
	{"another address (SIOCSIFADDR)", func() string { return ioctl(unix.SIOCSIFADDR) }},
	{"another hardware address", func() string { return ioctl(unix.SIOCSIFHWADDR) }},
	{"another address (netlink)", netlinkAddress},
	{"a firewall of its own (netlink)", func() string {
		return netlink(unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, nil)
	}},
	all("the metadata address", nothing, func(yield func(what, answer string)) {
		for _, a := range metadataAt {
			yield(a, dial(a))
		}
	}),
	all("services of the host", nothing, func(yield func(what, answer string)) {
		scan(hostAddrs, scanPorts, yield)
	}),
	all("the neighbour", nothing, func(yield func(what, answer string)) {
		host, port, _ := net.SplitHostPort(neighbourAt)
		scan([]string{host}, append([]string{port}, scanPorts...), yield)
	}),
	all("the host by UDP", nothing, func(yield func(what, answer string)) {
		for _, host := range hostAddrs {
			for _, port := range scanPorts {
				yield(host, ask(net.JoinHostPort(host, port)))
			}
		}
	}),
	all("IPv6", append(nothing, "EADDRNOTAVAIL", "ENETUNREACH", "EACCES"), func(yield func(what, answer string)) {
		for _, a := range []string{"[fd00:ec2::254]:80", "[fe80::1%eth0]:80", "[2001:db8::1]:80"} {
			yield(a, dial(a))
		}
	}),
	{"the host's abstract socket", func() string {
		c, err := net.DialTimeout("unix", "@"+abstract, time.Second)
		if err == nil {
			c.Close()
		}
		return answer(err)
	}},
}

// nothing is how a packet that is dropped is answered.
var nothing = []string{"no answer"}

const patience = 300 * time.Millisecond

func dial(addr string) string {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err == nil {
		c.Close()
		return "SUCCEEDED"
	}
	return timeout(err)
}

func timeout(err error) string {
	var slow net.Error
	if errors.As(err, &slow) && slow.Timeout() {
		return "no answer"
	}
	return answer(err)
}

// ask sends a datagram and waits for one, or for the host's word that nobody
// listens.
func ask(addr string) string {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return answer(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		return answer(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, err = c.Read(make([]byte, 64))
	return timeout(err)
}

// scan dials many at once.
func scan(hosts, ports []string, yield func(what, answer string)) {
	var mu sync.Mutex
	var group sync.WaitGroup
	for _, host := range hosts {
		for _, port := range ports {
			group.Go(func() {
				a := dial(net.JoinHostPort(host, port))
				mu.Lock()
				defer mu.Unlock()
				yield(net.JoinHostPort(host, port), a)
			})
		}
	}
	group.Wait()
}

// spoof sends a datagram to the world with the neighbour's address.
func spoof(option int) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return answer(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, option, 1); err != nil {
		return answer(err)
	}
	host, _, _ := net.SplitHostPort(neighbourAt)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: four(host)}); err != nil {
		return answer(err)
	}
	host, _, _ = net.SplitHostPort(worldAt)
	return answer(unix.Sendto(fd, []byte("spoofed"), 0, &unix.SockaddrInet4{Addr: four(host), Port: 9}))
}

func four(host string) (a [4]byte) {
	copy(a[:], net.ParseIP(host).To4())
	return a
}

// ioctl asks to change eth0; the kernel checks the privilege before it looks
// at the rest.
func ioctl(request uintptr) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return answer(err)
	}
	defer unix.Close(fd)
	var ifreq [64]byte
	copy(ifreq[:], "eth0")
	_, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&ifreq)))
	return errnoName(errno)
}

// netlinkAddress is RTM_NEWADDR of 172.16.0.1/32 on link 2.
func netlinkAddress() string {
	return netlink(unix.NETLINK_ROUTE, unix.RTM_NEWADDR, []byte{unix.AF_INET, 32, 0, 0, 2, 0, 0, 0, 8, 0, 2, 0, 172, 16, 0, 1})
}

// netlink sends one request and reads its acknowledgement.
func netlink(family int, kind uint16, payload []byte) string {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return answer(err)
	}
	defer unix.Close(fd)
	if payload == nil {
		payload = make([]byte, 4)
	}
	msg := make([]byte, 16, 16+len(payload))
	*(*uint32)(unsafe.Pointer(&msg[0])) = uint32(16 + len(payload))
	*(*uint16)(unsafe.Pointer(&msg[4])) = kind
	*(*uint16)(unsafe.Pointer(&msg[6])) = unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE
	if err := unix.Sendto(fd, append(msg, payload...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return answer(err)
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	reply := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, reply, 0)
	if err != nil {
		return answer(err)
	}
	if n < 20 {
		return "a short reply"
	}
	return errnoName(syscall.Errno(-*(*int32)(unsafe.Pointer(&reply[16]))))
}

// connections opens connections as fast as it can: to a server that takes
// them, and to a network where nobody answers.
func connections() {
	var group sync.WaitGroup
	group.Go(func() {
		var held []net.Conn
		for {
			c, err := net.DialTimeout("tcp", worldAt, time.Second)
			if err != nil {
				say("connections", fmt.Sprintf("%s after %d hundred", timeout(err), len(held)/100))
				continue
			}
			held = append(held, c)
		}
	})
	flood(func(i int) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return
		}
		_ = unix.Connect(fd, target(i, 1+i%60000))
		unix.Close(fd)
	})
}

// datagrams sends each datagram to another place.
func datagrams() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		say("datagrams", answer(err))
		return
	}
	flood(func(i int) { _ = unix.Sendto(fd, []byte("x"), 0, target(i, 1+i%60000)) })
}

func target(i, port int) *unix.SockaddrInet4 {
	addr := four(blackHole + ".0")
	addr[3] = byte(128 + i%120)
	return &unix.SockaddrInet4{Addr: addr, Port: port}
}

// dnsFlood asks the name servers from ever new ports.
func dnsFlood() {
	resolvers := list("RESOLVERS")
	flood(func(i int) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return
		}
		_ = unix.Sendto(fd, []byte("not a question"), 0, &unix.SockaddrInet4{Addr: four(resolvers[i%len(resolvers)]), Port: 53})
		unix.Close(fd)
	})
}

func flood(send func(i int)) {
	for i := 0; ; i++ {
		send(i)
		if i == 50_000 {
			say(os.Args[1], "50000 sent")
		}
	}
}
