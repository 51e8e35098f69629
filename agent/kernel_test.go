package agent

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"manifold"
	"manifold/agent/door"
	"manifold/isolation/boot"
	"manifold/isolation/segment"
)

func TestDynoRunsAndStops(t *testing.T) {
	r := newRig(t)
	a := r.assignment(`trap 'echo bye; exit 143' TERM; echo "$GREETING $DYNO $PORT $HOME"; while :; do sleep 0.1; done`)
	r.want(a)
	d := r.awaitState(a.ID, manifold.StateUp)
	r.awaitLine(d.Run, "app", "hello from config worker.1 ")
	if got := r.source(d.Run, "app"); got.App != a.App || got.Process != "worker.1" || got.Assignment != a.ID || got.Source != "app" {
		t.Errorf("the stream is labelled %+v", got)
	}
	r.want()
	r.awaitLine(d.Run, "app", "bye")
	r.awaitLine(d.Run, "heroku", "Process exited with status 143")
	r.awaitGone(a.ID)
	want := []string{
		"State changed from created to starting", "Starting process with command `", "State changed from starting to up",
		"Stopping all processes with SIGTERM", "Process exited with status 143",
	}
	got := r.lines(d.Run, "heroku")
	if len(got) != len(want) {
		t.Fatalf("the platform said %q", got)
	}
	for i, w := range want {
		if !strings.HasPrefix(got[i], w) {
			t.Errorf("line %d is %q, want %q", i+1, got[i], w)
		}
	}
}

func TestWebDynoIsUpWhenItListens(t *testing.T) {
	r := newRig(t)
	a := r.assignment(`mkdir -p /tmp/www && echo "it works" > /tmp/www/index.html; echo >/tmp/wait; echo ready; while [ -e /tmp/wait ]; do sleep 0.1; done; exec busybox httpd -f -p $PORT -h /tmp/www`)
	a.Dyno, a.Web = "web.1", true
	r.want(a)
	d := r.await(a.ID, "an address", func(d manifold.Dyno) bool { return d.Addr != "" })
	r.awaitLine(d.Run, "app", "ready")
	if d, _ := r.dyno(a.ID); d.State != manifold.StateStarting {
		t.Errorf("it is %s before it listens", d.State)
	}
	r.letGo(d.Run)
	d = r.awaitState(a.ID, manifold.StateUp)
	res, err := http.Get("http://" + d.Addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if string(body) != "it works\n" {
		t.Errorf("it answered %q", body)
	}
}

func TestWebDynoThatNeverListens(t *testing.T) {
	r := newRig(t)
	a := r.assignment(`sleep 1000`)
	a.Dyno, a.Web, a.BootTimeout = "web.1", true, time.Second
	r.want(a)
	d := r.await(a.ID, "R10 twice", func(d manifold.Dyno) bool { return d.State == manifold.StateCrashed && d.Crashes == 2 })
	if d.Result.Cause != manifold.CauseBoot || d.Result.Status != 137 {
		t.Errorf("result %+v", d.Result)
	}
	r.awaitLine(d.Run, "heroku", "Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 1 seconds of launch")
}

func TestCrashRestartsAtOnceThenWaits(t *testing.T) {
	r := newRig(t)
	a := r.assignment(`echo try; exit 3`)
	r.want(a)
	d := r.await(a.ID, "two crashes", func(d manifold.Dyno) bool { return d.State == manifold.StateCrashed && d.Crashes == 2 })
	if wait := time.Until(d.NextTry); wait < 9*time.Minute || wait > 10*time.Minute {
		t.Errorf("the next try is in %v", wait)
	}
	if d.Result.Cause != manifold.CauseExit || d.Result.Status != 3 || d.OutputSeq != 1 {
		t.Errorf("result %+v, %d lines", d.Result, d.OutputSeq)
	}
	r.awaitLine(d.Run, "heroku", "State changed from up to crashed")
	b := r.assignment(`sleep 1000`) // restart: another assignment in the same slot
	r.want(b)
	r.awaitState(b.ID, manifold.StateUp)
	r.awaitGone(a.ID)
}

// TestAgentDies: the agent is killed; dynos run on, those that end meanwhile
// are found with their true end, and no line is lost or doubled.
func TestAgentDies(t *testing.T) {
	r := newRig(t)
	counter := r.assignment(`i=0; while :; do i=$((i+1)); echo $i; [ $((i % 50)) = 0 ] && sleep 0.05; done`)
	ends := r.assignment(`echo >/tmp/wait; echo ready; while [ -e /tmp/wait ]; do sleep 0.1; done; exit 7`)
	ends.Dyno = "worker.2"
	r.want(counter, ends)
	before := r.awaitState(counter.ID, manifold.StateUp)
	ended := r.awaitState(ends.ID, manifold.StateUp)
	r.awaitLine(ended.Run, "app", "ready")
	for range 5 {
		r.awaitLine(before.Run, "app", "0")
		r.end(syscall.SIGKILL)
		r.start()
	}
	r.end(syscall.SIGKILL)
	r.letGo(ended.Run)
	eventually(t, "the end of a dyno that nobody watches", func() bool {
		_, err := os.Stat(r.pid1File(ended.Run, boot.RecordName))
		return err == nil
	}, nil)
	r.start()
	r.awaitLine(ended.Run, "heroku", "Process exited with status 7")
	r.awaitLine(ended.Run, "heroku", "State changed from up to crashed")
	d := r.awaitState(counter.ID, manifold.StateUp)
	if d.Run != before.Run || d.Crashes != 0 || !d.Since.Equal(before.Since) {
		t.Errorf("it was %+v, and is %+v", before, d)
	}
	r.end(syscall.SIGTERM)
	r.start()
	r.want()
	r.awaitGone(counter.ID)
	r.awaitLine(d.Run, "heroku", "Process exited")
	checkCount(t, r, d.Run)
	if got := r.lines(d.Run, "heroku"); len(got) != 5 {
		t.Errorf("the platform said %q", got)
	}
}

// pid1File is a file of a run's PID 1.
func (r *rig) pid1File(run, name string) string {
	return filepath.Join(r.dir, "home", "agent", "runs", run, "pid1", name)
}

// letGo takes away the file that a dyno waits with, from outside: there may be
// no agent.
func (r *rig) letGo(run string) {
	r.t.Helper()
	if err := os.Remove(fmt.Sprintf("/proc/%d/root/tmp/wait", r.initPID(run))); err != nil {
		r.t.Fatal(err)
	}
}

// checkCount looks for numbered lines, gap-free and in order.
func checkCount(t *testing.T, r *rig, run string) {
	t.Helper()
	last := -1 // wait until no more come
	eventually(t, "the last line", func() bool {
		r.mu.Lock()
		n := len(r.logs[run+"/app"])
		r.mu.Unlock()
		same := n == last
		last = n
		time.Sleep(300 * time.Millisecond)
		return same
	}, nil)
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.logs[run+"/app"]
	for i, line := range lines {
		if line.Seq != uint64(i+1) || line.Text != fmt.Sprint(i+1) {
			t.Fatalf("line %d is number %d, %q", i+1, line.Seq, line.Text)
		}
	}
	t.Logf("%d lines, %d came twice", len(lines), r.doubled)
}

func TestCoordinatorIsAway(t *testing.T) {
	r := newRig(t)
	a := r.assignment(`i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done`)
	loud := r.assignment(`yes "no room for all of this" | head -c 8000000; sleep 1000`)
	loud.Dyno = "worker.2"
	r.want(a)
	d := r.awaitState(a.ID, manifold.StateUp)
	r.setDown(true)
	r.end(syscall.SIGKILL)
	r.env = append(r.env, "MANIFOLD_LOG_DISK=2")
	r.start() // does not wait for it
	if list := r.ps(); len(list) != 1 || list[0].Run != d.Run || list[0].State != manifold.StateUp {
		t.Errorf("while the coordinator is away ps says %+v", list)
	}
	kept := func() uint64 {
		last, err := segment.Last(r.pid1File(d.Run, boot.LogName), 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(last) == 0 {
			return 0
		}
		return last[0].Seq
	}
	before := kept()
	eventually(t, "lines on disk that nobody fetches", func() bool { return kept() >= before+50 }, nil)
	r.setDown(false)
	r.want(a, loud)
	r.awaitLine(r.awaitState(loud.ID, manifold.StateUp).Run, "heroku", "State changed from starting to up")
	eventually(t, "the loud one has written all its lines, and no more than its room is taken", func() bool {
		kept := int64(0)
		files, _ := filepath.Glob(filepath.Join(r.dir, "home", "agent", "runs", r.awaitState(loud.ID, manifold.StateUp).Run, "pid1", "log", "*"))
		for _, f := range files {
			if info, err := os.Stat(f); err == nil {
				kept += info.Size()
			}
		}
		return kept > 1<<20 && kept <= 2<<20
	}, nil)
	r.want()
	r.awaitGone(a.ID)
	checkCount(t, r, d.Run)
}

func TestTeardownBringsTheSameBack(t *testing.T) {
	r := newRig(t)
	a := r.assignment(`trap '' TERM; sleep 1000`)
	one := r.assignment(`sleep 1000`)
	one.Dyno, one.Kind, one.Grace = "run.7", manifold.KindOneOff, time.Minute
	r.want(a, one)
	d := r.awaitState(a.ID, manifold.StateUp)
	r.awaitState(one.ID, manifold.StateUp)
	r.teardown()
	r.awaitNothingLeft()
	r.setDown(true)
	r.start()
	eventually(t, "the same dyno up again", func() bool {
		list := r.ps()
		i := slices.IndexFunc(list, func(s door.Status) bool { return s.Assignment == a.ID })
		return i >= 0 && list[i].State == manifold.StateUp && list[i].Run != d.Run
	}, nil)
	for _, s := range r.ps() {
		if s.Assignment == one.ID && s.State != manifold.StateComplete {
			t.Errorf("a one-off came back: %+v", s)
		}
	}
	r.setDown(false)
}

// TestChurnUnderKills changes what is desired all the time and kills the
// agent at random moments. In the end exactly what is desired runs.
func TestChurnUnderKills(t *testing.T) {
	r := newRig(t)
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	var wanted []manifold.Assignment
	for round := range 25 {
		for range 1 + random.IntN(3) {
			if len(wanted) > 5 || len(wanted) > 0 && random.IntN(2) == 0 {
				i := random.IntN(len(wanted))
				wanted = slices.Delete(slices.Clone(wanted), i, i+1)
				continue
			}
			a := r.assignment(`echo start; exec sleep 1000`)
			a.Dyno = fmt.Sprintf("worker.%d", round+1)
			wanted = append(slices.Clone(wanted), a)
		}
		r.want(wanted...)
		time.Sleep(time.Duration(random.IntN(250)) * time.Millisecond)
		r.end(syscall.SIGKILL)
		r.start()
	}
	runs := map[string]bool{}
	for _, a := range wanted {
		d := r.awaitState(a.ID, manifold.StateUp)
		runs[d.Run] = true
		if d.Crashes != 0 {
			t.Errorf("%s crashed %d times: %+v", a.Dyno, d.Crashes, d.Result)
		}
		r.awaitLine(d.Run, "app", "start")
		if n := len(r.lines(d.Run, "app")); n != 1 {
			t.Errorf("%s said %d lines", a.Dyno, n)
		}
	}
	eventually(t, "only what is desired", func() bool {
		boxes, _ := filepath.Glob(filepath.Join(r.dir, "home", "agent", "runs", "*-*-*-*-*"))
		return len(boxes) == len(wanted) && len(r.ps()) == len(wanted)
	}, func() string { return fmt.Sprintf("%+v", r.ps()) })
}

// TestRuntimeMetrics: memory and load of a dyno that computes, in the log of
// an app that asks for them and of no other.
func TestRuntimeMetrics(t *testing.T) {
	r := newRig(t)
	r.end(syscall.SIGKILL)
	r.env = append(r.env, "MANIFOLD_SAMPLE_EVERY=300ms")
	r.start()
	a, quiet := r.assignment(`while :; do :; done`), r.assignment(`sleep 1000`)
	a.RuntimeMetrics, quiet.Dyno = true, "worker.2"
	r.want(a, quiet)
	d, q := r.awaitState(a.ID, manifold.StateUp), r.awaitState(quiet.ID, manifold.StateUp)
	prefix := regexp.QuoteMeta(d.Run)
	for _, want := range []string{
		`^source=worker\.1 dyno=heroku\.\d+\.` + prefix + ` sample#load_avg_1m=0\.0[1-9] sample#load_avg_5m=0\.0\d sample#load_avg_15m=0\.0\d$`,
		`^source=worker\.1 dyno=heroku\.\d+\.` + prefix + ` sample#memory_total=[0-9.]+MB sample#memory_rss=[0-9]*[1-9.]+[0-9.]*MB .* sample#memory_quota=512\.00MB$`,
	} {
		eventually(t, "a line like "+want, func() bool {
			return slices.ContainsFunc(r.lines(d.Run, "heroku"), regexp.MustCompile(want).MatchString)
		}, nil)
	}
	if said := strings.Join(r.lines(q.Run, "heroku"), "\n"); strings.Contains(said, "sample#") {
		t.Errorf("who did not ask gets\n%s", said)
	}
}

// TestAgentKilledWhileItMakesBoxes: the agent is killed while several boxes are
// being made. What is left of them keeps the next one from nothing: it starts
// at once, since one that finds the home taken ends.
func TestAgentKilledWhileItMakesBoxes(t *testing.T) {
	r := newRig(t)
	for range 4 {
		var all []manifold.Assignment
		for i := range 6 {
			a := r.assignment(`sleep 1000`)
			a.Dyno = fmt.Sprintf("worker.%d", i+1)
			a.Size.Memory += 1 << 20 // none is ready
			all = append(all, a)
		}
		r.want(all...)
		spares := filepath.Join(r.dir, "home/agent/runs/spare-*/scratch.img")
		eventually(t, "boxes being made, or all made before we looked", func() bool {
			found, _ := filepath.Glob(spares)
			return len(found) > 2 || !slices.ContainsFunc(all, func(a manifold.Assignment) bool {
				d, _ := r.dyno(a.ID)
				return d.State != manifold.StateUp
			})
		}, nil)
		r.end(syscall.SIGKILL)
		r.start()
		r.want()
		for _, a := range all {
			r.awaitGone(a.ID)
		}
	}
}
