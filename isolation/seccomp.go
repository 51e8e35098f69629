package isolation

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// What of the kernel an app may call (seccomp(2)). The list is what programs
// need, by purpose; the kernel lets calls that are always allowed pass without
// running the filter. A call that is on no list is answered ENOSYS, so that a
// newer C library falls back to what it did before; one that is refused on
// purpose is answered EPERM, so that its caller is not misled. A call in a
// foreign form (32 bit, x32) ends the process: no compiler of the stack makes
// them, and they would pass by every check here.

// group is some system calls and why they are where they are.
type group struct {
	why   string
	calls []uint32
}

var allowed = []group{
	{"files and directories, bounded by permissions and the private layer", []uint32{
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_OPEN, unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_CREAT, unix.SYS_CLOSE, unix.SYS_CLOSE_RANGE,
		unix.SYS_STAT, unix.SYS_FSTAT, unix.SYS_LSTAT, unix.SYS_NEWFSTATAT, unix.SYS_STATX, unix.SYS_STATFS, unix.SYS_FSTATFS,
		unix.SYS_LSEEK, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREADV, unix.SYS_PWRITEV, unix.SYS_PREADV2, unix.SYS_PWRITEV2,
		unix.SYS_ACCESS, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_DUP, unix.SYS_DUP2, unix.SYS_DUP3, unix.SYS_FCNTL, unix.SYS_FLOCK,
		unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNC_FILE_RANGE, unix.SYS_SYNCFS, unix.SYS_TRUNCATE, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE,
		unix.SYS_GETDENTS, unix.SYS_GETDENTS64, unix.SYS_GETCWD, unix.SYS_CHDIR, unix.SYS_FCHDIR,
		unix.SYS_RENAME, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_MKDIR, unix.SYS_MKDIRAT, unix.SYS_RMDIR,
		unix.SYS_LINK, unix.SYS_LINKAT, unix.SYS_UNLINK, unix.SYS_UNLINKAT, unix.SYS_SYMLINK, unix.SYS_SYMLINKAT, unix.SYS_READLINK, unix.SYS_READLINKAT,
		unix.SYS_CHMOD, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_CHOWN, unix.SYS_FCHOWN, unix.SYS_LCHOWN, unix.SYS_FCHOWNAT, unix.SYS_UMASK,
		unix.SYS_UTIME, unix.SYS_UTIMES, unix.SYS_UTIMENSAT, unix.SYS_FUTIMESAT, unix.SYS_MKNOD, unix.SYS_MKNODAT, // named pipes; devices need a capability
		unix.SYS_SENDFILE, unix.SYS_SPLICE, unix.SYS_TEE, unix.SYS_VMSPLICE, unix.SYS_COPY_FILE_RANGE, unix.SYS_READAHEAD, unix.SYS_FADVISE64, unix.SYS_CACHESTAT,
		unix.SYS_GETXATTR, unix.SYS_LGETXATTR, unix.SYS_FGETXATTR, unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR,
		unix.SYS_LISTXATTR, unix.SYS_LLISTXATTR, unix.SYS_FLISTXATTR, unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR,
		unix.SYS_INOTIFY_INIT, unix.SYS_INOTIFY_INIT1, unix.SYS_INOTIFY_ADD_WATCH, unix.SYS_INOTIFY_RM_WATCH, unix.SYS_NAME_TO_HANDLE_AT,
		unix.SYS_PIPE, unix.SYS_PIPE2, unix.SYS_SYNC,
	}},
	{"memory of the process itself, bounded by the cgroup", []uint32{
		unix.SYS_MMAP, unix.SYS_MPROTECT, unix.SYS_MUNMAP, unix.SYS_BRK, unix.SYS_MREMAP, unix.SYS_MSYNC, unix.SYS_MINCORE, unix.SYS_MADVISE,
		unix.SYS_MLOCK, unix.SYS_MLOCK2, unix.SYS_MUNLOCK, unix.SYS_MLOCKALL, unix.SYS_MUNLOCKALL, unix.SYS_MEMFD_CREATE, unix.SYS_MEMBARRIER,
		unix.SYS_PKEY_ALLOC, unix.SYS_PKEY_FREE, unix.SYS_PKEY_MPROTECT, unix.SYS_REMAP_FILE_PAGES, unix.SYS_MSEAL, unix.SYS_MAP_SHADOW_STACK,
		unix.SYS_GET_MEMPOLICY, unix.SYS_SET_MEMPOLICY, unix.SYS_MBIND, unix.SYS_SET_MEMPOLICY_HOME_NODE, // language runtimes ask on big machines
	}},
	{"processes and threads of the dyno; clone and setrlimit are looked at below", []uint32{
		unix.SYS_FORK, unix.SYS_VFORK, unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_WAIT4, unix.SYS_WAITID,
		unix.SYS_KILL, unix.SYS_TKILL, unix.SYS_TGKILL, unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_SEND_SIGNAL,
		unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETTID, unix.SYS_GETPGRP, unix.SYS_GETPGID, unix.SYS_SETPGID, unix.SYS_GETSID, unix.SYS_SETSID,
		unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_GETRESUID, unix.SYS_GETRESGID, unix.SYS_GETGROUPS,
		unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS,
		unix.SYS_SETFSUID, unix.SYS_SETFSGID, unix.SYS_CAPGET, unix.SYS_CAPSET, unix.SYS_PRCTL, unix.SYS_ARCH_PRCTL, unix.SYS_SECCOMP,
		unix.SYS_LANDLOCK_CREATE_RULESET, unix.SYS_LANDLOCK_ADD_RULE, unix.SYS_LANDLOCK_RESTRICT_SELF, // an app may fence itself in further
		unix.SYS_SET_TID_ADDRESS, unix.SYS_SET_ROBUST_LIST, unix.SYS_GET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_RESTART_SYSCALL,
		unix.SYS_FUTEX, unix.SYS_FUTEX_WAITV, unix.SYS_FUTEX_WAKE, unix.SYS_FUTEX_WAIT, unix.SYS_FUTEX_REQUEUE,
		unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SCHED_SETAFFINITY, unix.SYS_SCHED_GETPARAM, unix.SYS_SCHED_SETPARAM,
		unix.SYS_SCHED_GETSCHEDULER, unix.SYS_SCHED_SETSCHEDULER, unix.SYS_SCHED_GETATTR,
		unix.SYS_SCHED_GET_PRIORITY_MAX, unix.SYS_SCHED_GET_PRIORITY_MIN, unix.SYS_SCHED_RR_GET_INTERVAL,
		unix.SYS_GETPRIORITY, unix.SYS_SETPRIORITY, unix.SYS_IOPRIO_GET, unix.SYS_IOPRIO_SET,
		unix.SYS_GETRLIMIT, unix.SYS_GETRUSAGE, unix.SYS_TIMES, unix.SYS_UNAME, unix.SYS_SYSINFO, unix.SYS_GETCPU,
	}},
	{"signals, waiting, time", []uint32{
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGPENDING, unix.SYS_RT_SIGTIMEDWAIT,
		unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO, unix.SYS_RT_SIGSUSPEND, unix.SYS_SIGALTSTACK, unix.SYS_PAUSE, unix.SYS_ALARM,
		unix.SYS_POLL, unix.SYS_PPOLL, unix.SYS_SELECT, unix.SYS_PSELECT6,
		unix.SYS_EPOLL_CREATE, unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2,
		unix.SYS_EVENTFD, unix.SYS_EVENTFD2, unix.SYS_SIGNALFD, unix.SYS_SIGNALFD4,
		unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_GETTIMEOFDAY, unix.SYS_TIME,
		unix.SYS_GETITIMER, unix.SYS_SETITIMER, unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_GETTIME, unix.SYS_TIMER_GETOVERRUN, unix.SYS_TIMER_DELETE,
		unix.SYS_TIMERFD_CREATE, unix.SYS_TIMERFD_SETTIME, unix.SYS_TIMERFD_GETTIME, unix.SYS_GETRANDOM,
	}},
	{"sockets, in the dyno's own network; their families are looked at below", []uint32{
		unix.SYS_SOCKETPAIR, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_CONNECT, unix.SYS_SHUTDOWN,
		unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT,
		unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG, unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_RECVMMSG,
	}},
	{"System V and POSIX queues and memory, in the dyno's own ipc namespace", []uint32{
		unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_SHMDT, unix.SYS_SHMCTL, unix.SYS_SEMGET, unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP, unix.SYS_SEMCTL,
		unix.SYS_MSGGET, unix.SYS_MSGSND, unix.SYS_MSGRCV, unix.SYS_MSGCTL,
		unix.SYS_MQ_OPEN, unix.SYS_MQ_UNLINK, unix.SYS_MQ_TIMEDSEND, unix.SYS_MQ_TIMEDRECEIVE, unix.SYS_MQ_NOTIFY, unix.SYS_MQ_GETSETATTR,
	}},
}

var refused = []group{
	{"the shape of the file tree is the platform's", []uint32{
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSCONFIG,
		unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_QUOTACTL,
		unix.SYS_QUOTACTL_FD, unix.SYS_FANOTIFY_INIT, unix.SYS_FANOTIFY_MARK, unix.SYS_STATMOUNT, unix.SYS_LISTMOUNT,
	}},
	{"new namespaces are where most of the kernel's privilege bugs begin", []uint32{unix.SYS_UNSHARE, unix.SYS_SETNS}},
	{"looking into other processes", []uint32{
		unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_KCMP, unix.SYS_PIDFD_GETFD, unix.SYS_PROCESS_MADVISE,
		unix.SYS_PROCESS_MRELEASE, unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES,
	}},
	{"large interfaces with a history of bugs, and no need in an app", []uint32{
		unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
		unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_MODIFY_LDT,
	}},
	{"a longer turn on the CPU would be at the neighbours' cost", []uint32{unix.SYS_SCHED_SETATTR}},
	{"the machine itself", []uint32{
		unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_REBOOT,
		unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME, unix.SYS_ACCT, unix.SYS_SYSLOG, unix.SYS_VHANGUP,
		unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_LOOKUP_DCOOKIE,
	}},
}

const (
	newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

	// Not in x/sys: ioctl_tty(2), personality(2).
	tioclinux       = 0x541C
	perLinux        = 0
	perAsk          = 0xffffffff
	addrNoRandomize = 0x0040000

	// Offsets in struct seccomp_data, little endian; arguments are 64 bit.
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

// filter assembles the program. Classic BPF jumps forward only, at most 255
// instructions, so each call is a test and its verdict behind it.
type filter struct{ code []unix.SockFilter }

func (f *filter) op(code uint16, jt, jf uint8, k uint32) {
	f.code = append(f.code, unix.SockFilter{Code: code, Jt: jt, Jf: jf, K: k})
}

func (f *filter) load(offset uint32) { f.op(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0, 0, offset) }
func (f *filter) ret(verdict uint32) { f.op(unix.BPF_RET|unix.BPF_K, 0, 0, verdict) }
func errno(e unix.Errno) uint32      { return unix.SECCOMP_RET_ERRNO | uint32(e) }

// call answers system call nr with verdict.
func (f *filter) call(nr, verdict uint32) {
	f.op(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, 0, 1, nr)
	f.ret(verdict)
}

// args looks at an argument of call nr: body loads and judges it, and must
// end in a verdict on every way.
func (f *filter) args(nr uint32, arg int, body func()) {
	test := len(f.code)
	f.op(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, 0, 0, nr)
	f.load(dataArgs + uint32(8*arg))
	body()
	f.code[test].Jf = uint8(len(f.code) - test - 1)
}

// seccompFilter is the program every app runs under, as struct sock_filter[].
func seccompFilter() []byte {
	f := &filter{}
	f.load(dataArch)
	f.op(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, 1, 0, nativeArch)
	f.ret(unix.SECCOMP_RET_KILL_PROCESS)
	f.load(dataNr)
	f.op(unix.BPF_JMP|unix.BPF_JGE|unix.BPF_K, 0, 1, foreignCalls)
	f.ret(unix.SECCOMP_RET_KILL_PROCESS)
	for _, g := range allowed {
		for _, nr := range g.calls {
			f.call(nr, unix.SECCOMP_RET_ALLOW)
		}
	}
	for _, g := range refused {
		for _, nr := range g.calls {
			f.call(nr, errno(unix.EPERM))
		}
	}
	// Threads and processes, but no namespaces. clone3 keeps its flags in
	// memory, where no filter can look: ENOSYS makes libraries use clone.
	f.args(unix.SYS_CLONE, 0, func() {
		f.op(unix.BPF_JMP|unix.BPF_JSET|unix.BPF_K, 0, 1, newNamespaces)
		f.ret(errno(unix.EPERM))
		f.ret(unix.SECCOMP_RET_ALLOW)
	})
	// Typing into somebody's terminal.
	f.args(unix.SYS_IOCTL, 1, func() {
		f.call(unix.TIOCSTI, errno(unix.EPERM))
		f.call(tioclinux, errno(unix.EPERM))
		f.ret(unix.SECCOMP_RET_ALLOW)
	})
	// Families with a use in an app; the others are code paths nobody tests.
	f.args(unix.SYS_SOCKET, 0, func() {
		for _, family := range []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK} {
			f.call(family, unix.SECCOMP_RET_ALLOW)
		}
		f.ret(errno(unix.EAFNOSUPPORT))
	})
	// The core limit stays what it is (see pid1). Whoever lowers it wants no
	// core dumps, which there are none of: it is told that it worked.
	f.args(unix.SYS_SETRLIMIT, 0, func() {
		f.call(unix.RLIMIT_CORE, errno(0))
		f.ret(unix.SECCOMP_RET_ALLOW)
	})
	f.args(unix.SYS_PRLIMIT64, 1, func() {
		f.op(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, 1, 0, unix.RLIMIT_CORE)
		f.ret(unix.SECCOMP_RET_ALLOW)
		for _, half := range []uint32{0, 4} { // of the pointer to the new limit: null only asks
			f.load(dataArgs + 8*2 + half)
			f.op(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, 1, 0, 0)
			f.ret(errno(0))
		}
		f.ret(unix.SECCOMP_RET_ALLOW)
	})
	// Plain Linux, asking what it is, and no address randomisation (debuggers,
	// some language runtimes).
	f.args(unix.SYS_PERSONALITY, 0, func() {
		for _, p := range []uint32{perLinux, perAsk, addrNoRandomize} {
			f.call(p, unix.SECCOMP_RET_ALLOW)
		}
		f.ret(errno(unix.EPERM))
	})
	// All else, some of it on purpose: contexts of asynchronous I/O (io_setup)
	// are counted for the whole host (fs.aio-max-nr), so one dyno could take
	// them all; programs that find none do without.
	f.ret(errno(unix.ENOSYS))

	var out bytes.Buffer
	_ = binary.Write(&out, binary.NativeEndian, f.code) // a bytes.Buffer takes everything
	return out.Bytes()
}
