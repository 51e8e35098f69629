// Command attacker is a hostile app: each mode is an attack on the host or on
// the neighbours, gone about as by somebody who means it. It says how each
// attempt was answered, one line each, and tries again until it is stopped:
//
//	attack ptrace: EPERM
//
// It must stay harmless where isolation fails: a call that could hurt the
// machine has an argument that makes it fail after the permission check, files
// that steer the kernel are opened and not written, and signals to strangers
// are signal 0.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// attempt is one way to break out. It returns how it was answered.
type attempt struct {
	name string
	do   func() string
}

// families are attempts that take no time: one mode tries all of them.
var families = map[string][]attempt{
	"calls":     calls,
	"mounts":    mounts,
	"kernel":    kernelFiles,
	"processes": processes,
	"files":     files,
	"network":   network,
}

// loads are modes that use something up. They go on until they are stopped.
var loads = map[string]func(){
	"fork-bomb":      func() { forkBomb(false) },
	"fork-setsid":    func() { forkBomb(true) },
	"zombies":        zombies,
	"spin":           spin,
	"memory-anon":    memoryAnon,
	"memory-steps":   memorySteps,
	"memory-shared":  memoryShared,
	"memory-tmpfs":   memoryTmpfs,
	"page-cache":     pageCache,
	"memory-pipes":   memoryPipes,
	"memory-sockets": memorySockets,
	"memory-tcp":     memoryTCP,
	"disk":           fillDisk,
	"inodes":         fillInodes,
	"fsync":          fsyncStorm,
	"log-flood":      logFlood,
	"log-lines":      logLines,
	"descriptors":    descriptors,
	"watches":        watches,
	"queues":         queues,
	"connections":    connections,
	"datagrams":      datagrams,
	"dns":            dnsFlood,
	"stubborn":       stubborn,
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: attacker MODE")
		os.Exit(2)
	}
	mode := os.Args[1]
	if child, ok := children[mode]; ok {
		child()
		return
	}
	if mode == "neighbour" {
		neighbour()
		return
	}
	if load, ok := loads[mode]; ok {
		load()
		say(mode, "done")
		rest()
	}
	family, ok := families[mode]
	if !ok {
		fmt.Fprintf(os.Stderr, "no attack is called %q\n", mode)
		os.Exit(2)
	}
	for {
		for _, a := range family {
			say(a.name, a.do())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// answered holds what was said of each attempt.
var answered struct {
	sync.Mutex
	by map[string][]string
}

// say prints how an attempt was answered, unless it was so before.
func say(name, answer string) {
	answered.Lock()
	defer answered.Unlock()
	if answered.by == nil {
		answered.by = map[string][]string{}
	}
	if had := answered.by[name]; slices.Contains(had, answer) || len(had) >= 10 {
		return
	}
	answered.by[name] = append(answered.by[name], answer)
	fmt.Printf("attack %s: %s\n", name, answer)
}

// rest waits to be stopped.
func rest() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	os.Exit(143)
}

// answer names an error by its errno.
func answer(err error) string {
	if err == nil {
		return "SUCCEEDED"
	}
	for e := err; e != nil; {
		if errno, ok := e.(syscall.Errno); ok {
			return errnoName(errno)
		}
		u, ok := e.(interface{ Unwrap() error })
		if !ok {
			break
		}
		e = u.Unwrap()
	}
	return err.Error()
}

func errnoName(errno syscall.Errno) string {
	if errno == 0 {
		return "SUCCEEDED"
	}
	return unix.ErrnoName(errno)
}

// call makes a system call with small arguments.
func call(name string, nr uintptr, args ...uintptr) attempt {
	return attempt{name, func() string {
		a := append(slices.Clone(args), 0, 0, 0, 0, 0, 0)
		_, _, errno := syscall.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		return errnoName(errno)
	}}
}

// all is one attempt made of many: it is answered by the first answer that is
// not among those that are fine, or else by the most common one.
func all(name string, fine []string, do func(yield func(what, answer string))) attempt {
	return attempt{name, func() string {
		count := map[string]int{}
		bad := ""
		do(func(what, answer string) {
			count[answer]++
			if !slices.Contains(fine, answer) && bad == "" {
				bad = what + " " + answer
			}
		})
		if bad != "" {
			return bad
		}
		most := ""
		for a, n := range count {
			if n > count[most] || n == count[most] && a < most {
				most = a
			}
		}
		return most
	}}
}
