package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"manifold"
	"manifold/isolation"
)

// What a host goes through (docs/host-life.md), and what people do to it.

// TestCoordinatorAwayForADay: what crashes meanwhile comes back by itself, and
// nothing is started again when the coordinator is back.
func TestCoordinatorAwayForADay(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		steady, shaky := fakeAssignment(), fakeAssignment()
		shaky.Dyno, shaky.Command = "worker.1", "shaky"
		w.host.onStart = func(b *fakeBox) error {
			if strings.Contains(strings.Join(b.spec.Argv, " "), "shaky") {
				time.AfterFunc(time.Hour, func() { b.end(&isolation.Exit{Status: 1, At: time.Now()}) })
			}
			return nil
		}
		w.start()
		w.want(steady, shaky)
		time.Sleep(time.Second)
		run := w.dyno(steady).Run
		w.up.mu.Lock()
		w.up.fail = fmt.Errorf("connection refused")
		w.up.mu.Unlock()
		time.Sleep(24 * time.Hour)
		if d := w.dyno(shaky); d.State != manifold.StateUp || d.Crashes != 1 {
			t.Errorf("what crashed each hour is %+v", d)
		}
		_, before := w.host.count()
		if before < 24 || before > 26 {
			t.Errorf("%d boxes were started in a day of an hourly crash", before)
		}
		w.up.mu.Lock()
		w.up.fail = nil
		w.up.mu.Unlock()
		w.want(steady, shaky)
		time.Sleep(10 * time.Minute)
		if _, now := w.host.count(); now != before || w.dyno(steady).Run != run {
			t.Errorf("its return started %d boxes; the steady dyno ran as %s and now as %s", now-before, run, w.dyno(steady).Run)
		}
	})
}

// TestHealthCheckOfWhatAllNeed: what all dynos of an app wait for is down for
// hours. They are restarted one at a time, no more often than if they crashed,
// and without the coordinator; another app's are left alone.
func TestHealthCheckOfWhatAllNeed(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		var all []manifold.Assignment
		for n := range 5 {
			a := fakeAssignment()
			a.Dyno, a.Env = fmt.Sprintf("web.%d", n+1), map[string]string{manifold.HealthCheckVar: "/health"}
			all = append(all, a)
		}
		all[4].App, all[4].Env = "other", nil
		w.setWorks(func(string) error { return fmt.Errorf("status 503") })
		w.host.onStart = func(b *fakeBox) error { b.slow = 40 * time.Second; return nil }
		w.start()
		w.up.setFail(fmt.Errorf("connection refused"))
		w.want(all...)
		for began := time.Now(); time.Since(began) < 3*time.Hour; time.Sleep(7 * time.Second) {
			up := 0
			for _, d := range w.agent.observation().Dynos {
				if d.State == manifold.StateUp {
					up++
				}
			}
			if up < 4 && time.Since(began) > time.Minute {
				t.Fatalf("after %v only %d of 5 are up", time.Since(began), up)
			}
		}
		_, starts := w.host.count()
		if per := float64(starts-1) / 4; per < 10 || per > 20 {
			t.Errorf("each was started %.1f times in three hours", per)
		}
		w.setWorks(nil)
		time.Sleep(time.Minute)
		_, before := w.host.count()
		time.Sleep(time.Hour)
		if _, now := w.host.count(); now != before {
			t.Errorf("%d were restarted when all was well", now-before)
		}
	})
}

// TestClockSetBack: a wait that was written down before must not grow by it.
func TestClockSetBack(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		a := fakeAssignment()
		w.start()
		w.want(a)
		for range 2 { // the second wait is ten minutes
			time.Sleep(time.Second)
			w.host.only(t).end(&isolation.Exit{Status: 1, At: time.Now()})
		}
		time.Sleep(time.Second)
		if d := w.dyno(a); d.State != manifold.StateCrashed || d.NextTry.IsZero() {
			t.Fatalf("it is %+v", d)
		}
		w.stop()
		// As if the clock was five hours ahead when the record was written.
		s := shelf{w.home.dynos(), w.log}
		rec, err := s.read(a.ID)
		if err != nil {
			t.Fatal(err)
		}
		rec.Dyno.Due = rec.Dyno.Due.Add(5 * time.Hour)
		for i := range rec.Effects {
			if !rec.Effects[i].At.IsZero() {
				rec.Effects[i].At = rec.Effects[i].At.Add(5 * time.Hour)
			}
		}
		if err := s.put(rec); err != nil {
			t.Fatal(err)
		}
		w.start()
		time.Sleep(11 * time.Minute)
		if d := w.dyno(a); d.State != manifold.StateUp {
			t.Errorf("eleven minutes later it is %s, next try %v from now", d.State, time.Until(d.NextTry))
		}
	})
}

// cgroups are a run's directories, one in each hierarchy.
func (r *rig) cgroups(run string) (dirs []string) {
	r.t.Helper()
	var box struct{ Cgroup string }
	text, err := os.ReadFile(filepath.Join(r.dir, "home", "agent", "runs", run, "box.json"))
	if err == nil {
		err = json.Unmarshal(text, &box)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	for _, parent := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		found, _ := filepath.Glob(filepath.Join(parent, r.instance, box.Cgroup))
		dirs = append(dirs, found...)
	}
	return dirs
}

// TestDesiredIsSavedWhenThereIsRoom: a disk that takes nothing holds up no dyno,
// and once it takes something again what is desired is on it.
func TestDesiredIsSavedWhenThereIsRoom(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		w.start()
		if err := os.MkdirAll(filepath.Join(w.home.desired(), "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
		a := fakeAssignment()
		w.want(a)
		time.Sleep(time.Hour)
		if d := w.dyno(a); d.State != manifold.StateUp {
			t.Errorf("it is %+v", d)
		}
		if err := os.RemoveAll(w.home.desired()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if text, err := os.ReadFile(w.home.desired()); err != nil || !strings.Contains(string(text), a.ID) {
			t.Errorf("on disk is %q, %v", text, err)
		}
	})
}

// initPID finds a run's PID 1 as the host sees it.
func (r *rig) initPID(run string) int {
	r.t.Helper()
	for _, dir := range r.cgroups(run) {
		text, _ := os.ReadFile(filepath.Join(dir, "init", "cgroup.procs"))
		for pid := range strings.FieldsSeq(string(text)) { // the app, too, until it has moved on
			status, _ := os.ReadFile("/proc/" + pid + "/status")
			if _, rest, _ := strings.Cut(string(status), "\nNSpid:"); strings.HasSuffix(strings.Split(rest, "\n")[0], "\t1") {
				n, _ := strconv.Atoi(pid)
				return n
			}
		}
	}
	r.t.Fatalf("no cgroup of run %s holds a PID 1", run)
	return 0
}

// TestPID1Killed: someone kills a dyno's PID 1. All of it ends without an exit
// record; it is a crash, and the next run is whole.
func TestPID1Killed(t *testing.T) {
	r := newRig(t)
	a := r.assignment(`sleep 1000`)
	r.want(a)
	first := r.awaitState(a.ID, manifold.StateUp)
	if err := syscall.Kill(r.initPID(first.Run), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d := r.await(a.ID, "another run", func(d manifold.Dyno) bool { return d.State == manifold.StateUp && d.Run != first.Run })
	if d.Result == nil || d.Result.Cause != manifold.CauseLost || d.Crashes != 1 {
		t.Errorf("it is %+v, %+v", d, d.Result)
	}
	r.awaitLine(first.Run, "heroku", "Process ended without an exit record")
}

// TestCgroupsRemovedByHand: while no agent runs, someone kills a dyno and
// removes its cgroups, and its PID 1's number goes to a stranger. The next
// agent takes neither for the dyno, starts it anew and lets the stranger be.
func TestCgroupsRemovedByHand(t *testing.T) {
	r := newRig(t)
	a := r.assignment(`sleep 1000`)
	r.want(a)
	first := r.awaitState(a.ID, manifold.StateUp)
	pid := r.initPID(first.Run)
	r.end(syscall.SIGKILL)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the dyno's cgroups can be removed", func() bool {
		dirs := r.cgroups(first.Run)
		for _, dir := range dirs {
			inner, _ := filepath.Glob(filepath.Join(dir, "*/"))
			for _, d := range append(inner, dir) {
				_ = syscall.Rmdir(d) // files are none of it; busy ones at the next look
			}
		}
		return len(dirs) == 0
	}, nil)
	stranger := namedBy(t, pid)
	r.start()
	d := r.await(a.ID, "another run", func(d manifold.Dyno) bool { return d.State == manifold.StateUp && d.Run != first.Run })
	if d.Result == nil || d.Result.Cause != manifold.CauseLost {
		t.Errorf("it is %+v, %+v", d, d.Result)
	}
	if err := stranger.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the stranger with number %d: %v", pid, err)
	}
	eventually(t, "one box is left", func() bool {
		dirs, _ := filepath.Glob(filepath.Join(r.dir, "home", "agent", "runs", "*-*-*-*-*"))
		return len(dirs) == 1
	}, nil)
}

// namedBy starts a process with a number of our choice, as far as a busy host
// lets us: /proc/sys/kernel/ns_last_pid is the one before the next (proc(5)).
func namedBy(t *testing.T, pid int) *exec.Cmd {
	t.Helper()
	eventually(t, "the host's init has reaped the dyno", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
		return err != nil
	}, nil)
	for range 1000 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		end := func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
		if cmd.Process.Pid == pid {
			t.Cleanup(end)
			return cmd
		}
		end()
	}
	t.Fatalf("no process could be given the number %d", pid)
	return nil
}
