package why

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"manifold"
)

// Verdict is what the evidence comes to.
type Verdict struct {
	// Code is short and for programs: "oom", "host-oom", "R10", "R12", "exit",
	// "signal", "killed", "missing-command", "missing-library", "disk-full", "health",
	// "stopped", "done", "ttl", "launch", "output", "R13", "lost".
	Code  string   `json:"code"`
	First string   `json:"first"` // what ended it, in one line
	Means []string `json:"means"` // what that means and what to do
}

// Explain says what ended a run. Where causes overlap, the kernel's and the
// supervisor's numbers win over the app's status, and that over its words:
//
//	OOM kill ▶ R10, R12, time to live ▶ launch, output, lost ▶ told to stop
//	▶ disk full ▶ missing library ▶ missing command ▶ signal ▶ exit status
func Explain(r Run) Verdict {
	switch r.Result.Cause {
	case manifold.CauseOOM:
		return r.memory()
	case manifold.CauseBoot:
		return r.bootTimeout()
	case manifold.CauseR12:
		return r.exitTimeout()
	case manifold.CauseHealth:
		return r.health()
	case manifold.CauseR13:
		return verdict("R13", "R13: nobody came to attach to it, so it was not started",
			"The client of heroku run must connect within 30 seconds to the attach address ($MANIFOLD_ATTACH_ADDR): is that reachable from where it runs?")
	case manifold.CauseTTL:
		return verdict("ttl", "its time was up: a one-off may run only so long, and this one was told to end",
			"Builds end after MANIFOLD_BUILD_TIMEOUT, one-off dynos after a day.")
	case manifold.CauseLaunch:
		return verdict("launch", "it was never started: "+clip(r.Result.Detail, 300),
			"The box could not be built on this host: that is the platform's matter, not the app's. It is tried again.")
	case manifold.CauseOutput:
		return verdict("output", "the job did its work, but what it made could not be brought home: "+clip(r.Result.Detail, 300),
			"What a build leaves behind is checked before it is taken: size, kind, and that it is there.")
	case manifold.CauseLost:
		return r.lost()
	}
	if (r.End.OOMKills > 0 || r.End.Memory != nil) && r.Result.Status == 128+int(unix.SIGKILL) {
		return r.memory()
	}
	return r.ended()
}

func verdict(code, first string, means ...string) Verdict { return Verdict{code, first, means} }

// memory is an OOM kill: for the dyno's own limit, or for the host's need.
func (r Run) memory() Verdict {
	held := max(r.End.Peak, r.needed())
	if !r.End.Struck && r.End.Limit > 0 {
		means := []string{
			"The dyno was within its limits: the host as a whole (or the cgroup all dynos share) had no memory left, and the kernel chose this dyno.",
			fmt.Sprintf("Then the host had %s of RAM to give and %s of %s of swap free, and waited for memory %s.",
				size(r.Host.Available), size(r.Host.SwapFree), size(r.Host.SwapTotal), percent(r.Host.Pressure[1].Avg60, "of a minute")),
		}
		if len(r.Others) > 0 {
			var list []string
			for _, n := range r.Others {
				list = append(list, n.Name+" "+size(n.Memory))
			}
			means = append(means, "The dynos with the most memory then: "+strings.Join(list, ", ")+".")
		}
		return verdict("host-oom", fmt.Sprintf("host pressure: the host ran out of memory and the kernel killed this dyno, which held only %s of the %s it may",
			size(held), size(r.End.Limit)), append(means, "Give the host more RAM or swap, or fewer dynos (manifold host drain).")...)
	}
	first := fmt.Sprintf("OOM (R15): it used all the memory its size may (%s has %s of RAM, %s with swap) and was killed",
		r.Size.Name, size(r.Size.Memory), size(r.Size.MemorySwap))
	if held > 0 {
		first += "; it held " + size(held)
	}
	if stat := r.memoryStat(); stat != "" {
		first += ": " + stat
	}
	if big := r.biggest(); big != "" {
		first += "; biggest: " + big
	}
	return verdict("oom", first,
		"Everything in the dyno was killed at once and it is started anew. A leak shows as growth in the samples below; a dyno that needs this much from the start needs a larger size (heroku ps:resize).",
		"Many workers or threads each take their share: WEB_CONCURRENCY and the like divide it.")
}

// needed is the most that was seen of it.
func (r Run) needed() (most int64) {
	for _, s := range r.Trail {
		most = max(most, s.Needed())
	}
	return most
}

// memoryStat says where the memory was when the limit struck.
func (r Run) memoryStat() string {
	if r.End.Memory == nil {
		return ""
	}
	stat := map[string]int64{}
	for line := range strings.Lines(r.End.Memory.Stats["memory.stat"]) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		stat[key], _ = strconv.ParseInt(value, 10, 64)
	}
	if len(stat) == 0 {
		return ""
	}
	swap := stat["swap"] // v1; on v2 a file of its own
	if text, ok := r.End.Memory.Stats["memory.swap.current"]; ok {
		swap, _ = strconv.ParseInt(text, 10, 64)
	}
	return fmt.Sprintf("anon %s, file %s, swap %s", size(cmp.Or(stat["anon"], stat["rss"])), size(cmp.Or(stat["file"], stat["cache"])), size(swap))
}

func (r Run) biggest() string {
	var list []string
	if r.End.Memory != nil {
		for _, p := range r.End.Memory.Biggest {
			if p.RSS+p.Swap > 0 && len(list) < 3 {
				list = append(list, fmt.Sprintf("%s (pid %d) %s", clip(p.Name, 32), p.PID, size(p.RSS+p.Swap)))
			}
		}
	}
	return strings.Join(list, ", ")
}

func (r Run) bootTimeout() Verdict {
	port := strconv.Itoa(r.Port)
	first := fmt.Sprintf("R10: it did not listen on $PORT (%s) within %s and was killed", port, seconds(r.Boot))
	var wrong []string
	if r.Before != nil {
		for _, l := range r.Before.Listeners {
			if !strings.HasSuffix(l, ":"+port) || strings.HasPrefix(l, "127.") || strings.HasPrefix(l, "[::1]") {
				wrong = append(wrong, l)
			}
		}
		switch {
		case len(wrong) > 0:
			first += "; it listens on " + strings.Join(wrong[:min(3, len(wrong))], ", ") + " instead"
		case len(r.Before.Listeners) == 0:
			first += "; nothing in it listens"
		}
	}
	means := []string{"A web process must listen on 0.0.0.0:$PORT (or [::]:$PORT). Not on a number of its own, and not on 127.0.0.1, which only the dyno itself reaches."}
	if r.starved() {
		first += "; it was short of CPU"
		means = append(means, fmt.Sprintf("It waited for CPU %s (the host %s): it may only have been too slow. Fewer dynos on this host, or a larger size.",
			percent(r.End.Pressure[0].Avg60, "of its last minute"), percent(r.Host.Pressure[0].Avg60, "")))
	}
	if r.Disk.Full() {
		means = append(means, "Its disk is full, too.")
	}
	return verdict("R10", first, append(means, "If it needs longer to start: heroku's limit is the same; MANIFOLD_BOOT_TIMEOUT changes it for all.")...)
}

func (r Run) health() Verdict {
	first := "health check: " + clip(r.Result.Detail, 300) + "; it was restarted"
	if r.starved() {
		first += "; it was short of CPU"
	}
	return verdict("health", first,
		"The app asks for this check ("+manifold.HealthCheckVar+"): a dyno that works answers it with a status from 200 to 399, in time. The log says so each time it did not.",
		"A page that asks a database or another app fails with it, and a restart mends nothing: let it answer for the dyno alone.",
		"It had "+seconds(r.Grace)+" from SIGTERM to finish, and ended so: "+statusWord(r.Result.Status)+".")
}

// starved says whether it waited for CPU for most of its last minute.
func (r Run) starved() bool { return r.End.Pressure[0].Avg60 > 60 }

func (r Run) exitTimeout() Verdict {
	first := fmt.Sprintf("R12: it did not end within %s of SIGTERM and was killed", seconds(r.Grace))
	if r.Before != nil && len(r.Before.Processes) > 0 {
		var list []string
		for _, p := range r.Before.Processes[:min(3, len(r.Before.Processes))] {
			list = append(list, fmt.Sprintf("%s (pid %d)", clip(p.Command, 32), p.DynoPID))
		}
		first += "; still there: " + strings.Join(list, ", ")
	}
	return verdict("R12", first,
		"Every process in the dyno got SIGTERM. One that ignores it, or a shell that waits for a child that does, is killed at the end of the grace: finish requests, close connections and exit when it comes.",
		who(r)+" asked for the stop.")
}

func who(r Run) string {
	if r.Withdrawn {
		return "The coordinator (a release, a restart, scaling down or cycling)"
	}
	return "This host (teardown, or somebody at its door)"
}

func (r Run) lost() Verdict {
	if r.HostLost {
		return verdict("lost", "the host went down under it (reboot, power)", "That is not the app's fault: it is started again at once.")
	}
	return verdict("lost", "it vanished without an exit record: its PID 1 was killed from outside the dyno",
		"Nothing in a dyno can kill its PID 1. Root on this host did, or the host's OOM killer; see the kernel's log (dmesg -T) and the audit log.")
}

// ended is an end of the app's own.
func (r Run) ended() Verdict {
	status := r.Result.Status
	if r.Stopped {
		return verdict("stopped", fmt.Sprintf("it was told to stop and ended in time (%s)", statusWord(status)), who(r)+" asked for the stop.")
	}
	if status != 0 {
		if v, ok := r.diskFull(); ok {
			return v
		}
		if lib, ok := r.hint(missingLibrary); ok {
			return verdict("missing-library", fmt.Sprintf("missing library: the dynamic linker did not find %s (%s)", lib, statusWord(status)),
				"The program was built against a library that the stack does not have. Put it into the slug (and LD_LIBRARY_PATH), link it in, or build on the app's own stack: heroku-buildpack-apt and the like do the first.")
		}
	}
	switch {
	case status == 127:
		return r.missingCommand()
	case status == 126:
		return verdict("missing-command", "the command is there but cannot be executed (exit 126): "+r.lastWords(),
			"Is its file executable (git update-index --chmod=+x), and made for this machine (amd64)?")
	case status > 128 && status <= 128+64:
		return r.signal(syscall.Signal(status - 128))
	case r.Kind == manifold.KindOneOff && status == 0:
		return verdict("done", "it did its work and exited with status 0")
	}
	first := fmt.Sprintf("exit %d: the app ended by itself", status)
	if words := r.lastWords(); words != "" {
		first += `; its last line: "` + words + `"`
	}
	means := []string{"Its own code decided so; the last lines below say more."}
	if status == 0 {
		means = []string{"A dyno of a formation is expected to stay: any end of it is a crash, with status 0 too. Should it run once, it is a one-off: heroku run."}
	}
	return verdict("exit", first, means...)
}

// diskFull is an app that failed when something had no room left.
func (r Run) diskFull() (Verdict, bool) {
	_, said := r.hint(noSpace)
	switch {
	case r.Disk.Full():
		return verdict("disk-full", fmt.Sprintf("disk full: its private disk has %s of %s and %d of %d inodes free (%s)",
			size(r.Disk.BytesFree), size(r.Disk.Bytes), r.Disk.InodesFree, r.Disk.Inodes, statusWord(r.Result.Status)),
			"All that a dyno writes counts: logs in files, uploads, caches in /tmp. It is gone at the next start, so a restart helps for a while. Log to standard output, and keep files elsewhere."), true
	case said && r.Host.DiskFree > 0 && r.Host.DiskFree < 64<<20:
		return verdict("disk-full", fmt.Sprintf("disk full: the host has only %s left where the dynos' disks are (%s)", size(r.Host.DiskFree), statusWord(r.Result.Status)),
			"That is the operator's matter: make room in $MANIFOLD_HOME."), true
	case said:
		return verdict("disk-full", fmt.Sprintf("disk full: it said so (%s), though its private disk has %s free now: /dev/shm, or it cleaned up",
			statusWord(r.Result.Status), size(r.Disk.BytesFree)), "Its last lines say what it wrote."), true
	}
	return Verdict{}, false
}

func (r Run) missingCommand() Verdict {
	name, ok := r.hint(missingCommand)
	if !ok {
		name, ok = r.hint(missingFile)
	}
	first := "missing command: the shell did not find what it was to run (exit 127)"
	if ok {
		first = fmt.Sprintf("missing command: %q was not found (exit 127)", clip(name, 64))
	}
	return verdict("missing-command", first,
		"The Procfile's command was: "+clip(r.Command, 200),
		"Is it in the slug and on $PATH? heroku run bash -a "+r.AppName+" shows what the dyno sees.")
}

// aboutSignals says what some signals mean.
var aboutSignals = map[syscall.Signal]string{
	unix.SIGSEGV: "a segmentation fault: it touched memory that is not its own. A fault in native code or a native extension, or a stack that ran over",
	unix.SIGBUS:  "a bus error: often a mapped file that was cut short, or a full /dev/shm",
	unix.SIGABRT: "it aborted itself: a failed assertion, or a runtime that gave up",
	unix.SIGFPE:  "an arithmetic error, such as a division by zero",
	unix.SIGILL:  "an instruction this CPU does not have, or damaged code",
	unix.SIGSYS:  "a system call that dynos may not make",
	unix.SIGXFSZ: "a file that grew past its limit",
	unix.SIGPIPE: "it wrote to a pipe or socket nobody reads any more",
}

func (r Run) signal(s syscall.Signal) Verdict {
	name := unix.SignalName(s)
	if name == "" {
		name = "signal " + strconv.Itoa(int(s))
	}
	if about, ok := aboutSignals[s]; ok {
		return verdict("signal", fmt.Sprintf("%s: it was ended by signal %d, %s", name, int(s), about),
			"Dynos write no core dumps. The last lines below may say where it happened.")
	}
	return verdict("killed", fmt.Sprintf("killed from inside: a process of the dyno sent it %s (status %d); neither the agent nor a memory limit did", name, 128+int(s)),
		"A process manager, a timeout or a script in the app did it: look for kill in it. (Root on this host could have done it too; nobody else can reach into a dyno.)")
}

func statusWord(status int) string {
	if status > 128 && status <= 128+64 {
		if name := unix.SignalName(syscall.Signal(status - 128)); name != "" {
			return name
		}
	}
	return "exit " + strconv.Itoa(status)
}

// size writes bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GB", n>>30)
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%d MB", n>>20)
	}
	return fmt.Sprintf("%d kB", n>>10)
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + " s" }

func percent(share float64, of string) string {
	return strings.TrimSpace(fmt.Sprintf("%.0f %% %s", share, of))
}
