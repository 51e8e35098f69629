package onemachine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// daemon is one of our processes. It has a session of its own, so that Ctrl-C
// reaches only us, and writes straight to its log file, so that our death does
// not break its pipe.
//
//	starting ──up──▶ kept up ──dies──▶ wait (0.5 s, doubling to 30 s) ──▶ kept up
//	    └──dies──▶ ended                   └──────stop──────▶ ended
type daemon struct {
	m       *machine
	name    string
	argv    []string
	env     []string
	logPath string

	stopping chan struct{} // closed by stop: do not bring it back
	stopOnce sync.Once
	kept     chan struct{} // closed by keepUp
	died     chan struct{} // closed when it died before keepUp
	ended    chan struct{} // closed when nobody watches over it any more

	mu      sync.Mutex
	process *os.Process // nil while it is not running
	told    bool        // to end, by stop
	end     string      // how the last process ended
}

// maxLog is where a daemon's log is cut and its older half moved to NAME.1.
const maxLog = 16 << 20

const (
	firstWait = 500 * time.Millisecond
	longWait  = 30 * time.Second
	goodRun   = time.Minute // a run this long forgets earlier failures
)

func startDaemon(m *machine, name string, env, argv []string) (*daemon, error) {
	if err := os.MkdirAll(m.logDir(), 0o755); err != nil {
		return nil, err
	}
	d := &daemon{
		m: m, name: name, argv: argv, env: env,
		logPath:  filepath.Join(m.logDir(), name+".log"),
		stopping: make(chan struct{}), kept: make(chan struct{}),
		died: make(chan struct{}), ended: make(chan struct{}),
	}
	if err := rotate(d.logPath); err != nil {
		return nil, err
	}
	cmd, err := d.spawn()
	if err != nil {
		return nil, err
	}
	go d.watch(cmd)
	return d, nil
}

// rotate keeps the log of the former start as NAME.1.
func rotate(path string) error {
	if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (d *daemon) spawn() (*exec.Cmd, error) {
	out, err := os.OpenFile(d.logPath, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(d.argv[0], d.argv[1:]...)
	cmd.Env, cmd.Dir = d.env, "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.process = cmd.Process
	told := d.told
	d.mu.Unlock()
	if told { // stop came while there was no process
		d.signal(syscall.SIGTERM)
	}
	if err := writeRecord(d.m.Settings, d.name, cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("record the process: %w", err)
	}
	return cmd, nil
}

// watch waits for the process and brings it back until stop is called.
func (d *daemon) watch(cmd *exec.Cmd) {
	defer close(d.ended)
	wait := firstWait
	for {
		began := time.Now()
		d.await(cmd)
		removeRecord(d.m.Settings, d.name)
		switch {
		case closed(d.stopping):
			return
		case d.diedEarly():
			return
		}
		if time.Since(began) > goodRun {
			wait = firstWait
		}
		for cmd = nil; cmd == nil; {
			d.m.say("%s ended (%s); starting it again in %s. The end of %s:\n%s", d.name, d.lastEnd(), wait, d.logPath, d.tail())
			select {
			case <-d.stopping:
				return
			case <-time.After(wait):
			}
			wait = min(2*wait, longWait)
			var err error
			if cmd, err = d.spawn(); err != nil {
				d.setEnd(err.Error())
			}
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// await waits until the process has ended and keeps its log within bounds.
func (d *daemon) await(cmd *exec.Cmd) {
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			d.mu.Lock()
			d.process = nil
			d.mu.Unlock()
			if err != nil {
				d.setEnd(err.Error())
			} else {
				d.setEnd("exit status 0")
			}
			return
		case <-tick.C:
			if err := cutLog(d.logPath); err != nil {
				d.m.say("The log %s cannot be kept short: %v", d.logPath, err)
			}
		}
	}
}

// cutLog moves a log that grew past maxLog to NAME.1 and empties it. The
// daemon appends (O_APPEND), so its next line is the first of the file again.
func cutLog(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() <= maxLog {
		return err
	}
	old, err := os.OpenFile(path+".1", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(old, io.NewSectionReader(f, info.Size()-maxLog, maxLog))
	return errors.Join(err, old.Close(), f.Truncate(0))
}

// keepUp says that the daemon was up: from now on it is brought back. It is false
// when it has died by then: nobody watches over it any more.
func (d *daemon) keepUp() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if closed(d.died) {
		return false
	}
	close(d.kept)
	return true
}

// diedEarly says, and notes, that the daemon has died before keepUp.
func (d *daemon) diedEarly() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if closed(d.kept) {
		return false
	}
	close(d.died)
	return true
}

// signal sends sig to the process, if there is one.
func (d *daemon) signal(sig os.Signal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.process != nil {
		_ = d.process.Signal(sig) // it may have ended just now
	}
}

// stop ends the daemon: SIGTERM, and SIGKILL when it takes longer than patience.
func (d *daemon) stop(patience time.Duration) {
	d.leave()
	d.mu.Lock()
	d.told = true
	d.mu.Unlock()
	d.signal(syscall.SIGTERM)
	select {
	case <-d.ended:
		return
	case <-time.After(patience):
	}
	d.m.say("%s does not end: killing it", d.name)
	d.signal(syscall.SIGKILL)
	<-d.ended
}

// leave lets the daemon end without being brought back.
func (d *daemon) leave() { d.stopOnce.Do(func() { close(d.stopping) }) }

func (d *daemon) setEnd(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.end = s
}

func (d *daemon) lastEnd() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.end
}

// tail returns the last lines of the log, for a person to read.
func (d *daemon) tail() string {
	const bytesMax, linesMax = 4 << 10, 12
	f, err := os.Open(d.logPath)
	if err != nil {
		return "       (" + err.Error() + ")"
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > bytesMax {
		_, _ = f.Seek(-bytesMax, io.SeekEnd)
	}
	text, _ := io.ReadAll(io.LimitReader(f, bytesMax))
	lines := strings.Split(string(bytes.TrimSpace(text)), "\n")
	lines = lines[max(0, len(lines)-linesMax):]
	return "       " + strings.Join(lines, "\n       ")
}
