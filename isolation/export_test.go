package isolation

// SetFault has f called between the steps of each start.
func (h *Host) SetFault(f func(point string)) { h.fault = f }

// PID is PID 1's process id on the host.
func (b *Box) PID() int { return b.pid }
