package isolation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"manifold/isolation"
)

// TestMain lets the test's binary be an agent that dies while it starts a dyno,
// or one on a host that lacks something.
func TestMain(m *testing.M) {
	if order := os.Getenv("ISOLATION_TEST_START"); order != "" {
		if err := startAndDie(order); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if bad := os.Getenv("ISOLATION_TEST_BAD_HOST"); bad != "" {
		if err := openBadHost(bad); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	os.RemoveAll(busybox.dir)
	os.Exit(code)
}

// startOrder tells such a child what to start, and where or when to die.
type startOrder struct {
	Config isolation.Config
	Spec   isolation.Spec
	Point  string
}

// startAndDie starts a dyno whose one layer is descriptor 3.
func startAndDie(text string) error {
	var order startOrder
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		return err
	}
	order.Config.Log = slog.New(slog.DiscardHandler)
	host, err := isolation.Open(order.Config)
	if err != nil {
		return err
	}
	host.SetFault(func(point string) {
		if point == order.Point {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	order.Spec.Layers = []*os.File{os.NewFile(3, "layer")}
	fmt.Println("begins")
	if _, err := host.Start(context.Background(), order.Spec); err != nil {
		return err
	}
	fmt.Println("started")
	if order.Point == "ready" {
		dieReady(host, order.Config.Spares)
	}
	return nil
}

// child begins a start in another process, which dies at a point, or after a
// while if point is "". It returns what that process printed.
func (r *rig) child(run, point string, after time.Duration) string {
	r.t.Helper()
	spec := r.spec("echo alive; exec sleep 1000")
	layer := spec.Layers[0]
	spec.Layers, spec.Run = nil, run
	cfg := r.cfg
	cfg.Log = nil
	order, err := json.Marshal(startOrder{cfg, spec, point})
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "ISOLATION_TEST_START="+string(order))
	cmd.ExtraFiles = []*os.File{layer}
	var out, said strings.Builder
	cmd.Stderr = &out
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		n, err := pipe.Read(buf)
		said.Write(buf[:n])
		if err != nil {
			break
		}
		if point == "" && strings.Contains(said.String(), "begins") {
			time.Sleep(after)
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait() // how it ended is what the test asked for
	layer.Close()
	if out.Len() > 0 {
		r.t.Errorf("died at %q: %s", point, out.String())
	}
	return said.String()
}

// TestDeathAtEveryStepOfAStart: whatever an agent that dies while it starts a
// dyno leaves, the next one finds it, and it goes without a trace; a dyno that
// ran before is not touched.
func TestDeathAtEveryStepOfAStart(t *testing.T) {
	r := newRig(t)
	other := r.start("echo ready; exec sleep 1000")
	r.said(other, "ready")
	before := r.count()
	delete(before, "own goroutines") // each look at what is there watches the other one anew
	delete(before, "own descriptors")
	delete(before, "owners of keys") // other tests at the same time use the same ids
	check := func(what string) {
		t.Helper()
		if err := r.host.Close(); err != nil { // the next agent
			t.Fatalf("%s: %v", what, err)
		}
		r.open()
		boxes, err := r.host.Boxes()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, b := range boxes {
			if b.Run() != other.Run() {
				if err := b.Remove(); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
		}
		r.same(what, before)
	}
	for i, point := range []string{"directory", "image", "mount", "scratch", "cgroups", "clone", "link", "spare", "record", "name", "layers", "app"} {
		run := fmt.Sprintf("point-%d", i)
		if said := r.child(run, point, 0); strings.Contains(said, "started") {
			t.Errorf("it did not die at %q", point)
		}
		if point == "app" { // that far, it is a dyno like any other
			r.adopted(run)
		}
		check(point)
	}
	for i := range 30 {
		after := time.Duration(rand.Int64N(int64(40 * time.Millisecond)))
		r.child(fmt.Sprintf("moment-%d", i), "", after)
		check("after " + after.String())
	}
	select {
	case <-other.Done():
		t.Error("the dyno that ran before has ended")
	default:
	}
}

// adopted looks for a run that its agent left running.
func (r *rig) adopted(run string) {
	r.t.Helper()
	boxes, err := r.host.Boxes()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, b := range boxes {
		if b.Run() == run {
			r.said(b, "alive")
			return
		}
	}
	r.t.Errorf("run %s is not there", run)
}

// A run id that is taken must not cost the dyno that has it.
func TestStartOfARunThatExists(t *testing.T) {
	r := newRig(t)
	b := r.start("echo ready; exec sleep 1000")
	r.said(b, "ready")
	spec := r.spec("true")
	spec.Run = b.Run()
	if _, err := r.host.Start(t.Context(), spec); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second start of the run: %v", err)
	}
	select {
	case <-b.Done():
		t.Error("the first one has ended")
	case <-time.After(200 * time.Millisecond):
	}
}

// count says how much of everything a dyno could leave there is of this
// instance's, and of this process's own.
func (r *rig) count() map[string]int {
	r.t.Helper()
	// Every thing is in it, those of which there are none as well.
	n := map[string]int{"own goroutines": runtime.NumGoroutine()}
	entries := func(what, pattern string) { paths, _ := filepath.Glob(pattern); n[what] = len(paths) }
	entries("own descriptors", "/proc/self/fd/*")
	entries("directories", filepath.Join(r.cfg.Dir, "*"))
	entries("forwarding", filepath.Join(r.cfg.Dir, "forwarding-*"))
	n["directories"] -= n["forwarding"] // whether this instance has to switch that on depends on other tests
	delete(n, "forwarding")
	for _, l := range []struct{ what, mark, command string }{
		{"links", r.cfg.Instance + "-", "ip -o link"}, {"addresses", r.cfg.Instance + "-", "ip -o addr"},
		{"routes", r.cfg.Instance + "-", "ip route show table all"}, {"mounts", r.cfg.Dir, "cat /proc/self/mountinfo"},
		{"loop devices", r.cfg.Dir, "losetup -nl -O BACK-FILE"}, {"children", "", fmt.Sprintf("ps --ppid %d -o args=", os.Getpid())},
		{"rules", "", "nft -s list table inet " + r.cfg.Instance},
	} {
		args := strings.Fields(l.command)
		n[l.what] = 0
		var out []byte
		for tries := 1; ; tries++ { // what others take away meanwhile has some of them fail
			var err error
			if out, err = exec.Command(args[0], args[1:]...).Output(); err == nil {
				break
			} else if tries == 20 {
				r.t.Fatalf("%s: %v", l.command, err)
			}
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, l.mark) && !strings.HasPrefix(line, "ps --ppid") {
				n[l.what]++
			}
		}
	}
	n["cgroups"] = 0
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another test's, which ended meanwhile
		}
		if err == nil && d.IsDir() && strings.Contains(path, "/"+r.cfg.Instance+"/") {
			n["cgroups"]++
		}
		return err
	})
	if err != nil {
		r.t.Error(err)
	}
	n["owners of keys"] = 0
	data, err := os.ReadFile("/proc/key-users")
	if err != nil {
		r.t.Error(err)
	}
	for line := range strings.Lines(string(data)) {
		id, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		if uid, err := strconv.ParseUint(id, 10, 32); err == nil && uid >= uint64(r.cfg.UIDBase) && uid < uint64(r.cfg.UIDBase)+64<<16 {
			n["owners of keys"]++
		}
	}
	return n
}

// same waits until there is as much of everything as before: the kernel takes
// some things away a moment later (RCU, the key collector).
func (r *rig) same(what string, before map[string]int) {
	r.t.Helper()
	var now map[string]int
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		now = r.count()
		maps.DeleteFunc(now, func(thing string, _ int) bool { _, counted := before[thing]; return !counted })
		if maps.Equal(now, before) {
			return
		}
	}
	for thing, n := range now {
		if n != before[thing] {
			r.t.Errorf("%s: there are %d %s, before there were %d", what, n, thing, before[thing])
		}
	}
	r.t.FailNow()
}

// TestFiveHundredStartsAndStops counts before and after. Some dynos end by
// themselves, some are stopped, some killed, some while they are started.
func TestFiveHundredStartsAndStops(t *testing.T) {
	r := newRig(t)
	r.cfg.UIDBase = 2_200_000_000 + uint32(os.Getpid()%200)<<22 // nobody else's, whose keys could be counted
	if err := r.host.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	r.keepSpares(2)
	before := r.count()
	const workers = 4
	turns := make(chan int)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := range turns {
				if err := r.oneLife(i); err != nil {
					t.Errorf("dyno %d: %v", i, err)
				}
			}
		})
	}
	began := time.Now()
	for i := range 500 {
		turns <- i
	}
	close(turns)
	group.Wait()
	t.Logf("500 starts and stops in %v", time.Since(began))
	r.awaitSpares(2)
	r.same("after 500 dynos", before)
}

// oneLife starts a dyno and has it end in one of six ways.
func (r *rig) oneLife(i int) error {
	ctx := context.Background()
	if i%6 == 5 { // called off on the way
		limited, cancel := context.WithTimeout(ctx, time.Duration(rand.Int64N(int64(60*time.Millisecond))))
		defer cancel()
		ctx = limited
	}
	script := "sleep 1000 & setsid sleep 1000 & wait"
	if i%6 == 0 {
		script = "exit 3"
	}
	spec := r.spec(script)
	b, err := r.host.Start(ctx, spec)
	spec.Layers[0].Close()
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	switch i % 6 {
	case 0:
		<-b.Done()
	case 1:
		err = b.Stop()
		<-b.Done()
	case 2:
		err = b.Kill()
	case 3:
		time.Sleep(time.Duration(rand.Int64N(int64(5 * time.Millisecond))))
		err = b.Kill()
		<-b.Done()
	}
	return errors.Join(err, b.Remove())
}

// TestBegun: a box is told from one that runs its app, by whoever finds it.
func TestBegun(t *testing.T) {
	r := newRig(t)
	begun := func() (list []bool) {
		boxes, err := r.host.Boxes()
		if err != nil {
			t.Error(err)
		}
		for _, b := range boxes {
			list = append(list, b.Begun())
		}
		return list
	}
	var before []bool
	r.host.SetFault(func(point string) {
		if point == "layers" {
			before = begun()
		}
	})
	b := r.start("exec sleep 1000")
	if after := begun(); !slices.Equal(before, []bool{false}) || !slices.Equal(after, []bool{true}) || !b.Begun() {
		t.Errorf("before it was told what to run: %v, afterwards: %v", before, after)
	}
	if err := b.Remove(); err != nil {
		t.Fatal(err)
	}
	if b.Begun() {
		t.Error("it has begun, and is gone")
	}
}
