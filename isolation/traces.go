package isolation

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"manifold"
)

// Traces is all that one instance has, or seems to have, on this host: what
// the kernel and the directory of runs say, without asking the agent.
type Traces struct {
	Runs       []RunTrace
	Links      []LinkTrace
	Loops      []LoopTrace
	Mounts     []string        // mount points below Config.Dir that this process sees; there should be none
	Strays     []Stray         // processes under our user ids, outside our cgroups
	Firewall   []string        // chains of our table that are missing or not whole; "table" if it is not there
	Forwarding map[string]bool // uplink → does the kernel forward what comes in by it
	Swap       int64           // bytes the host has
	Unshared   string          // why disk time is not shared by weight; "": it is, or nobody can tell
}

// RunTrace is what is there of one run.
type RunTrace struct {
	Run       string
	Spare     bool          // it is none yet: a box that an agent keeps ready, or left
	Dir       bool          // it has a directory
	Broken    string        // why box.json cannot be used; then Slot is -1
	Slot      int           // which says user ids, address and link
	Size      manifold.Size // from box.json
	Cgroup    bool          // it has a cgroup
	PID1      int           // 0: none
	Processes int           // in its cgroups, PID 1 included
	Frozen    bool
	Memory    int64 // the limit of RAM and swap that is in force, in bytes; 0: cannot be read
	Pids      int64 // the limit of processes that is in force; 0: cannot be read
}

// LinkTrace is a link whose name begins with ours.
type LinkTrace struct {
	Name string
	Slot int // -1: the name, the kind or the address is not one of ours
}

// LoopTrace is a loop device whose file is, or was, in the directory of runs.
type LoopTrace struct {
	Device string // "/dev/loop7"
	File   string
	Run    string // whose file it is
}

// Stray is a process under a user id of ours that is in no cgroup of ours.
type Stray struct {
	PID, UID int
	Cgroup   string
}

// FindTraces looks at the host and changes nothing. It needs no Host, so it
// works beside a running agent and without one. What changes while it looks
// may be seen half: what matters is there when it looks again.
func FindTraces(cfg Config) (Traces, error) {
	var t Traces
	h, err := bare(cfg)
	if err != nil {
		return t, err
	}
	steps := []struct {
		what string
		look func() error
	}{
		{"runs", func() (err error) { t.Runs, err = h.runTraces(); return }},
		{"links", func() (err error) { t.Links, err = cfg.linkTraces(); return }},
		{"firewall", func() (err error) { t.Firewall, err = cfg.firewallGaps(); return }},
		{"forwarding", func() (err error) { t.Forwarding, err = forwarding(); return }},
		{"mounts", func() (err error) { t.Mounts, err = mountsBelow(cfg.Dir); return }},
		{"processes", func() (err error) { t.Strays, err = h.strays(); return }},
	}
	for _, s := range steps {
		if err := s.look(); err != nil {
			return t, fmt.Errorf("look for %s: %w", s.what, err)
		}
	}
	t.Loops, t.Swap, t.Unshared = loopsBelow(cfg.Dir), hostSwap(), h.cgroups.unshared(cfg.Dir)
	return t, nil
}

// bare is a Host for looking: nothing is prepared.
func bare(cfg Config) (*Host, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	tree, err := findCgroups(cfg.CgroupParent, cfg.Instance)
	if err != nil {
		return nil, err
	}
	return &Host{cfg: cfg, cgroups: tree, used: map[slot]string{}}, nil
}

func (h *Host) runTraces() ([]RunTrace, error) {
	if _, err := os.Stat(h.cfg.Dir); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	records, err := h.records()
	if err != nil {
		return nil, err
	}
	for _, s := range h.spareSlots() {
		records = append(records, boxRecord{Run: s.spareName(), Slot: s, Cgroup: s.String()})
	}
	var all []RunTrace
	for _, record := range records {
		group := record.group()
		t := RunTrace{
			Run: record.Run, Slot: int(record.Slot), Size: record.Size, Spare: strings.HasPrefix(record.Run, sparePrefix),
			Dir: exists(filepath.Join(h.cfg.Dir, record.Run)), Cgroup: exists(h.cgroups.dir(group)),
			PID1: h.cgroups.initPID(group), Processes: h.cgroups.population(group),
		}
		if record.broken != nil {
			t.Broken = record.broken.Error()
		}
		t.Frozen, _ = h.box(record).Frozen()
		t.Memory, t.Pids = h.cgroups.limits(group)
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b RunTrace) int { return strings.Compare(a.Run, b.Run) })
	return all, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// population counts the processes in a run's cgroups.
func (t *cgroupTree) population(group string) (n int) {
	for _, name := range []string{"", "init", "app"} {
		text, err := readSmall(filepath.Join(t.dir(group), name, "cgroup.procs"))
		if err == nil {
			n += strings.Count(text, "\n")
		}
	}
	return n
}

// limits are those in force, 0 where they cannot be read.
func (t *cgroupTree) limits(group string) (memory, pids int64) {
	app := filepath.Join(t.dir(group), "app")
	if v1 := t.v1Memory(group); v1 != "" {
		memory, _ = readNumber(filepath.Join(v1, "memory.memsw.limit_in_bytes"))
		pids, _ = readNumber(filepath.Join(t.v1Dir(cgroup1.Pids, group), "pids.max"))
		return memory, pids
	}
	ram, err := readNumber(filepath.Join(app, "memory.max"))
	swap, err2 := readNumber(filepath.Join(app, "memory.swap.max"))
	if err == nil && (err2 == nil || errors.Is(err2, os.ErrNotExist)) {
		memory = ram + swap
	}
	pids, _ = readNumber(filepath.Join(app, "pids.max"))
	return memory, pids
}

// linkTraces lists the links named like ours. Ours are veth pairs named after
// a slot, with the slot's address or, for a moment, none.
func (cfg Config) linkTraces() ([]LinkTrace, error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	var found []LinkTrace
	for _, l := range links {
		name := l.Attrs().Name
		number, ours := strings.CutPrefix(name, cfg.linkPrefix())
		if !ours {
			continue
		}
		t := LinkTrace{Name: name, Slot: -1}
		n, err := strconv.Atoi(number)
		if err == nil && n >= 0 && n < cfg.slots() && slot(n).link(cfg) == name && l.Type() == "veth" && cfg.addressed(l, slot(n)) {
			t.Slot = n
		}
		found = append(found, t)
	}
	return found, nil
}

func (cfg Config) addressed(l netlink.Link, s slot) bool {
	addrs, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_V4) })
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP.To4()); !ok || ip != s.hostAddr(cfg) {
			return false
		}
	}
	return err == nil
}

// firewallGaps compares our table with what applyFirewall would load.
func (cfg Config) firewallGaps() ([]string, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	want, err := cfg.ruleset(c) // never flushed
	if err != nil {
		return nil, err
	}
	look, err := nftables.New()
	if err != nil {
		return nil, err
	}
	chains, err := look.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, err
	}
	have := map[string]int{}
	for _, chain := range chains {
		if chain.Table.Name != cfg.Instance {
			continue
		}
		rules, err := look.GetRules(chain.Table, chain)
		if err != nil {
			return nil, err
		}
		have[chain.Name] = len(rules)
	}
	if len(have) == 0 {
		return []string{"table"}, nil
	}
	var gaps []string
	for name, n := range want.rules {
		if got, ok := have[name]; !ok || got != n {
			gaps = append(gaps, name)
		}
	}
	slices.Sort(gaps)
	return gaps, nil
}

func forwarding() (map[string]bool, error) {
	links, err := uplinks()
	if err != nil {
		return nil, err
	}
	all := map[string]bool{}
	for _, link := range links {
		now, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + link + "/forwarding")
		if err != nil {
			return nil, err
		}
		all[link] = strings.TrimSpace(string(now)) == "1"
	}
	return all, nil
}

// loopsBelow lists the loop devices of files below dir, also of such that were
// removed since (the kernel then adds a word to the name).
func loopsBelow(dir string) []LoopTrace {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var found []LoopTrace
	for _, f := range files {
		text, err := readSmall(f)
		file := strings.TrimSuffix(strings.TrimSuffix(text, "\n"), " (deleted)")
		rest, ours := strings.CutPrefix(file, dir+"/")
		run, name, _ := strings.Cut(rest, "/")
		if err != nil || !ours || name != scratchName {
			continue
		}
		device := "/dev/" + strings.Split(f, "/")[3]
		found = append(found, LoopTrace{Device: device, File: file, Run: run})
	}
	return found
}

// mountsBelow lists the mount points below dir (proc(5), mountinfo). Those of
// dynos are in their own namespaces.
func mountsBelow(dir string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := unescape.Replace(fields[4])
		if strings.HasPrefix(point, dir+"/") {
			found = append(found, point)
		}
	}
	return found, nil
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// strays looks through /proc for processes under user ids of ours.
func (h *Host) strays() ([]Stray, error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	first, last := int(h.cfg.UIDBase), slot(h.cfg.slots()).uid(h.cfg)
	var found []Stray
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		uid := processUID(pid)
		if uid < first || uid >= last {
			continue
		}
		text, err := readSmall("/proc/" + d.Name() + "/cgroup")
		_, cgroup, ok := strings.Cut("\n"+text, "\n0::")
		if err != nil || !ok {
			continue // it has ended
		}
		cgroup, _, _ = strings.Cut(cgroup, "\n")
		if !strings.HasPrefix(cgroup, h.cgroups.own+"/") {
			found = append(found, Stray{PID: pid, UID: uid, Cgroup: cgroup})
		}
	}
	return found, nil
}

// processUID is a process's real user id, or -1.
func processUID(pid int) int {
	text, err := readSmall("/proc/" + strconv.Itoa(pid) + "/status")
	_, ids, ok := strings.Cut(text, "\nUid:\t")
	if err != nil || !ok {
		return -1
	}
	real, _, _ := strings.Cut(ids, "\t")
	uid, err := strconv.Atoi(real)
	if err != nil {
		return -1
	}
	return uid
}
