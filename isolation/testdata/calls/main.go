// Command calls runs inside a dyno and says how the kernel answers calls that
// an app must not, or must, be able to make: one line each, name and errno.
//
//	calls grow [MIB]   takes 10 MiB more at each step, and says how much it has;
//	                   rests for 25 s when it has MIB, for those who look now and then,
//	                   or until it is given a byte
//	calls hold         takes 64 MiB and keeps it
//	calls flood ADDR   begins connections to ever new ports, as fast as it can
//	calls ask ADDR     sends a datagram and says what comes back within a second
//	calls insist ADDR  sends one every second until one comes back, for a minute
package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) > 1 {
		do(os.Args[1], os.Args[len(os.Args)-1])
	}
	raw := func(name string, nr uintptr, args ...uintptr) {
		args = append(args, 0, 0, 0, 0, 0, 0)
		_, _, errno := syscall.RawSyscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
		fmt.Printf("%s %s\n", name, unix.ErrnoName(errno))
	}
	raw("unshare", unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
	raw("setns", unix.SYS_SETNS)
	raw("mount", unix.SYS_MOUNT)
	raw("pivot_root", unix.SYS_PIVOT_ROOT)
	raw("chroot", unix.SYS_CHROOT)
	raw("open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT)
	raw("ptrace", unix.SYS_PTRACE)
	raw("bpf", unix.SYS_BPF)
	raw("perf_event_open", unix.SYS_PERF_EVENT_OPEN)
	raw("userfaultfd", unix.SYS_USERFAULTFD)
	raw("io_uring_setup", unix.SYS_IO_URING_SETUP)
	raw("keyctl", unix.SYS_KEYCTL)
	raw("add_key", unix.SYS_ADD_KEY)
	raw("kexec_load", unix.SYS_KEXEC_LOAD)
	raw("init_module", unix.SYS_INIT_MODULE)
	raw("clock_settime", unix.SYS_CLOCK_SETTIME)
	raw("reboot", unix.SYS_REBOOT)
	raw("clone-newuser", unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD))
	raw("clone3", unix.SYS_CLONE3)
	raw("socket-packet", unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW)
	raw("socket-raw", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	raw("socket-alg", unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET)
	raw("ioctl-tiocsti", unix.SYS_IOCTL, 0, unix.TIOCSTI)
	raw("personality-32", unix.SYS_PERSONALITY, 0x0008)
	raw("unknown", 9999)
	raw("socket-unix", unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM)
	raw("socket-inet6", unix.SYS_SOCKET, unix.AF_INET6, unix.SOCK_DGRAM)
	raw("getpid", unix.SYS_GETPID)
	for _, how := range []string{"x32"} {
		err := exec.Command("/proc/self/exe", how).Run()
		fmt.Printf("%s %v\n", how, err)
	}
}

func do(what, addr string) { // addr is the last argument, whatever it means
	switch what {
	case "grow":
		for mib := 10; ; mib += 10 {
			take(10 << 20)
			fmt.Printf("holds %d MiB\n", mib)
			time.Sleep(20 * time.Millisecond)
			if strconv.Itoa(mib) == addr {
				rest(25 * time.Second)
			}
		}
	case "hold":
		take(64 << 20)
		fmt.Println("ready")
		time.Sleep(time.Hour)
	case "flood":
		flood(addr)
	case "ask":
		ask(addr, 1)
	case "insist":
		ask(addr, 60)
	default:
		foreign(what)
	}
}

// rest ends with a byte of input, which /dev/null does not have.
func rest(most time.Duration) {
	given := make(chan struct{})
	go func() {
		if n, _ := os.Stdin.Read(make([]byte, 1)); n > 0 {
			close(given)
		}
	}()
	select {
	case <-given:
	case <-time.After(most):
	}
}

// take maps memory and writes to all of it.
func take(bytes int) {
	m, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	const page = 4096
	for i := range page {
		m[i] = byte(i>>3 ^ i)
	}
	for done := page; done < len(m); done *= 2 { // an emulated processor counts to ten million for long
		copy(m[done:], m[:done])
	}
}

func flood(addr string) {
	to := &unix.SockaddrInet4{}
	copy(to.Addr[:], net.ParseIP(addr).To4())
	fmt.Println("begins")
	for i := 0; ; i++ {
		to.Port = 1 + i%65535
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		_ = unix.Connect(fd, to)
		unix.Close(fd)
		if i == 20_000 {
			fmt.Println("20000 tried")
		}
	}
}

func ask(addr string, times int) {
	answer := "no answer"
	c, err := net.Dial("udp", addr)
	for i := 0; err == nil && i < times && answer == "no answer"; i++ {
		next := time.Now().Add(time.Second)
		_, _ = c.Write([]byte("question"))
		_ = c.SetReadDeadline(next)
		text := make([]byte, 64)
		if n, err := c.Read(text); err == nil {
			answer = string(text[:n])
		} else if i+1 < times {
			time.Sleep(time.Until(next)) // it may be refused at once
		}
	}
	fmt.Println(addr, answer)
	os.Exit(0)
}

// foreign makes a call in a form that must be the process's last.
func foreign(string) {
	syscall.RawSyscall(0x40000000+unix.SYS_GETPID, 0, 0, 0)
	os.Exit(0)
}
