package doctor

import (
	"fmt"
	"strings"

	"manifold/isolation"
)

// links compares the links of our name with the slots in use.
func links(f Facts) (found []Finding) {
	used, have := map[int]isolation.RunTrace{}, map[int]bool{}
	for _, t := range f.Traces.Runs {
		if t.Slot >= 0 {
			used[t.Slot] = t
		}
	}
	for _, l := range f.Traces.Links {
		have[l.Slot] = true
		if l.Slot < 0 {
			found = append(found, Finding{Check: "link-foreign", Subject: l.Name, Level: Risk,
				What: fmt.Sprintf("link %s is named like ours and is not", l.Name),
				Why:  "the firewall takes what comes by it for a dyno's", Do: "rename it (ip link set dev " + l.Name + " name …)"})
		} else if _, ok := used[l.Slot]; !ok {
			found = append(found, Finding{Check: "link-left-over", Subject: l.Name, Level: Fault,
				What: fmt.Sprintf("link %s belongs to no run", l.Name),
				Why:  "its address is in the way of the next dyno in this slot", Do: "remove it: manifold host doctor --fix",
				Mend: mend(isolation.MendLink, l.Name)})
		}
	}
	byRun := f.byRun()
	for s, t := range used {
		if r, known := byRun[t.Run]; known && t.PID1 != 0 && held(r.State) && !have[s] {
			found = append(found, Finding{Check: "link-missing", Subject: t.Run, Level: Fault,
				What: fmt.Sprintf("%s has no link to this host", r.name()),
				Why:  "it reaches nobody, and no request reaches it", Do: "restart it: manifold host restart " + r.Assignment})
		}
	}
	return found
}

func loops(f Facts) (found []Finding) {
	runs := map[string]bool{}
	for _, t := range f.Traces.Runs {
		runs[t.Run] = t.Dir
	}
	for _, l := range f.Traces.Loops {
		if !runs[l.Run] {
			found = append(found, Finding{Check: "loop-left-over", Subject: l.Device, Level: Fault,
				What: fmt.Sprintf("loop device %s holds the writable layer of run %s, which is gone", l.Device, l.Run),
				Why:  "the disk space of the layer is not given back", Do: "free it: manifold host doctor --fix",
				Mend: mend(isolation.MendLoop, l.Device)})
		}
	}
	return found
}

func mounts(f Facts) (found []Finding) {
	for _, m := range f.Traces.Mounts {
		found = append(found, Finding{Check: "mount-left-over", Subject: m, Level: Fault,
			What: "something is mounted at " + m,
			Why:  "dynos' filesystems are mounted in their own namespaces only; the run below cannot be removed",
			Do:   "unmount it: manifold host doctor --fix", Mend: mend(isolation.MendMount, m)})
	}
	return found
}

func firewall(f Facts) []Finding {
	if len(f.Traces.Firewall) == 0 || len(f.Records)+len(f.Traces.Runs) == 0 && !f.Agent.Alive {
		return nil
	}
	what := "our firewall table is not loaded"
	if f.Traces.Firewall[0] != "table" {
		what = "our firewall table is not whole: chains " + strings.Join(f.Traces.Firewall, ", ")
	}
	return []Finding{{Check: "firewall", Subject: "table", Level: Fault, What: what,
		Why:  "dynos may reach each other, this host and its cloud's secrets, or nobody at all",
		Do:   "load it anew: manifold host doctor --fix (connections that are open go on)",
		Mend: mend(isolation.MendFirewall, "table")}}
}

func forwarding(f Facts) (found []Finding) {
	for link, on := range f.Traces.Forwarding {
		if !on && f.Agent.Alive {
			found = append(found, Finding{Check: "forwarding", Subject: link, Level: Fault,
				What: fmt.Sprintf("the kernel does not forward what comes in by %s", link),
				Why:  "answers from the world do not reach dynos", Do: "restart the agent, which switches it on; find out who switched it off (sysctl net.ipv4.conf." + link + ".forwarding)"})
		}
	}
	return found
}

// strays tells of processes under dynos' user ids, a finding for each cgroup.
func strays(f Facts) (found []Finding) {
	seen := map[string]bool{}
	for _, s := range f.Traces.Strays {
		if seen[s.Cgroup] {
			continue
		}
		seen[s.Cgroup] = true
		found = append(found, Finding{Check: "user-ids-shared", Subject: s.Cgroup, Level: Fault,
			What: fmt.Sprintf("process %d runs under user id %d, which is a dyno's, in the cgroup %s", s.PID, s.UID, s.Cgroup),
			Why:  "it may signal, trace and read the dyno with the same ids", Do: "end it, or give one of the two other ids: MANIFOLD_UID_BASE of this instance or the other"})
	}
	return found
}

func subUIDs(f Facts) (found []Finding) {
	for _, r := range f.SubUIDs {
		if r.First < f.UIDs.First+f.UIDs.Count && f.UIDs.First < r.First+r.Count {
			found = append(found, Finding{Check: "user-ids-delegated", Subject: r.Owner, Level: Risk,
				What: fmt.Sprintf("/etc/subuid gives %s the user ids %d to %d, which dynos use", r.Owner, r.First, r.First+r.Count-1),
				Why:  "processes of that user may get a dyno's ids", Do: "change the range there, or MANIFOLD_UID_BASE here"})
		}
	}
	return found
}
