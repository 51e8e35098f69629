package isolation

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"manifold/isolation/boot"
)

// Exec is one more process for a running dyno.
type Exec struct {
	Argv, Env []string // as in Spec
	Dir       string
	Attach    Attach
}

// Guest is a process that Exec started. Its Stream is the caller's to close.
type Guest struct {
	*Stream
	conn   *net.UnixConn
	done   chan struct{}
	status int
}

// ErrTooOld is Exec's answer for a dyno whose PID 1 came with an agent that did
// not know it yet.
var ErrTooOld = errors.New("the dyno was started by an agent that could not do this: restart the dyno")

// Exec starts a process in a running dyno, with the app's user, cgroups,
// limits and seccomp program. PID 1 does it, by the way it started the app:
// this process enters no namespace of the dyno's (what went wrong for those
// that did: CVE-2016-9962, CVE-2019-5736, CVE-2024-21626). The guest ends with
// the dyno at the latest.
func (b *Box) Exec(ctx context.Context, e Exec) (*Guest, error) {
	fail := func(err error) (*Guest, error) {
		return nil, fmt.Errorf("start a process in %s: %w", b.record.Run, err)
	}
	if len(e.Argv) == 0 || !strings.HasPrefix(e.Argv[0], "/") {
		return fail(errors.New("the command must begin with an absolute path"))
	}
	conn, err := b.door()
	if err != nil {
		return fail(err)
	}
	attached, err := newEnds(e.Attach, b.record.Slot.appUID(b.host.cfg))
	if err != nil {
		conn.Close()
		return fail(err)
	}
	defer attached.close()
	g, err := request(ctx, conn, boot.Exec{Argv: e.Argv, Env: e.Env, Dir: e.Dir, Terminal: attached.terminal}, attached)
	if err != nil {
		conn.Close()
		return fail(err)
	}
	return g, nil
}

// request is the conversation of boot.ExecName.
func request(ctx context.Context, conn *net.UnixConn, e boot.Exec, attached *ends) (*Guest, error) {
	body, err := encode(e)
	if err != nil {
		return nil, err
	}
	deadline, done, err := bound(ctx, conn)
	if err != nil {
		return nil, err
	}
	defer done()
	sent := send(conn, body, attached.theirs)
	answers := bufio.NewReader(io.LimitReader(conn, 4096))
	answer, err := answers.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("talk to PID 1: %w", errors.Join(context.Cause(ctx), sent, err))
	}
	if answer = strings.TrimSuffix(answer, "\n"); answer != boot.Started {
		return nil, errors.New(answer)
	}
	g := &Guest{conn: conn, done: make(chan struct{})}
	if g.Stream, err = attached.take(deadline); err != nil {
		return nil, err
	}
	if !done() { // ctx ended meanwhile and spoilt the deadline
		g.Stream.Close()
		return nil, context.Cause(ctx)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		g.Stream.Close()
		return nil, err
	}
	go g.wait(answers)
	return g, nil
}

// wait reads how the guest ended. It ends with the guest, with Close, or with
// PID 1.
func (g *Guest) wait(answers *bufio.Reader) {
	defer close(g.done)
	defer g.conn.Close()
	g.status = 128 + int(unix.SIGKILL) // PID 1 was killed, and everything with it
	answer, err := answers.ReadString('\n')
	if err != nil {
		return
	}
	if n, err := strconv.Atoi(strings.TrimSuffix(answer, "\n")); err == nil {
		g.status = n
	}
}

// Done is closed when the guest's first process has ended. What it left
// behind may still hold its streams.
func (g *Guest) Done() <-chan struct{} { return g.done }

// Status is its exit code, or 128 + signal, after Done.
func (g *Guest) Status() int { return g.status }

// Close lets go of the guest: one that still runs gets SIGHUP. It waits for
// nothing of the guest's.
func (g *Guest) Close() error {
	err := g.Stream.Close()
	_ = g.conn.CloseRead() // ends wait, which closes it
	<-g.done
	return err
}

// door connects to PID 1's socket. It lies in a directory that PID 1 may write
// to, so what is there is checked: a socket, and PID 1 behind it.
func (b *Box) door() (*net.UnixConn, error) {
	b.mu.Lock()
	pid, gone := b.pid, b.pidfd == nil
	b.mu.Unlock()
	if gone {
		return nil, errors.New("the dyno has ended")
	}
	fd, err := unix.Open(filepath.Join(b.Dir(), pid1Name, boot.ExecName), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, ErrTooOld
	}
	if err != nil {
		return nil, fmt.Errorf("open PID 1's socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), boot.ExecName)
	defer file.Close()
	// By its descriptor: no other socket can take its place, and its path may
	// be longer than a socket's address.
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: "/proc/self/fd/" + strconv.Itoa(fd)})
	if err != nil {
		return nil, fmt.Errorf("connect to PID 1: %w", err)
	}
	var peer *unix.Ucred
	raw, err := conn.SyscallConn()
	if err == nil {
		var failed error
		err = raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
		err = errors.Join(err, failed)
	}
	if err == nil && int(peer.Pid) != pid {
		err = errors.New("another process than PID 1 answers")
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to PID 1: %w", err)
	}
	return conn, nil
}
