package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"manifold/isolation/boot"
)

// appArg0 is how this program is called between fork and exec of the app.
const appArg0 = "app"

// The descriptors of that step: where the message comes from, and the first
// of the cgroup.procs files.
const (
	appMessageFD = 3
	appProcsFD   = 4
)

// startApp forks the app's first process. It comes back when that process
// exists; whether its exec works shows in its exit status.
func startApp(msg boot.Message, fds descriptors, output *os.File) (pid int, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer w.Close()
	files := []uintptr{fds.stdin.Fd(), output.Fd(), output.Fd(), r.Fd()}
	for _, f := range fds.procs {
		files = append(files, f.Fd())
	}
	pid, err = syscall.ForkExec("/proc/self/exe", []string{appArg0}, &syscall.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1"}, Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	r.Close()
	if err != nil {
		return 0, fmt.Errorf("start the app's first process: %w", err)
	}
	for _, f := range append(fds.procs, fds.stdin) {
		f.Close()
	}
	if err := json.NewEncoder(w).Encode(msg); err != nil {
		return 0, fmt.Errorf("hand the app its command: %w", err)
	}
	return pid, nil
}

// becomeApp is the app's process before it is the app: it joins the app's
// cgroups, gives up what an app must not have, and becomes the command. It
// never returns.
func becomeApp() {
	runtime.LockOSThread() // what follows is per thread; exec keeps this one
	var msg boot.Message
	if err := json.NewDecoder(io.LimitReader(readerOf(appMessageFD), boot.MaxMessage)).Decode(&msg); err != nil {
		fail(126, "read the command", err)
	}
	for fd := range msg.Procs {
		if _, err := unix.Write(appProcsFD+fd, []byte("0")); err != nil {
			fail(126, "join the dyno's cgroup", err)
		}
	}
	if err := giveUp(msg); err != nil {
		fail(126, "give up privileges", err)
	}
	if err := os.Chdir(msg.Dir); err != nil {
		_ = os.Chdir("/") // the contract of Spec.Dir
	}
	if err := restrict(msg.Filter); err != nil {
		fail(126, "restrict system calls", err)
	}
	if err := unix.CloseRange(appMessageFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fail(126, "close descriptors", err)
	}
	if err := syscall.Exec(msg.Argv[0], msg.Argv, msg.Env); err != nil {
		fail(127, "start "+msg.Argv[0], err)
	}
}

func fail(status int, what string, err error) {
	fmt.Fprintf(os.Stderr, "could not %s: %v\n", what, err)
	os.Exit(status)
}

// giveUp leaves the calling thread without capabilities, without a way to get
// any (no_new_privs, empty bounding set), in a cgroup namespace rooted at the
// app's cgroup, with a session keyring of its own, and within its limits.
func giveUp(msg boot.Message) error {
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("cgroup namespace: %w", err)
	}
	for _, l := range []struct {
		resource int
		value    uint64
	}{
		{unix.RLIMIT_NPROC, uint64(msg.Processes)},
		{unix.RLIMIT_NOFILE, uint64(msg.OpenFiles)},
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_MEMLOCK, 64 << 10},
		{unix.RLIMIT_MSGQUEUE, 800 << 10},
		{unix.RLIMIT_SIGPENDING, uint64(msg.Processes)},
	} {
		if err := syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: l.value, Max: l.value}); err != nil {
			return fmt.Errorf("limit %d: %w", l.resource, err)
		}
	}
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
		if _, _, errno := unix.RawSyscall(id.trap, uintptr(msg.UID), uintptr(msg.UID), uintptr(msg.UID)); errno != 0 {
			return fmt.Errorf("%s: %w", id.what, errno)
		}
	}
	unix.Umask(0o022)
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
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

// dropPrivileges leaves PID 1 itself with CAP_KILL alone, which it needs to
// signal the app, and out of the app's sight: not dumpable, so that not even
// a flaw in /proc shows its memory.
func dropPrivileges() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: 1 << unix.CAP_KILL, Permitted: 1 << unix.CAP_KILL}}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	if errno != 0 {
		return fmt.Errorf("drop capabilities: %w", errno)
	}
	_, _, errno = syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("set no_new_privs: %w", errno)
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
