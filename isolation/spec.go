package isolation

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"manifold"
	"manifold/isolation/boot"
)

// Config is what one host's dynos have in common.
type Config struct {
	Instance  string       // our mark: at most 8 of [a-z0-9]
	Dir       string       // one directory per run below it; made if missing
	Pool      netip.Prefix // IPv4, at least a /28; each slot takes a /30
	UIDBase   uint32       // slot n owns the ids from UIDBase + n × 65,536
	Resolvers []netip.Addr // name servers dynos may ask; none on loopback

	// CgroupParent is the cgroup below which ours are made; it must exist, in
	// every hierarchy, and on v2 have no processes of its own. "" is the root.
	CgroupParent string

	// CPUCap is how many CPUs a share of a dyno's size may use at most, such as
	// 0.5, however idle the host is; at least 0.01. 0: there is no cap, shares
	// are weights.
	CPUCap float64

	// Spares is how many boxes are kept ready for starts to come. Each is a
	// PID 1 with nothing to run, some MiB of memory, and ends with this process.
	Spares int

	Log *slog.Logger
}

// Spec is one dyno to start.
type Spec struct {
	Run      string     // UUID; also the hostname
	Layers   []*os.File // detached image mounts, top first, for this start alone; Start does not close them
	Argv     []string   // Argv[0] is a path in the dyno
	Env      []string   // KEY=value; the app gets exactly these
	Dir      string     // working directory in the dyno; "/" where it does not exist
	Size     manifold.Size
	Stdin    *os.File      // nil: /dev/null
	Attach   *Attach       // the agent holds the app's standard streams: Box.Attached; Stdin must be nil
	Grace    time.Duration // between SIGTERM and SIGKILL
	TTL      time.Duration // ends the dyno by itself; 0: never
	LogLimit int64         // bytes of log kept on this host; 0: DefaultLogLimit
	Addr     netip.Addr    // the address it shall have if nobody else has it; none: any
}

// check refuses what would not be a box. The run becomes a path element, a
// cgroup's and a host's name.
func (s Spec) check() error {
	if len(s.Run) == 0 || len(s.Run) > 64 {
		return fmt.Errorf("run id %q must be 1 to 64 characters long", s.Run)
	}
	if strings.HasPrefix(s.Run, sparePrefix) {
		return fmt.Errorf("run id %q is a spare box's name", s.Run)
	}
	for _, c := range s.Run {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("run id %q may hold only a-z, 0-9 and dashes", s.Run)
		}
	}
	if len(s.Layers) == 0 || len(s.Layers) > 16 {
		return fmt.Errorf("%d layers: a root filesystem needs 1 to 16", len(s.Layers))
	}
	if s.Attach != nil && s.Stdin != nil {
		return errors.New("a dyno that is attached has no other standard input")
	}
	if len(s.Argv) == 0 || !strings.HasPrefix(s.Argv[0], "/") {
		return errors.New("the command must begin with an absolute path")
	}
	return checkSize(s.Size)
}

// checkSize refuses what no dyno could live in, and what would overflow on its
// way into the kernel.
func checkSize(s manifold.Size) error {
	for _, n := range []struct {
		what             string
		value, low, high int64
	}{
		{"memory, in bytes,", s.Memory, 4 << 20, 1 << 42},
		{"memory and swap, in bytes,", s.MemorySwap, s.Memory, 1 << 43},
		{"CPU shares", int64(s.Shares), 1, 1000},
		{"processes", int64(s.Processes), 4, 1 << 22},
		{"open files", int64(s.Files), 16, 1 << 20},
		{"bytes of the writable layer", s.Disk, 16 << 20, 1 << 42},
		{"inodes of the writable layer", s.Inodes, 1000, 1<<32 - 1},
	} {
		if n.value < n.low || n.value > n.high {
			return fmt.Errorf("size %q: %s must be from %d to %d, not %d", s.Name, n.what, n.low, n.high, n.value)
		}
	}
	return nil
}

// DefaultLogLimit bounds a dyno's log segments on its host.
const DefaultLogLimit = 16 << 20

// Exit is how a dyno ended.
type Exit struct {
	Status  int       // exit code of the app's first process, or 128 + signal
	OOM     bool      // the memory limit killed something in it
	Forced  bool      // SIGKILL was needed after Grace
	Expired bool      // TTL ended it
	At      time.Time // when its first process ended
	Lines   uint64    // log lines written
	Peak    int64     // the most RAM and swap it held, in bytes; 0 if not known
	Memory  *boot.OOM // OOM: where the memory went, if PID 1 saw the kill
}

var (
	// ErrNoRecord is Exit's answer when PID 1 could not write its record:
	// killed from the host, or the host went down.
	ErrNoRecord = errors.New("the dyno left no exit record")
	// ErrNoSlot is Start's answer when the pool is used up.
	ErrNoSlot = errors.New("no free slot: the address pool is used up (fewer dynos on this host, or a larger MANIFOLD_POOL)")
)
