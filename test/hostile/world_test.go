package hostile

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What lies beyond the host: a network namespace behind a link of its own
// plays the internet, the metadata service and a network where nobody answers.
//
//	host 203.0.113.n+1 ── veth ── 203.0.113.n+2 world
//	                              198.51.100.1      web and name server
//	                              169.254.169.254   metadata
//	                              198.51.100.128/25 black hole
const (
	worldServer  = "198.51.100.1"
	blackHoleNet = "198.51.100"
	metadataHost = "169.254.169.254"
)

// newWorld makes it and returns the host's address on the way there.
func newWorld(t testing.TB, number int, attacker string) (hostAddr string) {
	t.Helper()
	name := fmt.Sprintf("mw%02d", number)
	host, far := fmt.Sprintf("203.0.113.%d", 4*number+1), fmt.Sprintf("203.0.113.%d", 4*number+2)
	run := func(command string) {
		t.Helper()
		args := strings.Fields(command)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	// Those of a test that was killed: the number is ours.
	_ = exec.Command("ip", "netns", "del", name).Run()
	_ = exec.Command("ip", "link", "del", name).Run()
	run("ip netns add " + name)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	for _, command := range []string{
		"ip link add " + name + " type veth peer name eth0 netns " + name,
		"ip addr add " + host + "/30 dev " + name,
		"ip link set " + name + " up",
		"ip -n " + name + " addr add " + far + "/30 dev eth0",
		"ip -n " + name + " addr add " + worldServer + "/32 dev eth0",
		"ip -n " + name + " addr add " + metadataHost + "/32 dev eth0",
		"ip -n " + name + " link set lo up",
		"ip -n " + name + " link set eth0 up",
		"ip -n " + name + " route add default via " + host,
		"ip -n " + name + " route add blackhole 198.51.100.128/25",
		"ip route add 198.51.100.0/24 via " + far,
		"ip route add " + metadataHost + "/32 via " + far,
		"sysctl -q -w net.ipv4.conf." + name + ".forwarding=1",
	} {
		run(command)
	}
	server := exec.Command("ip", "netns", "exec", name, attacker, "world")
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // Pdeathsig is of the thread that forked
		err := server.Start()
		started <- err
		if err == nil {
			_ = server.Wait() // it is killed
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); <-ended })
	// From the host both can be reached: a dyno that cannot is kept from it.
	for _, addr := range []string{worldServer + ":80", metadataHost + ":80"} {
		for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			c, err := net.DialTimeout("tcp", addr, time.Second)
			if err == nil {
				c.Close()
				break
			}
			if time.Since(began) > time.Minute {
				t.Fatalf("the world outside does not answer on %s: %v", addr, err)
			}
		}
	}
	return host
}

// mostTracked is what one dyno may have in the connection tracking table after
// some seconds of attack: open connections, and what it may begin a second.
const mostTracked = 4096 + 1000 + 100*60

// tracked counts the attacker's entries in the host's connection tracking
// table.
func tracked(a *arena) {
	a.t.Helper()
	table, err := os.ReadFile("/proc/net/nf_conntrack")
	if err != nil {
		a.t.Fatal(err)
	}
	n := 0
	prefix := fmt.Sprintf(" src=10.%d.", 128+a.Number())
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, prefix) && strings.Contains(line, " dst="+blackHoleNet) {
			n++
		}
	}
	a.t.Logf("%d connections of the attacker are tracked", n)
	if n > mostTracked {
		a.t.Errorf("%d connections of one dyno are tracked by the host, at most %d may be", n, mostTracked)
	}
}
