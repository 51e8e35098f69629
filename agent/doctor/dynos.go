package doctor

import (
	"fmt"
	"sort"
	"strings"

	"github.com/google/uuid"

	"manifold/isolation"
	"manifold/supervisor"
)

// records looks at what the agent wrote about its dynos.
func records(f Facts) (found []Finding) {
	traces := map[string]isolation.RunTrace{}
	for _, t := range f.Traces.Runs {
		traces[t.Run] = t
	}
	for _, r := range f.Records {
		switch {
		case r.Aside:
			found = append(found, Finding{Check: "record-set-aside", Subject: r.Assignment, Level: Risk,
				What: fmt.Sprintf("a record that could not be used was set aside: %s", r.Error),
				Why:  "its dyno was started anew if it was still wanted; the file only waits for somebody to look at it",
				Do:   "look at it if you want to know what happened to it, then remove it"})
		case r.Error != "":
			found = append(found, Finding{Check: "record-broken", Subject: r.Assignment, Level: Fault,
				What: fmt.Sprintf("the record of assignment %s cannot be used: %s", r.Assignment, r.Error),
				Why:  "the next agent does not know this dyno: it ends its processes and starts it anew if it is still wanted",
				Do:   "nothing, if that is all right; else stop the agent and repair the file before it starts"})
		case held(r.State) && traces[r.Run].PID1 == 0 && r.Boot == f.Boot:
			found = append(found, Finding{Check: "dyno-gone", Subject: r.Run, Level: Fault,
				What: fmt.Sprintf("%s is recorded as %s, but its run %s has no processes", r.name(), r.State, r.Run),
				Why:  "users are promised a dyno that is not there" + agentOwes(f, "; the agent should have seen its end"),
				Do:   ifAlive(f, "restart the agent: it adopts what is there and starts what is not (dynos run on meanwhile)", "start the agent: it starts the dyno again")})
		case held(r.State) && r.Boot != f.Boot && !f.Agent.Alive:
			found = append(found, Finding{Check: "dyno-before-boot", Subject: r.Run, Level: Fault,
				What: fmt.Sprintf("%s ran before this host was started, and was not started again", r.name()),
				Why:  "users are promised a dyno that is not there", Do: "start the agent: it starts the dyno again"})
		case r.State == supervisor.Crashed && r.Crashes >= 5:
			found = append(found, Finding{Check: "dyno-crash-loop", Subject: r.Assignment, Level: Risk,
				What: fmt.Sprintf("%s crashed %d times in a row", r.name(), r.Crashes),
				Why:  "the app does not run, and is tried again at growing intervals only",
				Do:   fmt.Sprintf("see why: manifold host why %s", r.Assignment)})
		}
	}
	return append(found, images(f)...)
}

// images looks for slugs and stacks that a dyno would need to start again.
func images(f Facts) (found []Finding) {
	if f.Images == nil {
		return nil
	}
	missing := map[string][]string{}
	for _, r := range f.Records {
		for _, d := range r.Digests {
			if r.Error == "" && held(r.State) && !f.Images[d] {
				missing[d] = append(missing[d], r.name())
			}
		}
	}
	for digest, names := range missing {
		sort.Strings(names)
		found = append(found, Finding{Check: "image-missing", Subject: digest, Level: Risk,
			What: fmt.Sprintf("image %.19s… of %s is not on this host any more", digest, strings.Join(names, ", ")),
			Why:  "what runs goes on, but starts again only when the coordinator can send the image",
			Do:   "nothing while the coordinator is there: the image is fetched at the next start"})
	}
	return found
}

// held says whether a state promises processes.
func held(s supervisor.State) bool {
	switch s {
	case supervisor.Booting, supervisor.Overdue, supervisor.Up, supervisor.Ailing, supervisor.Stopping:
		return true
	}
	return false
}

func agentOwes(f Facts, text string) string { return ifAlive(f, text, "") }

func ifAlive(f Facts, alive, dead string) string {
	if f.Agent.Alive {
		return alive
	}
	return dead
}

// runs looks for directories and cgroups that no record names, and for such
// that are not what their record says.
func runs(f Facts) (found []Finding) {
	byRun := f.byRun()
	for _, t := range f.Traces.Runs {
		r, known := byRun[t.Run]
		switch {
		case t.Spare: // an agent's that runs, or the next one removes it
		case !known && (t.Dir || t.Slot < 0) && uuid.Validate(t.Run) != nil:
			found = append(found, Finding{Check: "run-foreign", Subject: t.Run, Level: Risk,
				What: fmt.Sprintf("%q lies among our runs and is none of ours", t.Run),
				Why:  "the agent ends and removes what lies there and no record names, when it starts",
				Do:   "move it away if it is yours"})
		case !known:
			found = append(found, leftOver(f, t))
		case t.PID1 != 0 && !t.Dir:
			found = append(found, Finding{Check: "run-without-directory", Subject: t.Run, Level: Fault,
				What: fmt.Sprintf("%s runs, but the directory of its run %s is gone", r.name(), t.Run),
				Why:  "its log lines are lost, and its end will have no exit record", Do: "restart it: manifold host restart " + r.Assignment})
		case t.PID1 != 0 && t.Broken != "":
			found = append(found, Finding{Check: "box-broken", Subject: t.Run, Level: Fault,
				What: fmt.Sprintf("box.json of %s cannot be used: %s", r.name(), t.Broken),
				Why:  "nobody can tell its slot: its user ids and address may be given to another dyno", Do: "restart it: manifold host restart " + r.Assignment})
		case t.PID1 != 0:
			found = append(found, limits(r, t)...)
		}
	}
	return found
}

func leftOver(f Facts, t isolation.RunTrace) Finding {
	var parts []string
	if t.Dir {
		parts = append(parts, "a directory")
	}
	if t.Cgroup {
		parts = append(parts, fmt.Sprintf("a cgroup with %d processes", t.Processes))
	}
	x := Finding{Check: "run-left-over", Subject: t.Run, Level: Fault,
		What: fmt.Sprintf("run %s has %s, and no record names it", t.Run, strings.Join(parts, " and ")),
		Why:  "it holds a slot, disk and perhaps memory that nobody will give back",
		Do:   "take it away: manifold host doctor --fix", Mend: mend(isolation.MendRun, t.Run)}
	if t.Processes > 0 && !f.Agent.Alive {
		// Its record may be what is broken, and users served.
		x.Do, x.Mend = "start the agent: it ends processes that no record names", nil
	}
	return x
}

// limits compares those in force with the size's.
func limits(r Record, t isolation.RunTrace) (found []Finding) {
	const page = 64 << 10 // the kernel rounds to its pages
	if t.Memory != 0 && t.Size.MemorySwap != 0 && (t.Memory > t.Size.MemorySwap || t.Memory < t.Size.MemorySwap-page) {
		found = append(found, Finding{Check: "limit-memory", Subject: t.Run, Level: Fault,
			What: fmt.Sprintf("%s may use %d MiB of RAM and swap where its size says %d MiB", r.name(), t.Memory>>20, t.Size.MemorySwap>>20),
			Why:  "somebody changed its cgroup: it may be killed too early, or take its neighbours' memory", Do: "restart it: manifold host restart " + r.Assignment})
	}
	if t.Pids != 0 && t.Size.Processes != 0 && t.Pids != int64(t.Size.Processes) {
		found = append(found, Finding{Check: "limit-processes", Subject: t.Run, Level: Fault,
			What: fmt.Sprintf("%s may have %d processes where its size says %d", r.name(), t.Pids, t.Size.Processes),
			Why:  "somebody changed its cgroup", Do: "restart it: manifold host restart " + r.Assignment})
	}
	return found
}

// slots looks for two runs with the same user ids and address.
func slots(f Facts) (found []Finding) {
	owner := map[int]isolation.RunTrace{}
	for _, t := range f.Traces.Runs {
		if t.Slot < 0 {
			continue
		}
		other, taken := owner[t.Slot]
		if !taken {
			owner[t.Slot] = t
			continue
		}
		found = append(found, Finding{Check: "slot-shared", Subject: fmt.Sprint(t.Slot), Level: Fault,
			What: fmt.Sprintf("runs %s and %s both have slot %d", other.Run, t.Run, t.Slot),
			Why:  "they share user ids, address and link: each can reach into the other, and only one has a network",
			Do:   "stop both dynos, each with: manifold host stop RUN"})
	}
	return found
}

// frozen looks for dynos that nobody will thaw.
func frozen(f Facts) (found []Finding) {
	byRun := f.byRun()
	for _, t := range f.Traces.Runs {
		r, known := byRun[t.Run]
		until, ordered := f.Frozen[t.Run]
		if !known || !t.Frozen || t.PID1 == 0 || ordered && f.Now.Before(until) {
			continue
		}
		what := fmt.Sprintf("%s is frozen, and nobody ordered it", r.name())
		if ordered {
			what = fmt.Sprintf("%s is frozen past its limit (%s)", r.name(), until.Format("15:04:05"))
		}
		found = append(found, Finding{Check: "frozen", Subject: t.Run, Level: Fault, What: what,
			Why: "none of its processes does anything, and a web dyno's requests wait", Do: "thaw it: manifold host doctor --fix",
			Mend: mend(isolation.MendFreeze, t.Run)})
	}
	return found
}
