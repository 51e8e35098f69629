package isolation

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"manifold/isolation/boot"
)

// Box is one dyno's box, running or ended. It is safe for concurrent use.
type Box struct {
	host   *Host
	record boxRecord
	done   chan struct{} // closed when everything in it has ended

	attached *Stream // of the app, if this process started it so; set by Start alone

	mu    sync.Mutex
	pidfd *os.File // of PID 1; nil if it is gone
	pid   int
}

func (h *Host) box(record boxRecord) *Box {
	return &Box{host: h, record: record, done: make(chan struct{})}
}

// Boxes finds every run that has a directory or a cgroup of ours, whatever
// process started it. A run whose box.json is missing or broken comes with its
// directory alone, a cgroup that no record names with its slot: they are only
// good for Remove. Spare boxes are not among them.
func (h *Host) Boxes() ([]*Box, error) {
	records, err := h.records()
	if err != nil {
		return nil, err
	}
	var boxes []*Box
	for _, record := range records {
		if record.broken != nil {
			h.cfg.Log.Warn("run without a usable record", "run", record.Run, "error", record.broken)
		}
		b := h.box(record)
		if err := b.find(); err != nil {
			return nil, fmt.Errorf("adopt run %s: %w", record.Run, err)
		}
		boxes = append(boxes, b)
	}
	return boxes, nil
}

// find looks for a box's PID 1, which another process may have started.
func (b *Box) find() error {
	pid := b.host.cgroups.initPID(b.record.group())
	if pid == 0 {
		close(b.done)
		return nil
	}
	return b.watch(pid, nil)
}

// watch waits for the end of PID 1. The kernel lets a PID 1 end only after
// everything else in its namespace has (pid_namespaces(7)). child is the
// process if it is ours to reap.
func (b *Box) watch(pid int, child *os.Process) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		close(b.done)
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pidfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	if child == nil && b.host.cgroups.initPID(b.record.group()) != pid {
		f.Close() // it ended between the two looks, and its number may be a stranger's now
		close(b.done)
		return nil
	}
	b.pidfd, b.pid = f, pid
	b.host.boxes.Go(func() { b.wait(f, child) })
	return nil
}

func (b *Box) wait(f *os.File, child *os.Process) {
	if conn, err := f.SyscallConn(); err == nil {
		// The runtime's poller watches the pidfd: no thread waits for it.
		_ = conn.Read(func(fd uintptr) bool {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(poll, 0)
			return n > 0 || err != nil && err != unix.EINTR
		})
	}
	if child != nil {
		_, _ = child.Wait()
	}
	b.mu.Lock()
	b.pidfd.Close()
	b.pidfd = nil
	b.mu.Unlock()
	close(b.done)
}

// Run is the run's id.
func (b *Box) Run() string { return b.record.Run }

// Addr is the dyno's address; only this host reaches it.
func (b *Box) Addr() netip.Addr { return b.record.Slot.dynoAddr(b.host.cfg) }

// Dir is the run's directory on the host. The agent may keep files named
// agent-* in it; it goes with Remove.
func (b *Box) Dir() string { return filepath.Join(b.host.cfg.Dir, b.record.Run) }

// LogDir holds the dyno's log segments (package segment).
func (b *Box) LogDir() string { return filepath.Join(b.Dir(), pid1Name, boot.LogName) }

// Begun says whether PID 1 runs the app, for which it needs nobody any more.
// Until then it has the capability to build the dyno, and then gives it up.
func (b *Box) Begun() bool {
	b.mu.Lock()
	pid, gone := b.pid, b.pidfd == nil
	b.mu.Unlock()
	if gone {
		return false
	}
	status, err := readSmall("/proc/" + strconv.Itoa(pid) + "/status")
	_, rest, _ := strings.Cut(status, "\nCapPrm:\t")
	text, _, _ := strings.Cut(rest, "\n")
	caps, capsErr := strconv.ParseUint(text, 16, 64)
	return err == nil && capsErr == nil && caps&(1<<unix.CAP_SYS_ADMIN) == 0
}

// Done is closed when every process of the dyno has ended.
func (b *Box) Done() <-chan struct{} { return b.done }

// Stop makes PID 1 stop the dyno: SIGTERM to every process, SIGKILL after
// Spec.Grace. It returns at once; asking again changes nothing. A frozen dyno
// is thawed for it, else no process of it could end in its own way.
func (b *Box) Stop() error { return errors.Join(b.Thaw(), b.signal(unix.SIGTERM)) }

// Hangup has PID 1 send SIGHUP to every process: whoever was attached is gone.
// PID 1 itself stays; one of an agent that did not know Spec.Attach would end.
func (b *Box) Hangup() error { return b.signal(unix.SIGHUP) }

// Attached is the app's standard streams, where Spec.Attach asked for them and
// this Host started the dyno: they do not outlive it. The caller, of whom
// there must be one, closes it.
func (b *Box) Attached() *Stream { return b.attached }

// Kill ends everything in the dyno now. There may be no exit record.
func (b *Box) Kill() error {
	return errors.Join(b.signal(unix.SIGKILL), b.host.cgroups.kill(b.record.group()))
}

func (b *Box) signal(s syscall.Signal) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pidfd == nil {
		return nil
	}
	conn, err := b.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = conn.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), s, nil, 0) })
	if errors.Is(sent, unix.ESRCH) {
		sent = nil
	}
	if err := errors.Join(err, sent); err != nil {
		return fmt.Errorf("signal PID 1 of %s: %w", b.record.Run, err)
	}
	return nil
}

// maxRecord bounds an exit record.
const maxRecord = 64 << 10

// Exit tells how the dyno ended, after Done. ErrNoRecord if nobody knows.
func (b *Box) Exit() (Exit, error) {
	struck, known := b.host.cgroups.struck(b.record.group())
	short := known && !struck // a kill was for the host's sake
	exit := Exit{OOM: !short && b.host.cgroups.ooms(b.record.group()) > 0, Peak: b.host.cgroups.peak(b.record.group())}
	f, err := os.OpenFile(filepath.Join(b.Dir(), pid1Name, boot.RecordName), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return exit, ErrNoRecord
	}
	if err != nil {
		return exit, fmt.Errorf("open exit record: %w", err)
	}
	defer f.Close()
	var record boot.Record
	if err := json.NewDecoder(io.LimitReader(f, maxRecord)).Decode(&record); err != nil {
		return exit, fmt.Errorf("%w: the record cannot be read: %w", ErrNoRecord, err)
	}
	exit.Status, exit.Forced, exit.Expired = record.Status, record.Forced, record.Expired
	exit.At, exit.Lines = record.At, record.Lines
	if record.OOM != nil {
		exit.OOM, exit.Memory = !short, record.OOM
	}
	return exit, nil
}

// Listening says whether a process of the dyno listens on the TCP port, on an
// address that others can reach (proc(5), /proc/net/tcp). It does not connect:
// the app's first connection is a user's.
func (b *Box) Listening(port int) (bool, error) {
	b.mu.Lock()
	pid := b.pid
	gone := b.pidfd == nil
	b.mu.Unlock()
	if gone {
		return false, nil
	}
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/net/" + table)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("read listeners: %w", err)
		}
		found := listens(f, port)
		f.Close()
		if found {
			return true, nil
		}
	}
	return false, nil
}

// listens reads lines like
//
//	0: 00000000:7A69 00000000:0000 0A …
//
// where 0A is TCP_LISTEN and the address is hexadecimal, words in host order.
func listens(table io.Reader, port int) bool {
	lines := bufio.NewScanner(io.LimitReader(table, 4<<20))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != "0A" {
			continue
		}
		// ::ffff:127.0.0.1 is loopback, too: what a JVM makes of 127.0.0.1.
		addr, ok := socketAddr(fields[1])
		if ok && int(addr.Port()) == port && !addr.Addr().IsLoopback() {
			return true
		}
	}
	return false
}

// removePatience bounds how long Remove waits for killed processes to end.
const removePatience = 10 * time.Second

// Remove ends what still runs and takes away everything of the run: link,
// cgroups, directory. It may be called again, also after it failed half-way
// or by another process.
func (b *Box) Remove() error {
	select {
	case <-b.done:
	default:
		if err := b.Kill(); err != nil {
			return err
		}
		b.mu.Lock()
		never := b.pidfd == nil && b.pid == 0 // the clone never came to be
		b.mu.Unlock()
		if !never {
			select {
			case <-b.done:
			case <-time.After(removePatience):
				return fmt.Errorf("remove run %s: its processes do not end", b.record.Run)
			}
		}
	}
	// A fork that raced with the end of PID 1 cannot be; a process put into
	// the cgroup from the host can.
	if err := b.host.cgroups.kill(b.record.group()); err != nil {
		return fmt.Errorf("remove run %s: %w", b.record.Run, err)
	}
	var link error
	if b.record.Slot >= 0 {
		link = b.host.cfg.disconnect(b.record.Slot)
	}
	if err := errors.Join(link, b.host.cgroups.remove(b.record.group()), os.RemoveAll(b.Dir())); err != nil {
		return fmt.Errorf("remove run %s: %w", b.record.Run, err)
	}
	b.host.release(b.record.Slot, b.record.Run)
	return nil
}
