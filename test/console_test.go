package test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// console is a terminal that a program runs in, as a user's terminal emulator
// makes it.
type console struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	ended  chan error

	mu   sync.Mutex
	out  []byte // not matched yet
	more chan struct{}
}

// patience is for what a program shows next, and for its end: the CLI's start
// alone takes a busy machine a dozen seconds.
const patience = 2 * time.Minute

// inTerminal starts cmd in a terminal of 33 rows and 101 columns.
func inTerminal(t *testing.T, cmd *exec.Cmd) *console {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0),
		unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 101}),
	); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	c := &console{t: t, cmd: cmd, master: os.NewFile(uintptr(fd), "terminal"), ended: make(chan error, 1), more: make(chan struct{}, 1)}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Env = append(cmd.Env, "TERM=xterm-256color")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go c.read()
	go func() { c.ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); c.master.Close() })
	return c
}

func (c *console) read() {
	for buf := make([]byte, 4096); ; {
		n, err := c.master.Read(buf)
		c.mu.Lock()
		c.out = append(c.out, buf[:n]...)
		c.mu.Unlock()
		select {
		case c.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// enter types text.
func (c *console) enter(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.master, text); err != nil {
		c.t.Fatal(err)
	}
}

// expect waits until pattern shows and forgets all up to its end.
func (c *console) expect(pattern string) (found string) {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.After(patience)
	for {
		c.mu.Lock()
		if at := re.FindIndex(c.out); at != nil {
			found = string(c.out[at[0]:at[1]])
			c.out = c.out[at[1]:]
			c.mu.Unlock()
			return found
		}
		shown := string(c.out)
		c.mu.Unlock()
		select {
		case <-c.more:
		case <-deadline:
			c.t.Fatalf("%q does not show; the terminal shows %q", pattern, shown)
		}
	}
}

// resize does what a terminal emulator does when its window changes.
func (c *console) resize(rows, cols uint16) {
	c.t.Helper()
	raw, err := c.master.SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	if failed := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	}); errors.Join(failed, err) != nil {
		c.t.Fatal(failed, err)
	}
}

// exit waits for the program's end and returns its exit status.
func (c *console) exit() int {
	c.t.Helper()
	select {
	case err := <-c.ended:
		return exitStatus(c.t, err)
	case <-time.After(patience):
		c.mu.Lock()
		defer c.mu.Unlock()
		c.t.Fatalf("the program does not end; the terminal shows %q", c.out)
		return 0
	}
}

func exitStatus(t *testing.T, err error) int {
	t.Helper()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if failed != nil {
		return failed.ExitCode()
	}
	return 0
}
