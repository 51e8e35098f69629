package isolation

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"manifold"
	"manifold/isolation/boot"
)

// Attach has the agent hold a process's standard streams, in the place of
// /dev/null and the log.
type Attach struct {
	Terminal   bool   // one terminal of the dyno's; else a pipe in, and one out for output and errors
	Rows, Cols uint16 // of the terminal's window; 0: 24 and 80
}

// Stream is the agent's end of a process's standard streams. Nobody else holds
// it: when it is closed, or the agent dies, the kernel hangs up the terminal
// (SIGHUP to its session, tty_ioctl(4)), and a process that uses the pipes
// meets their end. Reads and writes block, and end with Close.
type Stream struct {
	in, out  *os.File
	terminal bool
}

// Read reads what the process wrote; io.EOF when nobody holds the other end.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.out.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// That is said without a look at what is there.
		n, err = s.readNow(p)
	}
	if s.terminal && errors.Is(err, unix.EIO) { // pty(7): no process has the terminal open
		err = io.EOF
	}
	return n, err
}

// readNow is Read where it does not have to wait.
func (s *Stream) readNow(p []byte) (n int, err error) {
	conn, err := s.out.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := conn.Control(func(fd uintptr) { // its own Read would heed the deadline
		for n, err = unix.Read(int(fd), p); errors.Is(err, unix.EINTR); {
			n, err = unix.Read(int(fd), p)
		}
	})
	switch {
	case failed != nil:
		return 0, failed
	case errors.Is(err, unix.EAGAIN):
		return 0, os.ErrDeadlineExceeded
	case err != nil:
		return 0, err
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write gives the process input.
func (s *Stream) Write(p []byte) (int, error) { return s.in.Write(p) }

// CloseWrite ends a pipe's input. A terminal's ends with its user's Ctrl-D,
// which is the line discipline's business.
func (s *Stream) CloseWrite() error {
	if s.terminal {
		return nil
	}
	return s.in.Close()
}

// Terminal says which kind it is.
func (s *Stream) Terminal() bool { return s.terminal }

// Resize tells a terminal its window's size; the kernel sends SIGWINCH.
func (s *Stream) Resize(rows, cols uint16) error {
	if !s.terminal {
		return nil
	}
	conn, err := s.out.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	return errors.Join(err, failed)
}

// SetReadDeadline makes Reads that wait, now or later, fail from t on with
// os.ErrDeadlineExceeded. What is there already is read whatever the time: an
// agent that had to wait for a processor must not lose a process's last words.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.out.SetReadDeadline(t) }

// Close lets go of both ends.
func (s *Stream) Close() error {
	if s.terminal {
		return s.out.Close()
	}
	_ = s.in.Close() // CloseWrite may have done it
	return s.out.Close()
}

// ends are both ends of a stream in the making.
type ends struct {
	stream   *Stream       // pipes: ours; terminal: nil until it came
	socket   *net.UnixConn // terminal: where its master will come
	theirs   []*os.File    // for PID 1: standard input and output, or the other end of socket
	terminal *boot.Terminal
}

// newEnds makes what PID 1 needs for a process's streams. owner is the app's
// user id on the host. The caller closes the ends.
func newEnds(a Attach, owner int) (*ends, error) {
	if a.Terminal {
		return terminalEnds(a)
	}
	theirIn, in, err := pipe(0)
	if err != nil {
		return nil, err
	}
	theirOut, out, err := pipe(1)
	if err != nil {
		closeAll([]*os.File{theirIn, in})
		return nil, err
	}
	e := &ends{stream: &Stream{in: in, out: out}, theirs: []*os.File{theirIn, theirOut}}
	// The app may open its streams again through /dev/stdin and /dev/stdout.
	if err := errors.Join(theirIn.Chown(owner, owner), theirOut.Chown(owner, owner)); err != nil {
		e.close()
		return nil, fmt.Errorf("give the app its streams: %w", err)
	}
	return e, nil
}

// pipe makes a pipe whose end of index their is for another process, which
// must find it blocking; ours is watched by the runtime's poller.
func pipe(their int) (theirs, ours *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[their]), "pipe")
	if err := unix.SetNonblock(fds[1-their], true); err != nil {
		theirs.Close()
		unix.Close(fds[1-their])
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	return theirs, os.NewFile(uintptr(fds[1-their]), "pipe"), nil
}

func terminalEnds(a Attach) (*ends, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	size := &boot.Terminal{Rows: a.Rows, Cols: a.Cols}
	if size.Rows == 0 || size.Cols == 0 {
		size.Rows, size.Cols = 24, 80
	}
	return &ends{socket: ours, theirs: []*os.File{theirs}, terminal: size}, nil
}

// take returns our end, once PID 1 has started the process. It closes the rest.
func (e *ends) take(deadline time.Time) (*Stream, error) {
	closeAll(e.theirs)
	e.theirs = nil
	if e.terminal == nil {
		s := e.stream
		e.stream = nil
		return s, nil
	}
	master, err := e.master(deadline)
	if err != nil {
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	return &Stream{in: master, out: master, terminal: true}, nil
}

// master receives the terminal's master (boot.Terminal). It comes from inside
// the dyno, so it is looked at before it is used.
func (e *ends) master(deadline time.Time) (*os.File, error) {
	if err := e.socket.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	text, oob := make([]byte, 512), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := e.socket.ReadMsgUnix(text, oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	if control, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(control) == 1 {
		fds, _ = unix.ParseUnixRights(&control[0])
	}
	if len(fds) != 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		if n == 0 {
			return nil, errors.New("the process ended before it had one")
		}
		return nil, errors.New(string(text[:n]))
	}
	unix.CloseOnExec(fds[0])
	if _, err := unix.IoctlGetInt(fds[0], unix.TIOCGPTN); err != nil {
		unix.Close(fds[0])
		return nil, fmt.Errorf("what came is not a terminal's master: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}

func (e *ends) close() {
	closeAll(e.theirs)
	if e.socket != nil {
		e.socket.Close()
	}
	if e.stream != nil {
		e.stream.Close()
	}
}

// socketPair makes two ends, one of them for another process.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	theirs = os.NewFile(uintptr(pair[1]), "socket")
	f := os.NewFile(uintptr(pair[0]), "socket")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("open socket: %w", err)
	}
	return conn.(*net.UnixConn), theirs, nil
}

// appUID is the app's user id on the host.
func (s slot) appUID(c Config) int { return s.uid(c) + manifold.DynoUID }
