package onemachine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"manifold"
)

// A former `manifold run` that was killed leaves its daemons running: they have
// sessions of their own, and dynos do not need it. The next run finds them by
// the records below and replaces them; the new agent adopts the dynos.

// lock makes sure that one `manifold run` uses these settings at a time.
func lock(s manifold.Settings) (unlock func(), err error) {
	var held []*os.File
	unlock = func() {
		for _, f := range held {
			f.Close()
		}
	}
	for _, dir := range []string{s.Home, s.Run} {
		f, err := os.OpenFile(filepath.Join(dir, "run.lock"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			unlock()
			return nil, err
		}
		held = append(held, f)
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			pid := make([]byte, 16)
			n, _ := f.ReadAt(pid, 0)
			unlock()
			return nil, fmt.Errorf("manifold run is running already with %s (process %s): stop that one first, or give this one a MANIFOLD_HOME, MANIFOLD_RUN, MANIFOLD_INSTANCE and addresses of its own", dir, strings.TrimSpace(string(pid[:n])))
		}
		if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintf("%d\n", os.Getpid()))); err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// record names a process so that a later one with the same number is not
// mistaken for it: boot id and start time go with it.
type record struct {
	PID   int    `json:"pid"`
	Boot  string `json:"boot"`
	Start string `json:"start"` // field 22 of proc_pid_stat(5)
}

func recordPath(s manifold.Settings, name string) string {
	return filepath.Join(s.Run, name+".process.json")
}

func writeRecord(s manifold.Settings, name string, pid int) error {
	r, err := identify(pid)
	if err != nil {
		return err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := recordPath(s, name)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func removeRecord(s manifold.Settings, name string) { _ = os.Remove(recordPath(s, name)) }

func identify(pid int) (record, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return record{}, err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return record{}, err
	}
	// The name in field 2 may hold blanks and brackets; what follows its
	// last bracket may not.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return record{}, fmt.Errorf("/proc/%d/stat is cut short", pid)
	}
	return record{PID: pid, Boot: strings.TrimSpace(string(boot)), Start: fields[19]}, nil
}

// replaceStale ends the daemons that a killed run left behind, the agent last.
func (m *machine) replaceStale() error {
	for _, name := range []string{"router", "coordinator", "agent"} {
		text, err := os.ReadFile(recordPath(m.Settings, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		var r record
		if json.Unmarshal(text, &r) != nil || r.PID <= 1 {
			removeRecord(m.Settings, name) // half-written before a power cut
			continue
		}
		if err := m.endStale(name, r); err != nil {
			return err
		}
		removeRecord(m.Settings, name)
	}
	return nil
}

func (m *machine) endStale(name string, r record) error {
	fd, err := unix.PidfdOpen(r.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at process %d: %w", r.PID, err)
	}
	defer unix.Close(fd)
	// The descriptor is held first: what is identified now is what it names.
	if now, err := identify(r.PID); err != nil || now != r {
		return nil
	}
	m.say("A former run was killed and left its %s (process %d): replacing it. Dynos go on.", name, r.PID)
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, 10 * time.Second}, {syscall.SIGKILL, 10 * time.Second}} {
		if err := unix.PidfdSendSignal(fd, step.signal, nil, 0); errors.Is(err, unix.ESRCH) {
			return nil
		} else if err != nil {
			return fmt.Errorf("end process %d: %w", r.PID, err)
		}
		if pidfdEnded(fd, step.wait) {
			return nil
		}
	}
	return fmt.Errorf("the former %s (process %d) does not die: it hangs in the kernel; look at its stack in /proc/%d/stack, a reboot may be needed", name, r.PID, r.PID)
}

// pidfdEnded waits until the process has ended (pidfd_open(2): then the
// descriptor is readable).
func pidfdEnded(fd int, wait time.Duration) bool {
	deadline := time.Now().Add(wait)
	for {
		left := time.Until(deadline)
		if left < 0 {
			return false
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if n == 1 && err == nil {
			return true
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}
