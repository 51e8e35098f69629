package isolation

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
)

// slot is a place for one dyno on this host. Ids, addresses and names follow
// from its number alone, so nothing can leak by being forgotten.
type slot int

const (
	idsPerSlot   = 1 << 16
	addrsPerSlot = 4      // a /30: network, host's end, dyno's end, broadcast
	maxSlots     = 99_999 // five digits in a link's name
)

// slots is how many dynos cfg has room for.
func (cfg Config) slots() int {
	byAddr := 1 << max(32-cfg.Pool.Bits(), 0) / addrsPerSlot
	byID := (1<<32 - 1 - int(cfg.UIDBase)) / idsPerSlot
	return min(byAddr, byID, maxSlots)
}

func (cfg Config) check() error {
	if n := len(cfg.Instance); n == 0 || n > 8 {
		return fmt.Errorf("instance name %q must be 1 to 8 characters long", cfg.Instance)
	}
	for _, c := range cfg.Instance {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return fmt.Errorf("instance name %q may hold only a-z and 0-9", cfg.Instance)
		}
	}
	if !cfg.Pool.IsValid() || !cfg.Pool.Addr().Is4() || cfg.Pool != cfg.Pool.Masked() || cfg.Pool.Bits() > 28 {
		return fmt.Errorf("address pool %v must be an IPv4 network of at least a /28", cfg.Pool)
	}
	if cfg.UIDBase < idsPerSlot || cfg.slots() < 1 {
		return fmt.Errorf("uid base %d leaves no room: it must be from %d to %d", cfg.UIDBase, idsPerSlot, uint32(1<<32-1-idsPerSlot))
	}
	if c := cfg.CPUCap; c != 0 && c != min(max(c, 0.01), 1000) { // below, the kernel takes no quota
		return fmt.Errorf("CPU cap %v must be from 0.01 to 1000 CPUs for a share, or 0 for none", c)
	}
	for _, r := range cfg.Resolvers {
		if r.IsLoopback() {
			return fmt.Errorf("name server %v is on this host's loopback, which no dyno can reach: set MANIFOLD_RESOLVERS to one they can", r)
		}
	}
	return nil
}

// UIDs is how many user ids dynos may use, from UIDBase on.
func (cfg Config) UIDs() int { return cfg.slots() * idsPerSlot }

// String is the slot's name in names.
func (s slot) String() string { return strconv.Itoa(int(s)) }

// parseSlot reads what String wrote.
func parseSlot(text string) (slot, error) {
	n, err := strconv.Atoi(text)
	if s := slot(n); err != nil || n < 0 || n > maxSlots || s.String() != text {
		return -1, fmt.Errorf("%q is no slot's number", text)
	}
	return slot(n), nil
}

func (s slot) uid(cfg Config) int { return int(cfg.UIDBase) + int(s)*idsPerSlot }

func (s slot) addr(cfg Config, offset int) netip.Addr {
	base := cfg.Pool.Addr().As4()
	n := binary.BigEndian.Uint32(base[:]) + uint32(int(s)*addrsPerSlot+offset)
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// slotOf is the slot whose dyno has addr.
func (cfg Config) slotOf(addr netip.Addr) (slot, bool) {
	if !addr.Is4() || !cfg.Pool.Contains(addr) {
		return 0, false
	}
	a, base := addr.As4(), cfg.Pool.Addr().As4()
	s := slot(binary.BigEndian.Uint32(a[:])-binary.BigEndian.Uint32(base[:])) / addrsPerSlot
	return s, int(s) < cfg.slots() && s.dynoAddr(cfg) == addr
}

// hostAddr is the host's end of the link, the dyno's gateway.
func (s slot) hostAddr(cfg Config) netip.Addr { return s.addr(cfg, 1) }

// dynoAddr is the dyno's end.
func (s slot) dynoAddr(cfg Config) netip.Addr { return s.addr(cfg, 2) }

// linkPrefix begins the name of every link of this instance and no other.
func (cfg Config) linkPrefix() string { return cfg.Instance + "-" }

func (s slot) link(cfg Config) string { return cfg.linkPrefix() + s.String() }
