package main

import (
	"cmp"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"manifold/isolation/boot"
)

// oomWatch reports each time the memory limit strikes (cgroup v1,
// Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control"): the kernel
// kills one process, the platform's contract is that the dyno dies together.
// On v2 memory.oom.group does that without us: see pressure.
type oomWatch struct {
	events *os.File      // eventfd(2), may be nil
	struck chan struct{} // holds one
	done   chan struct{}
}

func watchOOM(events *os.File) *oomWatch {
	w := &oomWatch{events: events, struck: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for w.read() {
			select {
			case w.struck <- struct{}{}:
			default: // it is known already
			}
		}
	}()
	return w
}

func (w *oomWatch) read() bool {
	count := make([]byte, 8)
	if w.events == nil {
		return false
	}
	_, err := io.ReadFull(w.events, count)
	return err == nil
}

// last ends the watch and says whether the limit struck unseen: its news and
// that of the death it caused come by different ways.
func (w *oomWatch) last() bool {
	if w.events == nil {
		return false
	}
	_ = w.events.SetReadDeadline(time.Now())
	<-w.done
	select {
	case <-w.struck:
		return true
	default:
	}
	pending := false
	conn, err := w.events.SyscallConn()
	if err == nil {
		_ = conn.Control(func(fd uintptr) {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			pending = err == nil && n > 0
		})
	}
	return pending
}

// pressure looks where the memory goes while the app is at its limit on cgroup
// v2: the kernel ends all of the app at once there, and then nobody is left to
// look at. What was seen last is kept for the exit record.
type pressure struct {
	stats  []*os.File
	events *os.File // memory.events among stats; nil on v1
	seen   atomic.Pointer[boot.OOM]
}

// pressurePause is the time between two looks: an app may be at its limit all
// day, since the kernel makes room by dropping caches and by swap.
const pressurePause = 200 * time.Millisecond

func watchPressure(stats []*os.File) *pressure {
	p := &pressure{stats: stats}
	for _, f := range stats {
		if f.Name() == boot.Events {
			p.events = f
			go p.watch()
		}
	}
	return p
}

// watch ends with PID 1. A change of the file since it was last read shows as
// POLLPRI (cgroup v2, "memory.events").
func (p *pressure) watch() {
	p.struck() // from now on changes count
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(p.events.Fd()), Events: unix.POLLPRI}}, -1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		p.look()
		time.Sleep(pressurePause)
	}
}

// look keeps what there is to see, unless that is the app as the kernel ends it:
// then it has given back some of what it is ended for.
func (p *pressure) look() {
	before, now := p.seen.Load(), seeMemory(p.stats)
	if before == nil || total(now) >= total(before) || !p.struck() {
		p.seen.Store(now)
	}
}

// total is RAM and swap, in bytes.
func total(seen *boot.OOM) (sum int64) {
	for _, name := range []string{"memory.current", "memory.swap.current"} {
		n, _ := strconv.ParseInt(seen.Stats[name], 10, 64)
		sum += n
	}
	return sum
}

// struck says whether the kernel has killed anything for too much memory.
func (p *pressure) struck() bool {
	buf := make([]byte, maxStat)
	n, _ := p.events.ReadAt(buf, 0)
	for line := range strings.Lines(string(buf[:n])) {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), " "); key == "oom_kill" {
			return value != "0"
		}
	}
	return false
}

// last is what was seen of an app that the memory limit ended; nil if it ended
// otherwise.
func (p *pressure) last() *boot.OOM {
	if p.events == nil || !p.struck() {
		return nil
	}
	end, seen := seeMemory(p.stats), p.seen.Load()
	if seen == nil {
		return end
	}
	kept := *seen
	kept.Stats = maps.Clone(seen.Stats) // watch may look at it still
	for name, text := range end.Stats { // counters and peaks have only grown
		if name == boot.Events || strings.HasSuffix(name, ".peak") {
			kept.Stats[name] = text
		}
	}
	return &kept
}

// Bounds on what goes into the exit record.
const (
	maxStat      = 4 << 10
	maxProcesses = 512
	maxBiggest   = 5
)

// seeMemory reads where the memory went, at the moment of an OOM kill.
func seeMemory(stats []*os.File) *boot.OOM {
	seen := &boot.OOM{Stats: map[string]string{}}
	for _, f := range stats {
		buf := make([]byte, maxStat)
		if n, err := f.ReadAt(buf, 0); n > 0 && (err == nil || err == io.EOF) {
			seen.Stats[f.Name()] = strings.TrimSpace(string(buf[:n]))
		}
	}
	proc, err := os.Open("/proc")
	if err != nil {
		return seen
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(maxProcesses)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid > 1 {
			seen.Biggest = append(seen.Biggest, processMemory(pid))
		}
	}
	slices.SortFunc(seen.Biggest, func(a, b boot.Process) int { return cmp.Compare(b.RSS+b.Swap, a.RSS+a.Swap) })
	seen.Biggest = seen.Biggest[:min(maxBiggest, len(seen.Biggest))]
	return seen
}

// processMemory reads proc(5), /proc/pid/status.
func processMemory(pid int) boot.Process {
	p := boot.Process{PID: pid}
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return p
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		kib, _ := strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64)
		switch key {
		case "Name":
			p.Name = value
		case "VmRSS":
			p.RSS = kib << 10
		case "VmSwap":
			p.Swap = kib << 10
		}
	}
	return p
}
