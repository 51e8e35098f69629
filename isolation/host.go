package isolation

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"manifold"
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
	launcher  *os.File
	filter    []byte // seccomp program
	templates sync.Mutex
	cloning   sync.Mutex

	mu    sync.Mutex
	used  map[slot]string // slot → run
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
	if err := cfg.overlap(); err != nil {
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
	h := &Host{cfg: cfg, cgroups: tree, filter: seccompFilter(), used: map[slot]string{}, last: slot(rand.IntN(cfg.slots()))} // an agent before this one may just have given the first away
	if err := h.findSlots(); err != nil {
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
	return h, nil
}

// Close lets go of the host. Dynos go on.
func (h *Host) Close() error { return h.launcher.Close() }

// Teardown takes away what Open made, when no boxes are left: the firewall
// table, the forwarding it switched on, cgroups and templates.
func (h *Host) Teardown() error {
	runs, err := h.runs()
	if err != nil {
		return err
	}
	if len(runs) > 0 {
		return fmt.Errorf("%d dynos are still on this host", len(runs))
	}
	templates, _ := filepath.Glob(filepath.Join(h.cfg.Dir, "template-*.img"))
	var errs []error
	for _, t := range templates {
		errs = append(errs, os.Remove(t))
	}
	return errors.Join(append(errs, h.cfg.removeFirewall(), h.unforward(), h.cgroups.removeAll())...)
}

// boxRecord is box.json: all that must outlive the agent to know a run.
type boxRecord struct {
	Run  string        `json:"run"`
	Slot slot          `json:"slot"`
	Size manifold.Size `json:"size"`
}

// runs lists every run that has a directory or a cgroup of ours.
func (h *Host) runs() (map[string]bool, error) {
	found := map[string]bool{}
	entries, err := os.ReadDir(h.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			found[e.Name()] = true
		}
	}
	names, err := h.cgroups.runs()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		found[name] = true
	}
	return found, nil
}

func (h *Host) findSlots() error {
	runs, err := h.runs()
	if err != nil {
		return err
	}
	for run := range runs {
		if record, err := h.record(run); err == nil {
			h.used[record.Slot] = run
			h.last = max(h.last, record.Slot)
		}
	}
	return nil
}

func (h *Host) record(run string) (boxRecord, error) {
	var record boxRecord
	data, err := os.ReadFile(filepath.Join(h.cfg.Dir, run, boxName))
	if err != nil {
		return record, err
	}
	if err := json.Unmarshal(data, &record); err != nil {
		return record, fmt.Errorf("read %s of run %s: %w", boxName, run, err)
	}
	if record.Run != run || record.Slot < 0 || int(record.Slot) >= h.cfg.slots() {
		return record, fmt.Errorf("%s of run %s is not of this instance", boxName, run)
	}
	return record, nil
}

// take gives run a slot: the one of the address asked for if it is free, else
// any. Slots go round, so that an address is not used again while somebody may
// still remember who had it.
func (h *Host) take(run string, addr netip.Addr) (slot, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := slot(h.cfg.slots())
	if s, ok := h.cfg.slotOf(addr); ok {
		if _, taken := h.used[s]; !taken {
			h.used[s] = run
			return s, nil
		}
	}
	for i := slot(1); i <= n; i++ {
		s := (h.last + i) % n
		if _, taken := h.used[s]; !taken {
			h.used[s], h.last = run, s
			return s, nil
		}
	}
	return 0, ErrNoSlot
}

func (h *Host) release(s slot, run string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.used[s] == run {
		delete(h.used, s)
	}
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
