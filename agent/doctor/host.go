package doctor

import (
	"fmt"
	"time"

	"manifold/isolation"
)

func blind(f Facts) (found []Finding) {
	for what, why := range f.Blind {
		found = append(found, Finding{Check: "blind", Subject: what, Level: Risk,
			What: fmt.Sprintf("%s could not be looked at: %s", what, why),
			Why:  "faults there do not show", Do: "run as root, on the host itself; if it stays, report it with: manifold host bundle"})
	}
	return found
}

func agent(f Facts) (found []Finding) {
	a := f.Agent
	switch {
	case !a.Alive:
		found = append(found, Finding{Check: "agent-down", Subject: "agent", Level: Fault,
			What: "no agent runs on this host",
			Why:  "dynos run on and serve, but one that ends is not started again, and nothing changes",
			Do:   "start it: systemctl start manifold-agent, or manifold run; its log says why it ended"})
	case !a.Answers:
		found = append(found, Finding{Check: "agent-silent", Subject: "agent", Level: Fault,
			What: "the agent runs but does not answer as it should: " + a.Error,
			Why:  "it may hang: then a dyno that ends is not started again",
			Do:   "make a bundle (manifold host bundle), then restart the agent; dynos go on meanwhile"})
	}
	if a.Alive && !a.Joined {
		found = append(found, Finding{Check: "agent-not-joined", Subject: "agent", Level: Fault,
			What: "this host has not joined a coordinator",
			Why:  "it is given no dynos", Do: "print a token (manifold-coordinator join-token) and put it into MANIFOLD_JOIN_TOKEN_FILE"})
	}
	if !a.Drained.IsZero() {
		found = append(found, Finding{Check: "draining", Subject: "host", Level: Risk,
			What: "this host is being drained since " + a.Drained.Format(time.DateTime),
			Why:  "no new dynos are placed on it, and new releases wait where it is the only one", Do: "when you are done: manifold host undrain"})
	}
	if a.Settings != "" {
		found = append(found, Finding{Check: "agent-settings", Subject: "agent", Level: Risk,
			What: "the settings the last agent ran with are not known: " + a.Settings,
			Why:  "this examination uses the environment's, which may be others", Do: "start the agent once"})
	}
	return found
}

func swap(f Facts) (found []Finding) {
	if warning := isolation.SwapWarning(f.Traces.Swap); warning != "" && f.Memory.Total > 0 {
		found = append(found, Finding{Check: "swap-small", Subject: "swap", Level: Risk,
			What: fmt.Sprintf("this host has %d MiB of swap, too little for one dyno", f.Traces.Swap>>20),
			Why:  warning, Do: "add swap: man mkswap, man swapon"})
	} else if m := f.Memory; m.SwapTotal > 0 && m.SwapFree < m.SwapTotal/20 {
		found = append(found, Finding{Check: "swap-full", Subject: "swap", Level: Risk,
			What: fmt.Sprintf("of %d MiB of swap %d MiB are free", m.SwapTotal>>20, m.SwapFree>>20),
			Why:  "a dyno over its quota is killed before it has all it may use", Do: "see who uses it (manifold host ps), add swap or move dynos"})
	}
	if m := f.Memory; m.Total > 0 && m.Available < m.Total/20 {
		found = append(found, Finding{Check: "memory-low", Subject: "memory", Level: Risk,
			What: fmt.Sprintf("of %d MiB of memory %d MiB are available", m.Total>>20, m.Available>>20),
			Why:  "the kernel is about to kill processes of the host's choosing", Do: "see who uses it (manifold host ps), drain this host or add memory"})
	}
	return found
}

func diskTime(f Facts) (found []Finding) {
	if f.Traces.Unshared != "" {
		found = append(found, Finding{Check: "disk-unshared", Subject: "disk", Level: Risk,
			What: "disk time is not shared among dynos by weight: " + f.Traces.Unshared,
			Why:  "a dyno that reads and writes without end slows down the others",
			Do:   "for a disk that is slower than its dynos: echo bfq > /sys/block/DISK/queue/scheduler (docs/hosts.md); a fast one needs none"})
	}
	return found
}

// From these shares of a minute on people notice (PSI, avg60, percent).
const (
	pressureSome = 40
	pressureFull = 10
)

func pressure(f Facts) (found []Finding) {
	for what, p := range f.Pressure {
		// All of a host waiting for CPU is no such thing.
		if p.Some < pressureSome && (p.Full < pressureFull || what == "cpu") {
			continue
		}
		found = append(found, Finding{Check: "pressure-" + what, Subject: what, Level: Risk,
			What: fmt.Sprintf("in %.0f%% of the last minute something waited for %s, in %.0f%% everything did", p.Some, what, p.Full),
			Why:  "dynos are slower than they could be, and may miss their boot timeout (R10)",
			Do:   "see which dynos press (manifold host ps), drain this host or give it more"})
	}
	return found
}

func clock(f Facts) (found []Finding) {
	if f.Clock.Unsynchronized {
		found = append(found, Finding{Check: "clock-unsynchronized", Subject: "clock", Level: Risk,
			What: "nobody keeps this host's clock right",
			Why:  "log lines of several hosts come out of order, and certificates may be refused", Do: "run an NTP client: apt-get install systemd-timesyncd"})
	}
	if ahead := f.Clock.Newest.Sub(f.Now); ahead > time.Minute {
		found = append(found, Finding{Check: "clock-set-back", Subject: "clock", Level: Risk,
			What: fmt.Sprintf("records of dynos are %s in the future: the clock was set back", ahead.Round(time.Second)),
			Why:  "crashed dynos wait longer for their next try", Do: "check the clock (date); manifold host restart brings a dyno back at once"})
	}
	return found
}

func disks(f Facts) (found []Finding) {
	for _, d := range f.Disks {
		if d.Bytes > 0 && (d.FreeBytes < d.Bytes/20 || d.FreeBytes < 1<<30) {
			found = append(found, Finding{Check: "disk-space", Subject: d.Path, Level: level(d.FreeBytes < 64<<20),
				What: fmt.Sprintf("of %d MiB for %s %d MiB are free", d.Bytes>>20, d.Path, d.FreeBytes>>20),
				Why:  "dynos' writable layers are promised more than there is: their writes, log lines and records fail",
				Do:   "make room, or move the directory to a bigger disk; manifold host autopsy lists what is kept of dead dynos"})
		}
		if d.Inodes > 0 && (d.FreeInodes < d.Inodes/20 || d.FreeInodes < 1000) {
			found = append(found, Finding{Check: "disk-inodes", Subject: d.Path, Level: level(d.FreeInodes < 100),
				What: fmt.Sprintf("of %d inodes for %s %d are free", d.Inodes, d.Path, d.FreeInodes),
				Why:  "no new dyno can be started without", Do: "remove small files, or move the directory to another disk"})
		}
	}
	return found
}

func level(fault bool) Level {
	if fault {
		return Fault
	}
	return Risk
}
