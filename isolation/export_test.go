package isolation

// SetFault has f called between the steps of each start.
func (h *Host) SetFault(f func(point string)) { h.fault = f }
