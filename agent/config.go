package agent

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"manifold"
	"manifold/supervisor"
)

// Config says where the agent keeps its state and what its dynos may use.
type Config struct {
	manifold.Settings
	JoinTokenFile string       // MANIFOLD_JOIN_TOKEN_FILE: read while there is no identity yet; never argv, never env
	Pool          netip.Prefix // MANIFOLD_POOL: the dynos' addresses
	UIDBase       uint32       // MANIFOLD_UID_BASE: first host uid of the first dyno's range
	Resolvers     []netip.Addr // MANIFOLD_RESOLVERS: DNS servers the dynos may ask, by comma
	CgroupParent  string       // MANIFOLD_CGROUP_PARENT: the cgroup in which the dynos' are made, as below /sys/fs/cgroup; "" is the root
	CPUCap        float64      // MANIFOLD_CPU_CAP: CPUs a share of a dyno's size may use at most; 0: no cap
	Policy        supervisor.Policy
	SampleEvery   time.Duration // between two looks at a dyno's memory and load
	LogLimit      int64         // MANIFOLD_LOG_DISK, in MB: of each dyno's log kept on this host; 0 is isolation's default
	AppDomain     string        // MANIFOLD_APP_DOMAIN: apps are asked for their health as <app>.<domain>
	Log           *slog.Logger  // required
}

// FromEnv reads the configuration from the environment, all but Log.
func FromEnv() (Config, error) {
	c := Config{Settings: manifold.FromEnv(), CgroupParent: os.Getenv("MANIFOLD_CGROUP_PARENT")}
	c.AppDomain = cmp.Or(os.Getenv("MANIFOLD_APP_DOMAIN"), "localhost")
	c.JoinTokenFile = cmp.Or(os.Getenv("MANIFOLD_JOIN_TOKEN_FILE"), filepath.Join(c.Home, "coordinator", "join-token"))
	pool := cmp.Or(os.Getenv("MANIFOLD_POOL"), manifold.DefaultPool)
	var err error
	if c.Pool, err = netip.ParsePrefix(pool); err != nil {
		return Config{}, fmt.Errorf("MANIFOLD_POOL must be a network such as 172.30.0.0/16: %w", err)
	}
	base := cmp.Or(os.Getenv("MANIFOLD_UID_BASE"), "1000000000")
	uid, err := strconv.ParseUint(base, 10, 32)
	if err != nil {
		return Config{}, fmt.Errorf("MANIFOLD_UID_BASE must be a user id such as 1000000000: %w", err)
	}
	c.UIDBase = uint32(uid)
	if c.CPUCap, err = strconv.ParseFloat(cmp.Or(os.Getenv("MANIFOLD_CPU_CAP"), "0"), 64); err != nil {
		return Config{}, fmt.Errorf("MANIFOLD_CPU_CAP must be a number of CPUs such as 0.5: %w", err)
	}
	if c.Policy, c.SampleEvery, err = policyFromEnv(); err != nil {
		return Config{}, err
	}
	if text := os.Getenv("MANIFOLD_LOG_DISK"); text != "" {
		mb, err := strconv.Atoi(text)
		if err != nil || mb < 1 || mb > 4096 {
			return Config{}, fmt.Errorf("MANIFOLD_LOG_DISK must be a number of MB from 1 to 4096, not %.40q", text)
		}
		c.LogLimit = int64(mb) << 20
	}
	c.Resolvers, err = resolvers(os.Getenv("MANIFOLD_RESOLVERS"))
	return c, err
}

// resolvers reads a list by comma, or else the host's own.
func resolvers(list string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	if list != "" {
		for s := range strings.SplitSeq(list, ",") {
			addr, err := netip.ParseAddr(strings.TrimSpace(s))
			if err != nil {
				return nil, fmt.Errorf("MANIFOLD_RESOLVERS must be IP addresses parted by commas: %w", err)
			}
			addrs = append(addrs, addr)
		}
		return addrs, nil
	}
	for _, file := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		if addrs = hostResolvers(file); len(addrs) > 0 {
			break
		}
	}
	return addrs, nil // none on the host, none in the dynos
}

// hostResolvers reads the name servers of a resolv.conf(5) that a dyno can
// reach: a stub on the host's loopback is none.
func hostResolvers(file string) (addrs []netip.Addr) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if addr, err := netip.ParseAddr(fields[1]); err == nil && !addr.IsLoopback() {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}
