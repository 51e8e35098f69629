package agent

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// systemdAt plays systemd's end of the notification socket; what it returns
// takes the messages that came since it was last called.
func systemdAt(t *testing.T, watchdog string) (messages func() []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", watchdog)
	return func() (list []string) {
		buf := make([]byte, 4096)
		for {
			n, err := unix.Read(fd, buf)
			if errors.Is(err, unix.EAGAIN) {
				return list
			}
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, string(buf[:n]))
		}
	}
}

func TestWatchdogIsFedOnlyWhileEveryLoopMakesProgress(t *testing.T) {
	messages := systemdAt(t, "30000000")
	// Nobody sends much faster than systemd reads: its queue holds some ten.
	during := func(d time.Duration) (fed int, last string) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
			for _, m := range messages() {
				fed += strings.Count(m, "WATCHDOG=1")
				last = m
			}
		}
		return fed, last
	}
	inTime(t, func(t *testing.T, w *world) {
		hung := make(chan struct{})
		a := w.start()
		a.work.Go(func() { a.notifySystemd(a.ctx) })
		time.Sleep(time.Second)
		if first := messages(); len(first) != 1 || first[0] != "READY=1\nSTATUS=no dynos; the coordinator does not answer, dynos run on" {
			t.Errorf("at first it says %q", first)
		}
		w.want(fakeAssignment(), fakeAssignment())
		if n, last := during(time.Hour); n < 3600/10 || !strings.Contains(last, "STATUS=dynos: 2 up;") {
			t.Errorf("in an hour it was fed %d times, and lastly %q", n, last)
		}
		a.fault = func(string) { <-hung } // as a disk that does not answer
		w.want(fakeAssignment())
		during(stuckAfter + 10*time.Second)
		if n, last := during(time.Minute); n != 0 || !strings.Contains(last, "the agent's loop of dyno app/web.1") {
			t.Errorf("a driver hangs, and it was fed %d times and says %q", n, last)
		}
		close(hung)
		if n, last := during(10 * time.Second); n == 0 || !strings.Contains(last, "STATUS=dynos: 1 up;") {
			t.Errorf("nothing hangs any more, and it was fed %d times and says %q", n, last)
		}
		w.stop()
		if last := messages(); len(last) == 0 || !strings.Contains(last[len(last)-1], "STOPPING=1") {
			t.Errorf("at the end it says %q", last)
		}
	})
}

// TestDynoThatIsSeldomSampledIsNoHang: MANIFOLD_SAMPLE_EVERY may be longer than
// a loop's turn.
func TestDynoThatIsSeldomSampledIsNoHang(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		a := w.start()
		a.sampleEvery = 2 * time.Hour
		w.want(fakeAssignment())
		for range 60 {
			time.Sleep(time.Minute)
			if err := a.Alive(a.ctx); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestSuspendIsNoHang: how long a loop is silent is measured on the monotonic
// clock, which stands still while the host sleeps; by the clock on the wall
// every loop would be stuck when it wakes.
func TestSuspendIsNoHang(t *testing.T) {
	p := newPulse()
	p.beat("loop")
	if at := p.last["loop"]; at == at.Round(0) { // which takes the monotonic reading away
		t.Errorf("a beat is noted as %v, without a monotonic reading", at)
	}
}
