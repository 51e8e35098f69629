package isolation

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Names in a run's directory.
const (
	boxName     = "box.json"
	scratchName = "scratch.img"
	pid1Name    = "pid1"
)

// Host makes and finds the boxes of one instance on this machine. It is safe
// for concurrent use; only one process at a time may hold a Host for the same
// instance (the agent sees to that).
type Host struct {
	cfg       Config
	cgroups   *cgroupTree
	spares    *spares
	launcher  *os.File
	filter    []byte // seccomp program
	templates sync.Mutex
	cloning   sync.Mutex

	mu    sync.Mutex
	used  map[slot]string // slot → run, spare or cgroup that has it
	last  slot            // handed out last; the search goes on behind it
	boxes sync.WaitGroup  // watchers of running boxes

	// fault is called between the steps of a start: tests have this process
	// die there. Nil outside tests.
	fault func(point string)
}

func (h *Host) reach(point string) {
	if h.fault != nil {
		h.fault(point)
	}
}

// Open prepares the host: directories, firewall table, forwarding, the sealed
// PID 1. Boxes that are there already are not touched.
func Open(cfg Config) (*Host, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if err := errors.Join(cfg.overlap(), checkLoops()); err != nil {
		return nil, err
	}
	// PID 1 reaches its directory by descriptor only; nobody else on the host
	// has business here.
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of runs: %w", err)
	}
	tree, err := findCgroups(cfg.CgroupParent, cfg.Instance)
	if err != nil {
		return nil, err
	}
	tree.cpuCap = cfg.CPUCap
	h := &Host{cfg: cfg, cgroups: tree, filter: seccompFilter(), used: map[slot]string{}, last: slot(rand.IntN(cfg.slots()))} // an agent before this one may just have given the first away
	if err := errors.Join(h.sweep(), h.findSlots()); err != nil {
		return nil, err
	}
	if err := cfg.applyFirewall(); err != nil {
		return nil, fmt.Errorf("%w (is nf_tables in this kernel?)", err)
	}
	if err := h.forward(); err != nil {
		return nil, err
	}
	if h.launcher, err = sealLauncher(); err != nil {
		return nil, err
	}
	if warning := SwapWarning(hostSwap()); warning != "" {
		cfg.Log.Warn(warning)
	}
	if why := tree.unshared(cfg.Dir); why != "" {
		cfg.Log.Info("disk time is not shared among dynos by weight", "why", why)
	}
	h.spares = newSpares(h, cfg.Spares)
	return h, nil
}

// Close lets go of the host. Dynos go on, spare boxes end.
func (h *Host) Close() error {
	h.spares.close()
	return h.launcher.Close()
}

// Teardown takes away what Open made, when no boxes are left: the firewall
// table, the forwarding it switched on, cgroups and templates.
func (h *Host) Teardown() error {
	h.spares.close()
	left, err := h.records()
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("%d dynos are still on this host", len(left))
	}
	templates, _ := filepath.Glob(filepath.Join(h.cfg.Dir, "template-*.img"))
	var errs []error
	for _, t := range templates {
		errs = append(errs, os.Remove(t))
	}
	return errors.Join(append(errs, h.cfg.removeFirewall(), h.unforward(), h.cgroups.removeAll())...)
}

// forward lets the kernel forward packets that come in by the uplinks, which
// answers to dynos do, and remembers which of them did not before.
func (h *Host) forward() error {
	links, err := uplinks()
	if err != nil {
		return err
	}
	for _, link := range links {
		file := "/proc/sys/net/ipv4/conf/" + link + "/forwarding"
		now, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read forwarding of %s: %w", link, err)
		}
		if strings.TrimSpace(string(now)) == "1" {
			continue
		}
		mark := filepath.Join(h.cfg.Dir, "forwarding-"+link)
		if err := os.WriteFile(mark, nil, 0o600); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte("1"), 0); err != nil {
			return fmt.Errorf("switch on forwarding of %s: %w", link, err)
		}
	}
	return nil
}

func (h *Host) unforward() error {
	marks, _ := filepath.Glob(filepath.Join(h.cfg.Dir, "forwarding-*"))
	var errs []error
	for _, mark := range marks {
		link := strings.TrimPrefix(filepath.Base(mark), "forwarding-")
		err := os.WriteFile("/proc/sys/net/ipv4/conf/"+link+"/forwarding", []byte("0"), 0)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // the link is gone
		}
		errs = append(errs, err, os.Remove(mark))
	}
	return errors.Join(errs...)
}
