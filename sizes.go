package manifold

import "strings"

// Size is what a dyno may use. Memory is RAM; MemorySwap is RAM and swap
// together, at which the whole dyno is killed (R15).
type Size struct {
	Name       string `json:"name"`        // as shown: "Standard-1X"
	Memory     int64  `json:"memory"`      // bytes
	MemorySwap int64  `json:"memory_swap"` // bytes, RAM and swap together
	Shares     int    `json:"shares"`      // CPU weight, 1 for the smallest
	Processes  int    `json:"processes"`   // processes and threads; also RLIMIT_NPROC
	Files      int    `json:"files"`       // RLIMIT_NOFILE
	Disk       int64  `json:"disk"`        // bytes of the private writable layer
	Inodes     int64  `json:"inodes"`      // of the same
}

// DefaultSize is what a formation gets when nobody said otherwise.
const DefaultSize = "Standard-1X"

const mib = 1 << 20

var sizes = []Size{
	size("Eco", 512, 1, 256),
	size("Basic", 512, 1, 256),
	size("Standard-1X", 512, 1, 256),
	size("Standard-2X", 1024, 2, 512),
	size("Performance-M", 2560, 12, 16384),
	size("Performance-L", 14336, 50, 32768),
}

func size(name string, memory int64, shares, processes int) Size {
	return Size{
		Name: name, Memory: memory * mib, MemorySwap: 3 * memory * mib, Shares: shares,
		Processes: processes, Files: 10_000, Disk: 4 << 30, Inodes: 400_000,
	}
}

// BuildSize is what a build runs in. It is not for sale.
var BuildSize = Size{
	Name: "Build", Memory: 2048 * mib, MemorySwap: 4096 * mib, Shares: 2,
	Processes: 4096, Files: 10_000, Disk: 8 << 30, Inodes: 1_000_000,
}

// Sizes lists every size there is, smallest first.
func Sizes() []Size { return append([]Size(nil), sizes...) }

// ParseSize finds a size by name, in any letter case.
func ParseSize(name string) (Size, error) {
	for _, s := range sizes {
		if strings.EqualFold(s.Name, name) {
			return s, nil
		}
	}
	known := make([]string, len(sizes))
	for i, s := range sizes {
		known[i] = s.Name
	}
	return Size{}, invalid("Size", "%q is not one of %s", clip(name), strings.Join(known, ", "))
}
