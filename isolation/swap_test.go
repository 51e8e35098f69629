package isolation

import (
	"strings"
	"testing"

	"manifold"
)

func TestMemoryFollowsTheHostsSwap(t *testing.T) {
	const mib = 1 << 20
	size := manifold.Size{Memory: 512 * mib, MemorySwap: 1536 * mib}
	for host, want := range map[int64][2]int64{
		0:          {1536, 0},
		100 * mib:  {1436, 100},
		1024 * mib: {512, 1024},
		1 << 40:    {512, 1024},
	} {
		ram, swap := splitMemory(size, host)
		if ram != want[0]*mib || swap != want[1]*mib {
			t.Errorf("with %d MiB of swap: %d MiB and %d MiB of swap, want %v", host/mib, ram/mib, swap/mib, want)
		}
	}
	if said := SwapWarning(100 * mib); !strings.Contains(said, "(100 MiB) for one Standard-1X dyno (1024 MiB)") || !strings.Contains(said, "up to 1436 MiB") {
		t.Errorf("the warning is %q", said)
	}
	if said := SwapWarning(1 << 30); said != "" {
		t.Errorf("enough swap, yet: %q", said)
	}
}
