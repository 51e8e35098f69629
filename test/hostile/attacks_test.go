package hostile

import (
	"time"
)

// attack is one mode of the attacker: what it tries, and how each attempt must
// be answered.
type attack struct {
	mode   string
	expect []expectation
	during func(*arena)  // a look at the host while it goes on
	most   time.Duration // until its log says what it must; 0: mostFor

	computes bool // more than anything else, it keeps the cores busy
}

// expectation is the only answer an attempt may get: a pattern of what the
// attacker says of it, or of what the platform says of the dyno.
type expectation struct {
	name     string
	by       string // what stops it
	want     string
	platform bool
	late     bool // said only when the dyno ends
}

func refused(by, want string, names ...string) (all []expectation) {
	for _, name := range names {
		all = append(all, expectation{name: name, by: by, want: want})
	}
	return all
}

// platformSays expects lines of the platform's own, under a process's name.
func platformSays(process, by string, want ...string) (all []expectation) {
	for _, w := range want {
		all = append(all, expectation{name: process, by: by, want: w, platform: true})
	}
	return all
}

func late(all []expectation) []expectation {
	for i := range all {
		all[i].late = true
	}
	return all
}

func join(lists ...[]expectation) (all []expectation) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

const (
	seccomp    = "seccomp list"
	noCaps     = "no capabilities"
	owner      = "files are root's"
	readOnly   = "read-only /proc, /sys"
	devices    = "minimal /dev"
	pidSpace   = "pid namespace"
	pids       = "pids limit"
	memory     = "memory limit"
	layer      = "quota of the writable layer"
	firewall   = "firewall"
	netSpace   = "network namespace"
	nsOwner    = "user namespace owns the network"
	everything = "EPERM"
)

var attacks = []attack{
	{mode: "calls", expect: join(
		refused(seccomp, everything, "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "bpf", "perf_event_open", "userfaultfd",
			"io_uring_setup", "keyctl", "add_key", "request_key", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module",
			"clock_settime", "settimeofday", "adjtimex", "reboot", "swapon", "acct", "syslog", "iopl", "ioperm", "modify_ldt", "personality",
			"ioctl TIOCSTI", "fanotify_init", "quotactl", "longer turns on the CPU"),
		refused(seccomp, "ENOSYS", "an unknown call", "asynchronous io (io_setup)"),
		refused(seccomp, "SIGSYS", "32-bit call", "x32 call"),
		refused(seccomp, "limit stays 1", "core dumps on"),
		refused(noCaps, "EPERM", "setuid root", "setgid root", "capset", "real-time priority", "real-time io", "more processes (setrlimit)"),
		refused(noCaps, "EACCES", "negative nice"),
	)},
	{mode: "mounts", expect: join(
		refused(seccomp, everything, "mount", "umount", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "mount_setattr", "open_by_handle_at",
			"unshare user", "unshare mount", "clone with a user namespace"),
		refused(seccomp, "ENOSYS", "clone3"),
		refused(seccomp, "EPERM|EACCES", "setns"),
		refused(readOnly, "EROFS|EACCES", "cgroup mount and release_agent"),
		refused("PID 1 is not dumpable", "EACCES", "out by /proc/1/root", "out by /proc/1/cwd"),
		refused("pivot_root", "/ is its own parent", "out by .."),
	)},
	{mode: "kernel", expect: join(
		refused(readOnly, "EACCES|EROFS|ENOENT", "core_pattern", "sysrq-trigger", "/proc/sys", "/sys"),
		refused(devices, "ENOENT|EACCES|EPERM", "kernel memory", "disks and devices"),
		refused("masked", "empty|ENOENT", "/proc/kcore", "/proc/keys"),
		refused("kptr_restrict", "zeros|EACCES|ENOENT|EPERM", "kernel addresses (kallsyms)"),
		refused(noCaps, "EPERM", "mknod of a disk", "mknod of a loop device", "mknod of kernel memory"),
		refused(noCaps, "EACCES", "less likely to be killed (oom_score_adj)"),
		refused("masked", "nothing", "names of host and neighbours in /sys"),
		refused("nosuid, no_new_privs", "the mount is nosuid", "setuid program"),
	)},
	{mode: "processes", expect: join(
		refused("PID 1 is root of the namespace", "EPERM", "PID 1: SIGKILL", "PID 1: SIGSTOP", "PID 1: SIGTERM", "PID 1: SIGKILL by pidfd", "PID 1: priority", "PID 1: limits"),
		refused("PID 1 is not dumpable", "EACCES|EPERM", "PID 1: memory", "PID 1: its program (/proc/1/exe)", "PID 1: its descriptors"),
		refused("sealed; the stack is read-only", "EROFS|ETXTBSY|EACCES", "the launcher's program (/proc/self/exe)"),
		refused(pidSpace, "ESRCH", "signal 0 to the host's processes"),
		refused(pidSpace, "only its own", "a process of somebody else in /proc"),
		refused("close-on-exec", "only its own", "a descriptor that leaked"),
	)},
	{mode: "files", expect: join(
		refused(owner, "EACCES|EXDEV|EPERM", "put another /app in place"),
		refused(owner, "EACCES", "a link in place of /etc/resolv.conf", "write /etc/passwd", "write the stack", "a file in /"),
		refused("outside of its root", "not in sight", "the exit record"),
		refused("a pipe, PID 1 writes", "ESPIPE", "the log segments"),
		refused("overlayfs", "refused or without effect", "overlay's own attributes"),
		refused("removed by image", "made; it goes with the layer", "a name of a thousand directories"),
	)},
	{mode: "network", expect: join(
		refused("(a control)", "SUCCEEDED", "the world outside (must work)"),
		refused(seccomp, "EAFNOSUPPORT", "packet socket (ARP)", "kernel crypto socket", "vsock to the hypervisor"),
		refused(noCaps, "EPERM", "raw socket", "ICMP socket", "transparent source (IP_TRANSPARENT)", "a static ARP entry", "another address (SIOCSIFADDR)",
			"another hardware address", "another address (netlink)", "a firewall of its own (netlink)"),
		refused("no such address here", "EINVAL|ENETUNREACH|EPERM|EADDRNOTAVAIL", "foreign source (IP_FREEBIND)"),
		refused(firewall, "no answer", "the metadata address", "services of the host", "the neighbour", "the host by UDP"),
		refused("no IPv6", "EADDRNOTAVAIL|ENETUNREACH|no answer|EACCES|EINVAL", "IPv6"),
		refused(netSpace, "ECONNREFUSED", "the host's abstract socket"),
	)},
	{mode: "fork-bomb", computes: true, expect: refused(pids, "EAGAIN at 2[0-9]+ processes or more", "fork-bomb")},
	{mode: "fork-setsid", computes: true, expect: refused(pids, "EAGAIN at 2[0-9]+ processes or more", "fork-setsid")},
	{mode: "zombies", computes: true, expect: refused(pids, "EAGAIN at 2[0-9]+ processes or more", "zombies")},
	{mode: "spin", computes: true, expect: refused("CPU shares", "spinning on 32 threads", "spin")},
	{mode: "memory-anon", expect: oom("memory-anon")},
	{mode: "memory-shared", expect: oom("memory-shared")},
	{mode: "queues", expect: oom("queues")},
	{mode: "memory-tmpfs", expect: join(
		refused("tmpfs size", "/dev/shm/x: ENOSPC at (63|64) MiB", "memory-tmpfs"),
		refused(owner, "(/dev/x|/sys/fs/cgroup/x|/run/x): (EACCES|EROFS|ENOENT)", "memory-tmpfs"),
	)},
	{mode: "page-cache", expect: refused(memory, "1 GiB written and read three times, alive", "page-cache")},
	{mode: "memory-pipes", expect: refused("pages of pipes a user", "EMFILE after [0-9]+ MiB", "memory-pipes")},
	{mode: "memory-sockets", expect: oom("memory-sockets")},
	{mode: "memory-tcp", expect: refused("TCP memory limit", "no more than [0-9]+ MiB in [0-9]+ connections", "memory-tcp")},
	{mode: "disk", expect: refused(layer, "/tmp/disk: ENOSPC at [34][0-9]{3} MiB", "disk")},
	{mode: "inodes", most: 2 * time.Minute, expect: refused(layer, "ENOSPC at [34][0-9]{2} thousand files", "inodes")},
	{mode: "fsync", expect: refused("a disk of its own", "a thousand done", "fsync")},
	{mode: "descriptors", expect: refused("open files", "EMFILE at (9|10)000", "descriptors")},
	{mode: "watches", expect: refused("inotify instances a user", "EMFILE at [0-9]+", "watches")},
	{mode: "connections", during: tracked, expect: refused("connection limits", "no answer after [0-9]+ hundred", "connections")},
	{mode: "datagrams", during: tracked, expect: refused("connection limits", "50000 sent", "datagrams")},
	{mode: "dns", during: tracked, expect: refused("connection limits", "50000 sent", "dns")},
	{mode: "stubborn", expect: join(
		refused("SIGKILL after the grace", "does not heed SIGTERM", "stubborn"),
		late(platformSays("stubborn.1", "SIGKILL after the grace", "Error R12 .*", "Process exited with status 137")),
	)},
	// Last: what they wrote goes on to fill the app's log for a while.
	{mode: "log-flood", expect: platformSays("logplex", "log limit", "Error L1[0-9].*dropped.*")},
	{mode: "log-lines", expect: platformSays("logplex", "log limit", "Error L1[0-9].*dropped.*")},
}

// oom is the end of a dyno that wants more than its memory and swap.
func oom(mode string) []expectation {
	return platformSays(mode+".1", memory, `Process running mem=15[0-9]{2}M\((29|30)[0-9]\.[0-9]%\)`, `Error R15 \(Memory quota vastly exceeded\)`,
		"Process exited with status 137", "State changed from (up|starting) to crashed")
}
