package isolation

// SetFault has f called between the steps of each start.
func (h *Host) SetFault(f func(point string)) { h.fault = f }

// PID is PID 1's process id on the host.
func (b *Box) PID() int { return b.pid }

// Group is the name of its cgroup.
func (b *Box) Group() string { return b.record.group() }

// Alive is whether the spare box of that slot is there and its PID 1 runs.
func (h *Host) Alive(slot string) bool {
	h.spares.mu.Lock()
	defer h.spares.mu.Unlock()
	for _, s := range h.spares.ready {
		if s.box.record.Slot.String() == slot {
			return s.alive()
		}
	}
	return false
}

// Ready is how many spare boxes are ready.
func (h *Host) Ready() int {
	h.spares.mu.Lock()
	defer h.spares.mu.Unlock()
	return len(h.spares.ready)
}
