package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"manifold/isolation/boot"
	"manifold/isolation/segment"
)

// dyno is the running dyno as its PID 1 sees it.
type dyno struct {
	msg    boot.Message
	place  boot.Place
	dir    *os.File // PID 1's directory on the host
	logDir *os.File
	door   *os.File // listens for requests; see exec.go
	first  *process // waits to become the app
	app    int      // pid of the app's first process
	procs  []*os.File
	stats  []*os.File
	ooms   *os.File
	signal chan os.Signal
	log    <-chan uint64 // number of lines, once output has ended

	mu     sync.Mutex     // held while a child is forked or reaped
	guests map[int]*guest // by pid; see exec.go
	ending bool           // the app's first process has ended: no more guests
}

// newDyno makes a dyno in which nothing runs yet. The process that will be the
// app is there already: to start a program and to move it into its cgroups is
// most of a start.
func newDyno(place boot.Place, fds descriptors) (*dyno, error) {
	d := &dyno{
		place: place,
		dir:   fds.dir, procs: fds.procs, stats: fds.stats, ooms: fds.ooms,
		signal: make(chan os.Signal, 8), guests: map[int]*guest{},
	}
	signal.Notify(d.signal, unix.SIGTERM, unix.SIGHUP)
	var err error
	if d.logDir, err = openDir(d.dir, boot.LogName); err != nil {
		return nil, fmt.Errorf("open log directory: %w", err)
	}
	if err := d.keepRoom(); err != nil {
		return nil, fmt.Errorf("keep room for the exit record: %w", err)
	}
	if d.door, err = listen(d.dir); err != nil {
		return nil, err
	}
	if d.first, err = spawn(d.procs, place, false); err != nil {
		return nil, err
	}
	return d, d.first.placed()
}

// start starts the app and the copying of its output.
func (d *dyno) start(app appFiles) error {
	if err := unix.Sethostname([]byte(d.msg.Run)); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	w, err := segment.NewWriter(d.logDir, d.msg.LogLimit)
	if err != nil {
		return err
	}
	r, output, err := os.Pipe()
	if err != nil {
		return err
	}
	defer output.Close()
	// The app may open its output again through /dev/stdout.
	if err := output.Chown(d.place.UID, d.place.UID); err != nil {
		return fmt.Errorf("give the app its output: %w", err)
	}
	// A roomy pipe keeps a burst from waiting for the disk; the default does too, later.
	_, _ = unix.FcntlInt(output.Fd(), unix.F_SETPIPE_SZ, pipeSize)
	io := stdio{in: app.stdin, out: output}
	switch {
	case d.msg.Output:
		io.out = app.attach
	case d.msg.Terminal != nil:
		io.terminal = app.attach
	}
	if err := d.first.become(d.msg, io); err != nil {
		return err
	}
	d.app = d.first.pid
	app.stdin.Close()
	if app.attach != nil {
		app.attach.Close() // it is the app's alone from now on, so that its end can be seen
	}
	go d.admitAll()
	lines := make(chan uint64, 1)
	go func() { lines <- copyLines(r, w) }()
	d.log = lines
	return nil
}

func openDir(parent *os.File, name string) (*os.File, error) {
	if err := unix.Mkdirat(int(parent.Fd()), name, 0o700); err != nil && err != unix.EEXIST {
		return nil, err
	}
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// run sees the dyno to its end and writes the exit record. The dyno ends when
// the app's first process does: whatever that leaves behind is killed.
func (d *dyno) run() {
	ended := make(chan boot.Record, 1)
	gone := make(chan struct{})
	go d.reap(ended, gone)

	limit, pressure := watchOOM(d.ooms), watchPressure(d.stats)
	var expire, force <-chan time.Time
	if d.msg.TTL > 0 {
		expire = time.After(d.msg.TTL)
	}
	var expired, forced bool
	var oom *boot.OOM
	stop := func() {
		if force == nil {
			_ = unix.Kill(-1, unix.SIGTERM) // nobody there: reap will say so
			if d.msg.Terminal != nil {
				_ = unix.Kill(-1, unix.SIGHUP) // an interactive shell heeds no other
			}
			force = time.After(d.msg.Grace)
		}
	}
	for {
		select {
		case s := <-d.signal:
			if s == unix.SIGHUP { // the client is gone
				_ = unix.Kill(-1, unix.SIGHUP)
			} else {
				stop()
			}
		case <-expire:
			expired = true
			stop()
		case <-force:
			forced = true
			_ = unix.Kill(-1, unix.SIGKILL)
		case <-limit.struck:
			if oom == nil {
				oom = seeMemory(d.stats)
			}
			_ = unix.Kill(-1, unix.SIGKILL)
		case record := <-ended:
			<-gone
			if oom == nil && limit.last() {
				oom = seeMemory(d.stats)
			}
			if oom == nil {
				oom = pressure.last()
			}
			// Who ended within the grace may be seen after it: only who died of
			// SIGKILL was forced.
			forced = forced && record.Status == 128+int(unix.SIGKILL)
			record.Expired, record.Forced, record.OOM = expired, forced, oom
			record.Lines = <-d.log
			d.write(record)
			return
		}
	}
}

// reap waits for every child there is and ever will be; orphans become
// children of PID 1. When the app's first process ends it kills the rest.
func (d *dyno) reap(ended chan<- boot.Record, gone chan<- struct{}) {
	for {
		// Looked at first and reaped under the lock: as long as that is held
		// no pid of a child can become a stranger's.
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil { // ECHILD: none left
			close(gone)
			return
		}
		d.mu.Lock()
		d.reapOne(ended)
		d.mu.Unlock()
	}
}

// reapOne is called with mu held.
func (d *dyno) reapOne(ended chan<- boot.Record) {
	var wait syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &wait, syscall.WNOHANG, nil)
	if err != nil || pid <= 0 {
		return
	}
	status := wait.ExitStatus()
	if wait.Signaled() {
		status = 128 + int(wait.Signal())
	}
	if pid == d.app {
		d.ending = true
		ended <- boot.Record{Status: status, At: time.Now().UTC()}
		_ = unix.Kill(-1, unix.SIGKILL)
	} else if g := d.guests[pid]; g != nil {
		delete(d.guests, pid)
		g.ended <- status
	}
}

// keepRoom has the exit record's room on disk before anything runs: how the
// dyno ended must be told also where somebody has filled the host's disk
// meanwhile, such as the dyno's own writable layer.
func (d *dyno) keepRoom() error {
	const room = 32 << 10 // for what seeMemory sees, too
	f, err := d.openRecord()
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.EINTR
	for err == unix.EINTR { // the runtime's own signals come at any time
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, room)
	}
	if err == unix.EOPNOTSUPP {
		return nil
	}
	return err
}

// write leaves the exit record, whole or not at all. Where its room was not
// enough, on a full disk, it tries again for a while: the truth of how the dyno
// ended may not be dropped.
func (d *dyno) write(record boot.Record) {
	data, err := json.Marshal(record)
	if err != nil {
		return
	}
	for range 20 {
		if d.writeRecord(data) == nil && unix.Renameat(int(d.dir.Fd()), tempRecord, int(d.dir.Fd()), boot.RecordName) == nil {
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
}

func (d *dyno) writeRecord(data []byte) error {
	f, err := d.openRecord()
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(data)
	return err
}

const tempRecord = boot.RecordName + ".new"

// openRecord opens the record's file until it is whole, and leaves it its room.
func (d *dyno) openRecord() (*os.File, error) {
	fd, err := unix.Openat(int(d.dir.Fd()), tempRecord, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), tempRecord), nil
}

// pipeSize is how much output waits in the kernel, in bytes.
const pipeSize = 256 << 10

// breath is how long the pipe of an app that floods it fills up before it is
// read again. Read as soon as there is something, app and PID 1 hand each other
// the processor twenty thousand times a second, and Linux 6.18's scheduler then
// leaves others on that processor waiting for up to 0.4 s.
const breath = time.Millisecond

// copyLines cuts output into lines and keeps them until the last process has
// closed its end. It never waits for anything but output, so that a full disk
// or a dead agent cannot block the app.
func copyLines(r *os.File, w *segment.Writer) uint64 {
	buf := make([]byte, pipeSize) // of which a quiet app has one page touched
	held := 0                     // bytes at the front of buf that belong to an unfinished line
	for {
		n, err := r.Read(buf[held:])
		now := time.Now()
		rest := buf[:held+n]
		for {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			w.Buffer(now, bytes.TrimSuffix(rest[:i], []byte{'\r'}))
			rest = rest[i+1:]
		}
		for len(rest) > segment.MaxLine+len("\r") { // else its end may be all that is missing
			w.Buffer(now, rest[:segment.MaxLine])
			rest = rest[segment.MaxLine:]
		}
		if err != nil {
			if len(rest) > 0 {
				w.Buffer(now, rest)
			}
			w.Close()
			return w.Seq()
		}
		w.Flush()
		held = copy(buf, rest)
		if n >= pipeSize/4 {
			time.Sleep(breath)
		}
	}
}
