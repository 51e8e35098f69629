package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	nowhere  = ^uintptr(0)         // a pointer that no kernel follows
	nobody   = uintptr(0x7fffffff) // a process id that nobody has
	nonsense = uintptr(0xdead)
)

// calls are system calls that an app has no business making. Their arguments
// are such that the kernel refuses them later on, if it does not at once.
var calls = []attempt{
	call("ptrace", unix.SYS_PTRACE, unix.PTRACE_ATTACH, nobody),
	call("process_vm_readv", unix.SYS_PROCESS_VM_READV, nobody),
	call("process_vm_writev", unix.SYS_PROCESS_VM_WRITEV, nobody),
	call("pidfd_getfd", unix.SYS_PIDFD_GETFD, nowhere),
	call("kcmp", unix.SYS_KCMP, nobody, nobody),
	call("bpf", unix.SYS_BPF, nonsense),
	call("perf_event_open", unix.SYS_PERF_EVENT_OPEN, nowhere),
	call("userfaultfd", unix.SYS_USERFAULTFD, nonsense),
	call("io_uring_setup", unix.SYS_IO_URING_SETUP, 0, nowhere),
	call("keyctl", unix.SYS_KEYCTL, nonsense),
	call("add_key", unix.SYS_ADD_KEY, nowhere),
	call("request_key", unix.SYS_REQUEST_KEY, nowhere),
	call("kexec_load", unix.SYS_KEXEC_LOAD, 0, 1000, nowhere),
	call("kexec_file_load", unix.SYS_KEXEC_FILE_LOAD, nowhere, nowhere),
	call("init_module", unix.SYS_INIT_MODULE, nowhere, 0, nowhere),
	call("finit_module", unix.SYS_FINIT_MODULE, nowhere),
	call("delete_module", unix.SYS_DELETE_MODULE, nowhere),
	call("clock_settime", unix.SYS_CLOCK_SETTIME, nonsense, nowhere),
	call("settimeofday", unix.SYS_SETTIMEOFDAY, nowhere),
	call("adjtimex", unix.SYS_ADJTIMEX, nowhere),
	call("reboot", unix.SYS_REBOOT, nonsense),
	call("swapon", unix.SYS_SWAPON, nowhere),
	call("acct", unix.SYS_ACCT, nowhere),
	call("syslog", unix.SYS_SYSLOG, 3, nowhere, 1),
	call("iopl", unix.SYS_IOPL, 4),
	call("ioperm", unix.SYS_IOPERM, nowhere, 1, 1),
	call("modify_ldt", unix.SYS_MODIFY_LDT, nonsense),
	call("personality", unix.SYS_PERSONALITY, 0x0008), // 32 bit
	call("ioctl TIOCSTI", unix.SYS_IOCTL, 0, unix.TIOCSTI, nowhere),
	call("fanotify_init", unix.SYS_FANOTIFY_INIT, nonsense),
	call("quotactl", unix.SYS_QUOTACTL, nonsense, nowhere),
	call("an unknown call", 9999),
	call("asynchronous io (io_setup)", unix.SYS_IO_SETUP, 60_000, nowhere),
	{"setuid root", func() string { _, _, e := syscall.RawSyscall(unix.SYS_SETUID, 0, 0, 0); return errnoName(e) }},
	{"setgid root", func() string { _, _, e := syscall.RawSyscall(unix.SYS_SETGID, 0, 0, 0); return errnoName(e) }},
	{"capset", capset},
	{"real-time priority", realTime},
	{"longer turns on the CPU", func() string {
		return answer(unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Runtime: 100e6}, 0))
	}},
	call("negative nice", unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, ^uintptr(19)),
	call("real-time io", unix.SYS_IOPRIO_SET, 1, 0, 1<<13),
	{"more processes (setrlimit)", func() string {
		return answer(unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}))
	}},
	{"core dumps on", coreDumps},
	{"32-bit call", func() string { return foreign("int80") }},
	{"x32 call", func() string { return foreign("x32") }},
}

func capset() string {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: 1 << unix.CAP_SYS_ADMIN, Permitted: 1 << unix.CAP_SYS_ADMIN}}
	return answer(unix.Capset(&header, &data[0]))
}

func realTime() string {
	priority := int32(1)
	_, _, errno := syscall.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, 1, uintptr(unsafe.Pointer(&priority))) // SCHED_FIFO
	return errnoName(errno)
}

// coreDumps tries for a core limit at which the kernel would feed a core dump
// to a handler of the host's (core(5)): any but 1, which it takes for none.
func coreDumps() string {
	for _, n := range []uint64{0, unix.RLIM_INFINITY} {
		_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: n, Max: n})
		_ = unix.Prlimit(0, unix.RLIMIT_CORE, &unix.Rlimit{Cur: n, Max: n}, nil)
		var now unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &now); err != nil {
			return err.Error()
		}
		if now.Cur != 1 {
			return fmt.Sprintf("SUCCEEDED with a limit of %d", now.Cur)
		}
	}
	return "limit stays 1"
}

// children are what this program is when it starts itself.
var children = map[string]func(){
	"child-int80": func() { int80(); fmt.Println("SUCCEEDED") },
	"child-x32": func() {
		_, _, errno := syscall.RawSyscall(0x40000000+unix.SYS_GETPID, 0, 0, 0)
		fmt.Println(errnoName(errno))
	},
}

// foreign makes a call in a form that ends the process.
func foreign(how string) string {
	out, err := exec.Command("/proc/self/exe", "child-"+how).Output()
	if err == nil {
		return string(out)
	}
	var exit *exec.ExitError
	if e, ok := err.(*exec.ExitError); ok {
		exit = e
		if s := exit.Sys().(syscall.WaitStatus); s.Signaled() {
			return unix.SignalName(s.Signal())
		}
	}
	return err.Error()
}

// mounts are ways out of the root filesystem and into other namespaces.
var mounts = []attempt{
	call("mount", unix.SYS_MOUNT, nowhere, nowhere, nowhere),
	call("umount", unix.SYS_UMOUNT2, nowhere),
	call("pivot_root", unix.SYS_PIVOT_ROOT, nowhere, nowhere),
	call("chroot", unix.SYS_CHROOT, nowhere),
	call("open_tree", unix.SYS_OPEN_TREE, nowhere, nowhere),
	call("move_mount", unix.SYS_MOVE_MOUNT, nowhere, nowhere),
	call("fsopen", unix.SYS_FSOPEN, nowhere),
	call("mount_setattr", unix.SYS_MOUNT_SETATTR, nowhere, nowhere),
	call("open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, nowhere, nowhere),
	call("unshare user", unix.SYS_UNSHARE, unix.CLONE_NEWUSER),
	call("unshare mount", unix.SYS_UNSHARE, unix.CLONE_NEWNS),
	call("clone with a user namespace", unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD)),
	call("clone3", unix.SYS_CLONE3, nowhere, nonsense),
	{"setns", func() string {
		fd, err := unix.Open("/proc/1/ns/mnt", unix.O_RDONLY, 0)
		if err != nil {
			fd, err = unix.Open("/proc/self/ns/net", unix.O_RDONLY, 0)
		}
		if err != nil {
			return answer(err)
		}
		defer unix.Close(fd)
		return answer(unix.Setns(fd, 0))
	}},
	{"cgroup mount and release_agent", func() string {
		if err := os.WriteFile("/sys/fs/cgroup/release_agent", nil, 0); err == nil {
			return "SUCCEEDED"
		}
		if err := os.Mkdir("/sys/fs/cgroup/x", 0o755); err != nil {
			return answer(err)
		}
		return "SUCCEEDED in making a cgroup"
	}},
	{"out by /proc/1/root", func() string { _, err := os.ReadDir("/proc/1/root/"); return answer(err) }},
	{"out by /proc/1/cwd", func() string { _, err := os.ReadDir("/proc/1/cwd/"); return answer(err) }},
	{"out by ..", func() string {
		dir, err := os.Open("/")
		if err != nil {
			return answer(err)
		}
		defer dir.Close()
		var here, above unix.Stat_t
		if err := unix.Fstat(int(dir.Fd()), &here); err != nil {
			return answer(err)
		}
		if err := unix.Fstatat(int(dir.Fd()), "../../../..", &above, 0); err != nil {
			return answer(err)
		}
		if here.Dev == above.Dev && here.Ino == above.Ino {
			return "/ is its own parent"
		}
		return "SUCCEEDED"
	}},
}
