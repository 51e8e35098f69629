// Package doctor compares what a host's records say with what the kernel
// says, and tells people what does not fit, why it matters and what to do.
//
// It compares and nothing else: facts go in, findings come out. It must never
// look at the host or change it; whoever calls it gathers the facts and, if
// told to, does the mendings.
package doctor

import (
	"cmp"
	"slices"
	"time"

	"manifold/isolation"
	"manifold/supervisor"
)

// Facts are one look at one host. A part that could not be looked at is zero
// and has an entry in Blind.
type Facts struct {
	Now      time.Time
	Boot     string   // the host's life
	Agent    Agent    // the daemon
	Records  []Record // what the agent knows of each assignment
	Traces   isolation.Traces
	Frozen   map[string]time.Time // run → when it is to be thawed
	Images   map[string]bool      // digest → it is on this host
	SubUIDs  []Range              // of other users, subuid(5)
	UIDs     Range                // of this instance
	Memory   Memory
	Pressure map[string]Pressure // "cpu", "memory", "io"
	Clock    Clock
	Disks    []Disk
	Blind    map[string]string // what could not be looked at → why
}

// Agent is how the daemon does.
type Agent struct {
	Alive    bool      // a process holds the home's lock
	Answers  bool      // on its socket
	Error    string    // why it does not, or what /healthz complains of
	Joined   bool      // it has an identity
	Drained  time.Time // since when this host is to be emptied; zero: it is not
	Settings string    // why the settings it left cannot be read; then the environment's are used
}

// Record is a dyno's record, or why there is none to use.
type Record struct {
	Assignment string
	App, Dyno  string
	Digests    []string // of its images
	Run        string
	State      supervisor.State
	Boot       string
	Since      time.Time
	Crashes    int
	Error      string // it cannot be used
	Aside      bool   // an agent set it aside
}

// Range is some user ids, from First, Count of them.
type Range struct {
	Owner        string
	First, Count int64
}

// Memory is the host's, in bytes (proc(5), meminfo).
type Memory struct{ Total, Available, SwapTotal, SwapFree int64 }

// Pressure is how much of the last minute was lost to waiting, in percent
// (PSI, avg60).
type Pressure struct{ Some, Full float64 }

// Clock is what the kernel says of its clock (adjtimex(2)).
type Clock struct {
	Unsynchronized bool
	Newest         time.Time // of what the agent wrote: it is in the past unless the clock was set back
}

// Disk is a filesystem of ours.
type Disk struct {
	Path               string
	Bytes, FreeBytes   int64
	Inodes, FreeInodes int64 // 0: it does not count them
}

// Level says how bad a finding is.
type Level string

// The levels.
const (
	Fault Level = "fault" // something is broken now
	Risk  Level = "risk"  // nothing is broken yet
)

// Finding is one thing that does not fit.
type Finding struct {
	Check   string             `json:"check"`   // "link-left-over"
	Subject string             `json:"subject"` // what it is about: a run, a link, a path
	Level   Level              `json:"level"`
	What    string             `json:"what"`
	Why     string             `json:"why"`
	Do      string             `json:"do"`
	Mend    *isolation.Mending `json:"mend,omitempty"` // what --fix would do; only for what carries our mark
}

// Examine returns all findings: faults first, and always in the same order.
func Examine(f Facts) []Finding {
	var all []Finding
	for _, check := range []func(Facts) []Finding{
		blind, agent, records, runs, slots, links, loops, mounts, firewall, forwarding,
		strays, subUIDs, frozen, swap, pressure, clock, disks, diskTime,
	} {
		all = append(all, check(f)...)
	}
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Level, b.Level), cmp.Compare(a.Check, b.Check), cmp.Compare(a.Subject, b.Subject))
	})
	return all
}

// Lasting keeps the findings of a second look that were there at the first:
// what is only on its way is not a fault.
func Lasting(first, second []Finding) []Finding {
	seen := map[[2]string]bool{}
	for _, f := range first {
		seen[[2]string{f.Check, f.Subject}] = true
	}
	return slices.DeleteFunc(slices.Clone(second), func(f Finding) bool { return !seen[[2]string{f.Check, f.Subject}] })
}

// Faults counts them.
func Faults(findings []Finding) (n int) {
	for _, f := range findings {
		if f.Level == Fault {
			n++
		}
	}
	return n
}

// byRun finds the records that name a run.
func (f Facts) byRun() map[string]Record {
	all := map[string]Record{}
	for _, r := range f.Records {
		if r.Run != "" && r.Error == "" {
			all[r.Run] = r
		}
	}
	return all
}

// name is how people know a record's dyno.
func (r Record) name() string { return r.App + " " + r.Dyno }

// mend says what --fix would do.
func mend(what isolation.MendKind, name string) *isolation.Mending {
	return &isolation.Mending{What: what, Name: name}
}
