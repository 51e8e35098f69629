package isolation

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"manifold"
)

// boxRecord is box.json: all that must outlive the agent to know a run.
type boxRecord struct {
	Run    string        `json:"run"`
	Slot   slot          `json:"slot"`
	Size   manifold.Size `json:"size"`
	Cgroup string        `json:"cgroup,omitempty"` // its name in the instance's

	broken error // why there is no record on disk
}

// group is the name of the box's cgroup. Agents that did not know of spare
// boxes named it after the run.
func (r boxRecord) group() string { return cmp.Or(r.Cgroup, r.Run) }

// readRecord reads the record of the run whose directory has that name.
func (h *Host) readRecord(run string) (boxRecord, error) {
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

// runs lists the directories of runs.
func (h *Host) runs() ([]string, error) {
	entries, err := os.ReadDir(h.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), sparePrefix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// records are those of every run that has a directory or a cgroup.
func (h *Host) records() ([]boxRecord, error) {
	// Before the directories: one is there before its cgroup, and longer.
	groups, err := h.cgroups.names()
	if err != nil {
		return nil, err
	}
	runs, err := h.runs()
	if err != nil {
		return nil, err
	}
	var records []boxRecord
	known := map[string]bool{}
	for _, run := range runs {
		record, err := h.readRecord(run)
		if err != nil {
			record = boxRecord{Run: run, Slot: -1, broken: err}
		}
		known[record.group()] = true
		records = append(records, record)
	}
	for _, group := range groups {
		if !known[group] && !exists(filepath.Join(h.cfg.Dir, sparePrefix+group)) {
			records = append(records, orphan(group))
		}
	}
	return records, nil
}

// orphan is what is known of a cgroup that no record names.
func orphan(group string) boxRecord {
	s, err := parseSlot(group)
	if err != nil {
		s = -1 // an older agent's: named after its run
	}
	return boxRecord{Run: group, Slot: s, Cgroup: group, broken: errNoDirectory}
}

var errNoDirectory = errors.New("the run's directory is gone")

// findSlots finds out which slots are taken: by runs, by spare boxes, and by
// cgroups that no record names.
func (h *Host) findSlots() error {
	runs, err := h.runs()
	if err != nil {
		return err
	}
	take := func(s slot, owner string) {
		if h.used[s] == "" {
			h.used[s], h.last = owner, max(h.last, s)
		}
	}
	for _, run := range runs {
		if record, err := h.readRecord(run); err == nil {
			take(record.Slot, run)
		}
	}
	for _, s := range h.spareSlots() {
		take(s, s.spareName())
	}
	groups, err := h.cgroups.names()
	if err != nil {
		return err
	}
	for _, group := range groups {
		if s, err := parseSlot(group); err == nil {
			take(s, group)
		}
	}
	return nil
}

// take takes a slot for a spare box. Slots go round, so that an address is not
// used again while somebody may still remember who had it.
func (h *Host) take() (slot, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := slot(h.cfg.slots())
	for i := slot(1); i <= n; i++ {
		s := (h.last + i) % n
		if _, taken := h.used[s]; !taken {
			h.used[s], h.last = s.spareName(), s
			return s, nil
		}
	}
	return 0, ErrNoSlot
}

// takeAt takes the slot of an address for a spare box, if it is free.
func (h *Host) takeAt(addr netip.Addr) (slot, bool) {
	s, ok := h.cfg.slotOf(addr)
	if !ok {
		return 0, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, taken := h.used[s]; taken {
		return 0, false
	}
	h.used[s] = s.spareName()
	return s, true
}

// give makes a spare's slot a run's.
func (h *Host) give(s slot, run string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.used[s] = run
}

func (h *Host) release(s slot, owner string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.used[s] == owner {
		delete(h.used, s)
	}
}
