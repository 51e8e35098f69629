package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"manifold"
	"manifold/agent/door"
	"manifold/isolation"
	"manifold/isolation/segment"
)

// act posts to the door and returns its answer.
func (r *rig) act(path string, status int) door.Done {
	r.t.Helper()
	res, err := r.http().Post("http://agent"+path, "", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	var done door.Done
	if res.StatusCode != status || json.Unmarshal(text, &done) != nil {
		r.t.Fatalf("POST %s: %s: %s", path, res.Status, text)
	}
	return done
}

func (r *rig) frozen(run string) bool {
	text, _ := os.ReadFile(r.cgroup(run) + "/app/cgroup.events")
	return bytes.Contains(text, []byte("frozen 1"))
}

func (r *rig) cgroup(run string) string {
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/unified"); err == nil {
		root += "/unified"
	}
	var box struct {
		Cgroup string `json:"cgroup"`
	}
	text, err := os.ReadFile(filepath.Join(r.dir, "home/agent/runs", run, "box.json"))
	if err == nil {
		err = json.Unmarshal(text, &box)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return filepath.Join(root, r.instance, box.Cgroup)
}

// TestFreezeIsBoundedAndOutlivesTheAgent: a frozen web dyno has no address, a
// new agent keeps the order, and thaws when the limit is over.
func TestFreezeIsBoundedAndOutlivesTheAgent(t *testing.T) {
	r := newRig(t)
	a := r.assignment(`mkdir -p /tmp/www && echo "it works" > /tmp/www/index.html && exec busybox httpd -f -p $PORT -h /tmp/www`)
	a.Dyno, a.Web = "web.1", true
	r.want(a)
	d := r.awaitState(a.ID, manifold.StateUp)
	if d.Addr == "" {
		t.Fatal("no address")
	}
	done := r.act("/v1/dynos/web.1/freeze?limit=1h", http.StatusOK)
	if left := time.Until(done.Until); left > time.Hour || left < 59*time.Minute || !strings.Contains(done.Next, "routers") {
		t.Errorf("freeze says %+v", done)
	}
	if !r.frozen(d.Run) {
		t.Error("it is not frozen")
	}
	r.await(a.ID, "no address", func(d manifold.Dyno) bool { return d.Addr == "" && d.State == manifold.StateUp })
	r.end(syscall.SIGKILL)
	r.start()
	if list := r.ps(); len(list) != 1 || list[0].Addr != "" || !list[0].FrozenUntil.Equal(done.Until) {
		t.Errorf("the next agent says %+v", list)
	}
	r.act("/v1/dynos/web.1/thaw", http.StatusOK)
	r.await(a.ID, "its address again", func(v manifold.Dyno) bool { return v.Addr == d.Addr && v.Run == d.Run })
	eventually(t, "its processes go on after a thaw", func() bool { return !r.frozen(d.Run) }, nil)
	r.act("/v1/dynos/web.1/freeze?limit=1s", http.StatusOK)
	r.await(a.ID, "the thaw by itself", func(d manifold.Dyno) bool { return d.Addr != "" && !r.frozen(d.Run) })
	for _, bad := range []string{"?limit=0s", "?limit=25h", "?limit=x"} {
		r.act("/v1/dynos/web.1/freeze"+bad, http.StatusBadRequest)
	}
}

// TestKeepForAutopsy: what a kept dyno wrote and said is there after its end,
// its box is not; an ordinary end leaves nothing.
func TestKeepForAutopsy(t *testing.T) {
	r := newRig(t)
	a := r.assignment(`echo evidence > /tmp/clue; echo last words; while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 9`)
	r.want(a)
	d := r.awaitState(a.ID, manifold.StateUp)
	r.awaitLine(d.Run, "app", "last words")
	r.act("/v1/dynos/"+d.Run+"/keep", http.StatusOK)
	r.end(syscall.SIGKILL) // the mark is the dyno's, not the agent's
	r.start()
	r.act("/v1/dynos/"+d.Run+"/stop", http.StatusOK)
	next := r.await(a.ID, "another run", func(v manifold.Dyno) bool { return v.Run != d.Run && v.State == manifold.StateUp })
	list := r.autopsies()
	if len(list) != 1 || list[0].Run != d.Run || list[0].Result == nil || list[0].Result.Status != 143 || list[0].Dyno != "worker.1" ||
		list[0].Bytes < 1000 || list[0].Bytes > 64<<20 {
		t.Fatalf("kept are %+v", list)
	}
	kept := list[0]
	if text, _ := os.ReadFile(filepath.Join(kept.Dir, "autopsy.json")); bytes.Contains(text, []byte("hello from config")) || !bytes.Contains(text, []byte("GREETING")) {
		t.Errorf("its record is %s", text)
	}
	lines, err := segment.Read(filepath.Join(kept.Dir, "log"), 0, 10)
	if err != nil || len(lines) != 1 || string(lines[0].Text) != "last words" {
		t.Errorf("its log is %v, %v", lines, err)
	}
	if lines, err = segment.Read(filepath.Join(kept.Dir, "heroku"), 0, 10); err != nil || len(lines) < 4 {
		t.Errorf("the platform's log is %v, %v", lines, err)
	}
	var clue []byte
	err = isolation.LookInto(kept.Dir, func(dir *os.File) (err error) {
		clue, err = os.ReadFile("/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/tmp/clue")
		return err
	})
	if err != nil || string(clue) != "evidence\n" {
		t.Errorf("its filesystem says %q, %v", clue, err)
	}
	eventually(t, "its box is gone", func() bool {
		_, err := os.Stat(filepath.Join(r.dir, "home/agent/runs", d.Run))
		return os.IsNotExist(err)
	}, nil)
	r.act("/v1/dynos/"+next.Run+"/stop", http.StatusOK)
	r.await(a.ID, "a third run", func(v manifold.Dyno) bool { return v.Run != next.Run && v.State == manifold.StateUp })
	if list := r.autopsies(); len(list) != 1 {
		t.Errorf("one that nobody asked to keep was kept: %+v", list)
	}
	req, _ := http.NewRequest(http.MethodDelete, "http://agent/v1/autopsies/"+d.Run, nil)
	for _, want := range []int{http.StatusOK, http.StatusNotFound} {
		res, err := r.http().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("delete: %s", res.Status)
		}
	}
}

func (r *rig) autopsies() []door.Autopsy {
	r.t.Helper()
	res, err := r.http().Get("http://agent/v1/autopsies")
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	var list []door.Autopsy
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		r.t.Fatal(err)
	}
	return list
}

// TestAutopsiesAreBounded in number, bytes and age.
func TestAutopsiesAreBounded(t *testing.T) {
	m := morgue{t.TempDir(), slog.New(slog.DiscardHandler)}
	now := time.Now()
	put := func(run string, age time.Duration) {
		dir := filepath.Join(m.dir, run)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(door.Autopsy{Run: run, KeptAt: now.Add(-age)})
		if err := os.WriteFile(filepath.Join(dir, autopsyName), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range maxAutopsies + 5 {
		put("00000000-0000-0000-0000-0000000000"+strconv.Itoa(10+i), time.Duration(i)*time.Hour)
	}
	put("00000000-0000-0000-0000-000000000099", 8*24*time.Hour)
	put("stranger", 9*24*time.Hour)
	half := filepath.Join(m.dir, "00000000-0000-0000-0000-000000000077.new")
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	m.prune(now)
	if _, err := os.Stat(half); err != nil {
		t.Error("one that is being filled was removed")
	}
	list, err := m.list()
	if err != nil || len(list) != maxAutopsies || list[0].Run[34:] != "10" || list[maxAutopsies-1].Run[34:] != "19" {
		t.Errorf("%d are left: %+v, %v", len(list), list, err)
	}
	m.prune(now.Add(autopsyAge + 30*time.Minute))
	if _, err := os.Stat(half); err == nil {
		t.Error("half an autopsy is left")
	}
	if list, _ = m.list(); len(list) != 0 {
		t.Errorf("old ones are left: %+v", list)
	}
	if _, err := os.Stat(filepath.Join(m.dir, "stranger")); err != nil {
		t.Error("a stranger's directory was removed")
	}
}

// TestDrainAndRestartAreWishes: they are told to the coordinator, and outlive
// the agent where they must; without a coordinator a restart is done here.
func TestDrainAndRestartAreWishes(t *testing.T) {
	r := newRig(t)
	a := r.assignment(`sleep 1000`)
	one := r.assignment(`sleep 1000`)
	one.Dyno, one.Kind = "run.1", manifold.KindOneOff
	r.want(a, one)
	d := r.awaitState(a.ID, manifold.StateUp)
	r.awaitState(one.ID, manifold.StateUp)
	eventually(t, "a drain of which the coordinator knows: it may be slow", func() bool {
		return !strings.Contains(r.act("/v1/drain", http.StatusOK).Next, "away")
	}, nil)
	r.end(syscall.SIGKILL)
	r.start()
	eventually(t, "the drain in what the host reports", func() bool { return r.observed().Draining }, nil)
	r.act("/v1/undrain", http.StatusOK)
	eventually(t, "the end of the drain", func() bool { return !r.observed().Draining }, nil)

	done := r.act("/v1/dynos/worker.1/restart", http.StatusOK)
	if v := r.await(a.ID, "the wish", func(v manifold.Dyno) bool { return v.Replace }); v.Run != d.Run || v.State != manifold.StateUp {
		t.Errorf("it is %+v, the door said %+v", v, done)
	}
	r.act("/v1/dynos/run.1/restart", http.StatusConflict)
	r.setDown(true)
	if done := r.act("/v1/dynos/worker.1/restart", http.StatusOK); !strings.Contains(done.Next, "started again at once") {
		t.Errorf("without a coordinator restart says %+v", done)
	}
	eventually(t, "a run of its own", func() bool {
		for _, s := range r.ps() {
			if s.Assignment == a.ID && s.Run != d.Run && s.State == manifold.StateUp {
				return true
			}
		}
		return false
	}, nil)
	r.setDown(false)
	if done := r.act("/v1/dynos/run.1/stop?grace=1s", http.StatusOK); !strings.Contains(done.Next, "not started again") {
		t.Errorf("stop of a one-off says %+v", done)
	}
	r.awaitState(one.ID, manifold.StateComplete)
}

func (c *testCoordinator) observed() manifold.Observation {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

// TestRestartWhoseCallerLeaves: the coordinator is slow to answer, and who asked
// for a restart gives up. The dyno serves on: there is nothing in its place.
func TestRestartWhoseCallerLeaves(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		w.up.slow = time.Hour
		a := fakeAssignment()
		agent := w.start()
		agent.uplink.set(nil) // it has joined
		w.want(a)
		w.until(func() bool { return w.dyno(a).State == manifold.StateUp })
		before := w.dyno(a)
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		if inPlace, err := agent.Restart(ctx, a.ID); inPlace || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("in place: %v, %v", inPlace, err)
		}
		time.Sleep(time.Minute)
		if d := w.dyno(a); d.Run != before.Run || d.State != manifold.StateUp || d.Replace {
			t.Errorf("it was %+v and is %+v", before, d)
		}
	})
}
