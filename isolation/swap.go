package isolation

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"manifold"
)

// A dyno may use its quota of RAM, then swap, up to Size.MemorySwap of both
// together, and dies beyond. That needs swap on the host. What the host lacks
// of it a dyno may use of RAM instead, so that its contract stays the same:
//
//	host's swap       RAM a dyno may use    + swap
//	enough for one    Memory                MemorySwap − Memory
//	some              MemorySwap − some     some
//	none              MemorySwap            0
//
// Swap is there for whoever comes first: when many dynos are over their quota
// at once and the host's swap is full, the next one that needs it is killed
// before it has all it may use.

// splitMemory says how much RAM and how much swap a dyno of a size gets on a
// host with that much swap in all.
func splitMemory(size manifold.Size, hostSwap int64) (ram, swap int64) {
	swap = min(size.MemorySwap-size.Memory, hostSwap)
	return size.MemorySwap - swap, swap
}

// hostSwap is the swap this host has, free or not (sysinfo(2)).
func hostSwap() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Totalswap) * int64(info.Unit)
}

// SwapWarning is what whoever answers for a host with that much swap, in
// bytes, must know, or "".
func SwapWarning(hostSwap int64) string {
	size, err := manifold.ParseSize(manifold.DefaultSize)
	if err != nil {
		return ""
	}
	ram, swap := splitMemory(size, hostSwap)
	if ram == size.Memory {
		return ""
	}
	return fmt.Sprintf("this host has too little swap (%d MiB) for one %s dyno (%d MiB): what a dyno uses beyond its quota of %d MiB "+
		"is RAM, up to %d MiB and %d MiB of swap, so a few dynos over their quota can use up this host's memory; "+
		"add swap (man mkswap, man swapon), it holds for dynos started from then on",
		hostSwap>>20, size.Name, (size.MemorySwap-size.Memory)>>20, size.Memory>>20, ram>>20, swap>>20)
}

// peak is the most RAM and swap a run has held together, in bytes, as far as
// this kernel tells: v1 counts the sum, v2 each by itself.
func (t *cgroupTree) peak(group string) int64 {
	if v1 := t.v1Memory(group); v1 != "" {
		n, _ := readNumber(filepath.Join(v1, "memory.memsw.max_usage_in_bytes"))
		return n
	}
	dir := filepath.Join(t.dir(group), "app")
	ram, _ := readNumber(filepath.Join(dir, "memory.peak"))
	swap, err := readNumber(filepath.Join(dir, "memory.swap.peak"))
	if err != nil { // before 6.5: known only if it was all there is
		if events, _ := readKeys(filepath.Join(dir, "memory.swap.events")); events["max"] > 0 {
			swap, _ = readNumber(filepath.Join(dir, "memory.swap.max"))
		}
	}
	return ram + swap
}
