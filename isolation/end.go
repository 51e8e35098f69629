package isolation

import (
	"fmt"
	"path/filepath"
	"strings"

	"manifold/isolation/boot"
)

// End is what the kernel still knows of a dyno that has ended, until Remove.
type End struct {
	OOMKills int       `json:"oom_kills,omitempty"` // by the dyno's limit or the host's
	Struck   bool      `json:"struck,omitempty"`    // the dyno had reached its own limit: else a kill was for the host's sake
	Peak     int64     `json:"peak,omitempty"`      // the most RAM and swap it held, bytes
	Limit    int64     `json:"limit,omitempty"`     // of both, bytes
	Pressure [3]Stall  `json:"pressure"`            // cpu, memory, io
	Memory   *boot.OOM `json:"memory,omitempty"`    // where it was, if PID 1 saw the kill
}

// End reads it.
func (b *Box) End() End {
	t, group := b.host.cgroups, b.record.group()
	e := End{OOMKills: t.ooms(group), Peak: t.peak(group), Limit: b.record.Size.MemorySwap}
	e.Struck, _ = t.struck(group)
	app := filepath.Join(t.dir(group), "app")
	for i, name := range []string{"cpu", "memory", "io"} {
		e.Pressure[i] = stall(filepath.Join(app, name+".pressure"))
	}
	if x, err := b.Exit(); err == nil {
		e.Memory = x.Memory
	}
	return e
}

// struck says whether the run ever reached its own memory limit, as long as
// its cgroups are there to be asked. On v1 that is a peak next to the limit of
// RAM (which swap comes behind) or of both: the kernel charges in batches of
// some pages.
func (t *cgroupTree) struck(group string) (struck, known bool) {
	v1 := t.v1Memory(group)
	if v1 == "" {
		events, err := readKeys(filepath.Join(t.dir(group), "app", boot.Events))
		return events["oom"] > 0, err == nil
	}
	for _, name := range []string{"memory", "memory.memsw"} {
		peak, err := readNumber(filepath.Join(v1, name+".max_usage_in_bytes"))
		limit, limitErr := readNumber(filepath.Join(v1, name+".limit_in_bytes"))
		if err == nil && limitErr == nil {
			struck, known = struck || peak > limit-1<<20, true
		}
	}
	return struck, known
}

// Stall is the share of time, in percent, in which some process waited (PSI,
// Documentation/accounting/psi.rst), over the last 10, 60 and 300 seconds.
type Stall struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
}

// HostPressure is the whole host's: cpu, memory, io.
func HostPressure() (p [3]Stall) {
	for i, name := range []string{"cpu", "memory", "io"} {
		p[i] = stall("/proc/pressure/" + name)
	}
	return p
}

func stall(path string) (s Stall) {
	text, err := readSmall(path)
	if err != nil {
		return s
	}
	line, _, _ := strings.Cut(text, "\n")
	_, _ = fmt.Sscanf(line, "some avg10=%f avg60=%f avg300=%f", &s.Avg10, &s.Avg60, &s.Avg300)
	return s
}
