package router

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// turn is how long a thread of the router may run, once it runs, before
// another that is due gets its turn. It is shorter than that of dynos, so that
// the kernel lets the router run as soon as something comes in, also where
// dynos keep every core busy: a router works in small pieces and waits.
const turn = 100 * time.Microsecond

// takeShortTurns asks it for every thread of this process (sched_setattr(2)).
// Kernels before 6.12 know no such wish; a program built with cgo cannot speak
// for all of its threads. Neither matters but for latency.
func takeShortTurns() {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return
	}
	attr.Runtime = uint64(turn)
	_, _, _ = syscall.AllThreadsSyscall(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(attr)), 0)
}
