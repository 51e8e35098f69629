package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"manifold/isolation/boot"
)

// appArg0 is how this program is called between fork and exec of a command.
const appArg0 = "app"

// Between PID 1 and that step there is a socket pair, on which messages go as
// boot.Box says:
//
//	PID 1                                      step
//	  place + cgroup.procs files ────────▶     joins the cgroups, gives up privileges
//	                   ◀── Started, or what failed
//	  boot.Message + standard streams ───▶     becomes the command
//
// The app's step waits in between, in a dyno that is ready but has nothing to
// run. For a process beside the app nobody waits for the answer: a frozen dyno
// freezes the step as well.
const appFD = 3

// place is where a process belongs.
type place struct {
	boot.Place
	Guest bool // it is not the app but a process beside it
}

// stdio is what a process gets as its standard streams. With a terminal they
// are for what goes wrong before it has it.
type stdio struct {
	in, out  *os.File
	terminal *os.File // socket on which the terminal's master goes to the agent; nil: no terminal
}

// process is one that is in its place and not yet a command.
type process struct {
	pid    int
	socket *os.File
}

// spawn forks a process. procs stay open here.
func spawn(procs []*os.File, where boot.Place, guest bool) (*process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "step"), os.NewFile(uintptr(pair[1]), "step")
	defer theirs.Close() // so that its end can be seen
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{appArg0}, &syscall.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1"}, Sys: &syscall.SysProcAttr{Setsid: true},
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), theirs.Fd()},
	})
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start a process: %w", err)
	}
	if err := send(ours, place{where, guest}, procs); err != nil {
		ours.Close()
		return nil, fmt.Errorf("put a process into its place: %w", err)
	}
	return &process{pid: pid, socket: ours}, nil
}

// placed waits until the process is in its place.
func (p *process) placed() error {
	answer := make([]byte, 512)
	n, err := readerOf(p.socket.Fd()).Read(answer)
	if err == nil && string(answer[:n]) != boot.Started {
		err = errors.New(string(answer[:n]))
	}
	if err != nil {
		return fmt.Errorf("put a process into its place: %w", err)
	}
	return nil
}

// become has the process become a command. Whether its exec works shows in
// its exit status. The streams stay open here.
func (p *process) become(command boot.Message, io stdio) error {
	defer p.socket.Close()
	files := []*os.File{io.in, io.out}
	if io.terminal != nil {
		files = append(files, io.terminal)
	}
	if err := send(p.socket, command, files); err != nil {
		return fmt.Errorf("hand the process its command: %w", err)
	}
	return nil
}

// becomeApp is the process before it is the app: it takes its place, and then
// becomes the command. It never returns.
func becomeApp() {
	runtime.LockOSThread() // what follows is per thread; exec keeps this one
	unix.CloseOnExec(appFD)
	misplaced := takePlace()
	answer := boot.Started
	if misplaced != nil {
		answer = misplaced.Error()
	}
	_, _ = unix.Write(appFD, []byte(answer)) // who does not wait for it finds out by the exit status
	var s boot.Message
	streams, err := receive(appFD, &s)
	if err != nil {
		os.Exit(126) // the dyno has ended before it began
	}
	for fd, stream := range []int{streams[0], streams[1], streams[1]} {
		if err := unix.Dup3(stream, fd, 0); err != nil {
			fail(126, "take the standard streams", err)
		}
	}
	if misplaced != nil {
		fail(126, "take its place", misplaced)
	}
	if s.Terminal != nil {
		if err := takeTerminal(streams[2], *s.Terminal); err != nil {
			fail(126, "open a terminal", err)
		}
	}
	if err := os.Chdir(s.Dir); err != nil {
		_ = os.Chdir("/") // the contract of Spec.Dir
	}
	if err := unix.CloseRange(appFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fail(126, "close descriptors", err)
	}
	freshSignals()
	if err := syscall.Exec(s.Argv[0], s.Argv, s.Env); err != nil {
		fail(127, "start "+s.Argv[0], err)
	}
}

// takePlace joins the dyno's cgroups and gives up what an app must not have.
func takePlace() error {
	var p place
	procs, err := receive(appFD, &p)
	if err != nil {
		return err
	}
	for _, fd := range procs {
		if _, err := unix.Write(fd, []byte("0")); err != nil {
			return fmt.Errorf("join the dyno's cgroup: %w", err)
		}
		unix.Close(fd)
	}
	if !p.Guest {
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return fmt.Errorf("make a cgroup namespace: %w", err)
		}
	}
	if err := giveUp(p.Place); err != nil {
		return fmt.Errorf("give up privileges: %w", err)
	}
	if err := restrict(p.Filter); err != nil {
		return fmt.Errorf("restrict system calls: %w", err)
	}
	return nil
}

// takeTerminal opens a terminal of the dyno's, sends its master to the agent
// and makes it the calling session's own and its standard streams. It runs
// with the app's user id, so that devpts gives the terminal to the app
// (Documentation/filesystems/devpts.rst), and /dev is the platform's, so that
// no app stands in for it.
func takeTerminal(socket int, t boot.Terminal) (err error) {
	defer func() {
		if err != nil {
			_, _ = unix.Write(socket, []byte(err.Error())) // the log has it too
		}
	}()
	master, err := unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/pts/ptmx: %w", err)
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlock the terminal: %w", err)
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return fmt.Errorf("open the terminal: %w", errno)
	}
	slave := int(fd)
	if err := unix.IoctlSetWinsize(slave, unix.TIOCSWINSZ, &unix.Winsize{Row: t.Rows, Col: t.Cols}); err != nil {
		return fmt.Errorf("set the window size: %w", err)
	}
	if err := unix.IoctlSetInt(slave, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("make it the controlling terminal: %w", err)
	}
	if err := unix.Sendmsg(socket, []byte{0}, unix.UnixRights(master), nil, 0); err != nil {
		return fmt.Errorf("send the terminal to the agent: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil {
			return fmt.Errorf("make the terminal the standard streams: %w", err)
		}
	}
	return nil
}

// freshSignals leaves no signal ignored or blocked: an exec keeps what whoever
// started the agent had so (execve(2)), as nohup does, or a shell without job
// control for what it runs in the background. Ctrl-C or a hangup would be
// nothing to the app.
func freshSignals() {
	const signals, setMask = 64, 2 // SIG_SETMASK
	var action, mask [32]byte      // SIG_DFL, with no flags (struct sigaction of the kernel's); no signal
	for n := uintptr(1); n <= signals; n++ {
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(&action)), 0, signals/8, 0, 0)
	}
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&mask)), 0, signals/8, 0, 0)
}

func fail(status int, what string, err error) {
	fmt.Fprintf(os.Stderr, "could not %s: %v\n", what, err)
	os.Exit(status)
}

// giveUp leaves the calling thread without capabilities, without a way to get
// any (no_new_privs, empty bounding set), with a session keyring of its own,
// and within its limits.
func giveUp(p boot.Place) error {
	for _, l := range []struct {
		resource int
		value    uint64
	}{
		{unix.RLIMIT_NPROC, uint64(p.Processes)},
		{unix.RLIMIT_NOFILE, uint64(p.OpenFiles)},
		// 1 and not 0: a handler that the host pipes core dumps to would get
		// them at any limit but 1 (core(5); fs/coredump.c).
		{unix.RLIMIT_CORE, 1},
		{unix.RLIMIT_MEMLOCK, 64 << 10},
		{unix.RLIMIT_MSGQUEUE, 800 << 10},
		{unix.RLIMIT_SIGPENDING, uint64(p.Processes)},
	} {
		if err := syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: l.value, Max: l.value}); err != nil {
			return fmt.Errorf("limit %d: %w", l.resource, err)
		}
	}
	takeTurns(syscall.RawSyscall)
	if err := dropBounding(); err != nil {
		return err
	}
	if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil && err != unix.ENOSYS {
		return fmt.Errorf("session keyring: %w", err)
	}
	for _, id := range []struct {
		what string
		trap uintptr
	}{{"setresgid", unix.SYS_SETRESGID}, {"setresuid", unix.SYS_SETRESUID}} {
		if id.trap == unix.SYS_SETRESGID {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
				return fmt.Errorf("setgroups: %w", errno)
			}
		}
		if _, _, errno := unix.RawSyscall(id.trap, uintptr(p.UID), uintptr(p.UID), uintptr(p.UID)); errno != 0 {
			return fmt.Errorf("%s: %w", id.what, errno)
		}
	}
	unix.Umask(0o022)
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// slice is how long a dyno's thread may run, once it runs, before another that
// has just woken up and is due gets its turn. The kernel's own 3 ms and more
// let a dyno that spins on every core hold up each step of its neighbours'
// requests; with a tenth of that they hardly notice it. Who computes alone is
// not interrupted.
const slice = 300 * time.Microsecond

// takeTurns asks for it, for the threads that call speaks of. Kernels before
// 6.12 know no such wish and ignore it; seccomp keeps the app from another one
// (sched_setattr(2)).
func takeTurns(call func(trap, a1, a2, a3 uintptr) (uintptr, uintptr, syscall.Errno)) {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return
	}
	attr.Runtime = uint64(slice)
	_, _, _ = call(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(attr)), 0)
}

// restrict puts the calling thread, and what it becomes, under a seccomp
// program (seccomp(2); needs no_new_privs).
func restrict(filter []byte) error {
	size := int(unsafe.Sizeof(unix.SockFilter{}))
	if len(filter) == 0 || len(filter)%size != 0 {
		return fmt.Errorf("a program of %d bytes is none", len(filter))
	}
	program := unix.SockFprog{Len: uint16(len(filter) / size), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

// dropBounding empties the calling thread's bounding and ambient sets
// (capabilities(7)).
func dropBounding() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err == unix.EINVAL {
			return nil // past the last capability this kernel knows
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
}

// kept are the capabilities of PID 1 in the dyno's user namespace: to signal
// the app, and what the step needs to become it once more (exec.go). The one
// for namespaces and mounts is not among them.
const kept = 1<<unix.CAP_KILL | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETPCAP

// dropPrivileges leaves PID 1 itself with the kept capabilities, and out of
// the app's sight: not dumpable, so that not even a flaw in /proc shows its
// memory. With no_new_privs no exec as root brings back what it gave up.
func dropPrivileges() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: kept, Permitted: kept}}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	if errno != 0 {
		return fmt.Errorf("drop capabilities: %w", errno)
	}
	_, _, errno = syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("set no_new_privs: %w", errno)
	}
	takeTurns(syscall.AllThreadsSyscall)
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
