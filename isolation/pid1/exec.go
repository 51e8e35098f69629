package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"manifold/isolation/boot"
)

// guest is a process that was started beside the app, at the agent's wish. It
// lives in the app's cgroups and under its limits, ends with the dyno, and
// otherwise is left alone.
type guest struct {
	pid   int
	ended chan int // its exit status; holds one
}

// requestTime bounds how long a request may take to arrive.
const requestTime = 10 * time.Second

// listen opens the socket for requests. Its path is on the host, below a
// directory that only the host's root may enter; in the dyno it has none.
func listen(dir *os.File) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make the socket for requests: %w", err)
	}
	// By the directory's descriptor: its path would not fit, and is not in here.
	path := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + boot.ExecName
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("bind the socket for requests: %w", err)
	}
	if err := unix.Listen(fd, 16); err != nil {
		return nil, fmt.Errorf("listen for requests: %w", err)
	}
	return os.NewFile(uintptr(fd), boot.ExecName), nil
}

// admitAll takes requests. It ends with PID 1.
func (d *dyno) admitAll() {
	conn, err := d.door.SyscallConn()
	if err != nil {
		return
	}
	for {
		peer, failed := -1, error(nil)
		err := conn.Read(func(fd uintptr) bool {
			peer, _, failed = unix.Accept4(int(fd), unix.SOCK_CLOEXEC)
			return failed != unix.EAGAIN
		})
		switch {
		case err != nil:
			return
		case failed == nil:
			go d.serve(peer)
		default: // the peer is gone again, or descriptors are short
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// serve answers one connection (boot.ExecName).
func (d *dyno) serve(socket int) {
	g, err := d.request(socket)
	_ = unix.SetNonblock(socket, true) // if that fails, a thread waits where a goroutine would
	conn := os.NewFile(uintptr(socket), "request")
	defer conn.Close()
	if err != nil {
		_, _ = io.WriteString(conn, err.Error()+"\n")
		return
	}
	_, _ = io.WriteString(conn, boot.Started+"\n")
	d.attend(conn, g)
}

// request reads a request and starts what it asks for.
func (d *dyno) request(socket int) (*guest, error) {
	// A process of this dyno would have a process id here.
	if peer, err := unix.GetsockoptUcred(socket, unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil || peer.Pid != 0 {
		return nil, errors.New("requests are taken from outside the dyno only")
	}
	timeout := unix.NsecToTimeval(requestTime.Nanoseconds())
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return nil, err
	}
	var req boot.Exec
	got, err := receive(socket, &req)
	var files []*os.File
	for _, fd := range got {
		f := os.NewFile(uintptr(fd), "stream")
		defer f.Close() // they are the guest's alone, so that its end can be seen
		files = append(files, f)
	}
	if err != nil {
		return nil, fmt.Errorf("read what to start: %w", err)
	}
	return d.admit(req, files)
}

// admit starts a guest, unless the dyno is at its end.
func (d *dyno) admit(req boot.Exec, files []*os.File) (*guest, error) {
	want := 2
	if req.Terminal != nil {
		want = 1
	}
	if len(req.Argv) == 0 || len(files) != want {
		return nil, fmt.Errorf("%d descriptors came, want %d", len(files), want)
	}
	s := d.msg
	s.Argv, s.Env, s.Dir, s.Terminal = req.Argv, req.Env, req.Dir, req.Terminal
	var io stdio
	if req.Terminal == nil {
		io.in, io.out = files[0], files[1]
	} else {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		defer null.Close()
		io = stdio{null, null, files[0]}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ending {
		return nil, errors.New("the dyno has ended")
	}
	p, err := spawn(d.procs, d.place, true)
	if err == nil {
		err = p.become(s, io)
	}
	if err != nil {
		return nil, err
	}
	g := &guest{pid: p.pid, ended: make(chan int, 1)}
	d.guests[p.pid] = g
	return g, nil
}

// attend waits for a guest's end and tells it, or for the agent's, and hangs
// up on the guest.
func (d *dyno) attend(conn *os.File, g *guest) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = conn.Read(make([]byte, 1)) // nothing is sent any more: this is the end
	}()
	select {
	case status := <-g.ended:
		_, _ = io.WriteString(conn, strconv.Itoa(status)+"\n")
		_ = conn.SetReadDeadline(time.Now())
		<-gone
	case <-gone:
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.guests[g.pid] == g {
			_ = unix.Kill(-g.pid, unix.SIGHUP) // it leads a session and a group of its own
		}
	}
}
