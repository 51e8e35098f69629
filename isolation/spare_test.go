package isolation_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"manifold/isolation"
)

// keepSpares opens the host anew, with boxes kept ready, and has some made.
func (r *rig) keepSpares(n int) {
	r.t.Helper()
	if err := r.host.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.cfg.Spares = n
	r.open()
	r.run("true")
	r.awaitSpares(n)
}

func (r *rig) awaitSpares(n int) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); r.host.Ready() != n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%d boxes are ready, want %d", r.host.Ready(), n)
		}
	}
}

// spares are the slots of the boxes that are kept ready.
func (r *rig) spares() map[string]bool {
	r.t.Helper()
	found := map[string]bool{}
	dirs, err := filepath.Glob(filepath.Join(r.cfg.Dir, "spare-*"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, dir := range dirs {
		found[strings.TrimPrefix(filepath.Base(dir), "spare-")] = true
	}
	return found
}

func TestStartTakesABoxThatIsReady(t *testing.T) {
	r := newRig(t)
	r.keepSpares(2)
	ready := r.spares()
	spec := r.spec("hostname; cat /etc/hostname; ls /app; exec sleep 1000")
	b := r.startSpec(spec)
	if !ready[b.Group()] {
		t.Errorf("it is in %s, ready were %v", b.Group(), ready)
	}
	r.said(b, spec.Run+"\n"+spec.Run+"\n")
	r.awaitSpares(2)
	boxes, err := r.host.Boxes()
	if err != nil || len(boxes) != 1 || boxes[0].Run() != spec.Run {
		t.Errorf("boxes: %v, %v", boxes, err)
	}

	// One of a size that none is ready for is made; from then on those are kept.
	other := r.spec("cat /sys/fs/cgroup/memory.max; exec sleep 1000")
	other.Size.Memory, other.Size.MemorySwap = 48<<20, 96<<20
	ready = r.spares()
	b = r.startSpec(other)
	r.said(b, "50331648\n")
	if ready[b.Group()] {
		t.Error("a box of another size was taken")
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		left := 0
		for s := range r.spares() {
			if ready[s] {
				left++
			}
		}
		if left == 0 && r.host.Ready() == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("ready are %v, before the other size there were %v", r.spares(), ready)
		}
	}
}

// An address that is asked for comes before a box that is ready.
func TestAddressThatIsAskedFor(t *testing.T) {
	r := newRig(t)
	r.keepSpares(1)
	first := r.start("true")
	if err := first.Remove(); err != nil {
		t.Fatal(err)
	}
	for i, same := range []bool{true, false} { // free, then taken
		spec := r.spec("exec sleep 1000")
		spec.Addr = first.Addr()
		if b := r.startSpec(spec); (b.Addr() == first.Addr()) != same {
			t.Errorf("start %d: asked for %v, got %v", i, first.Addr(), b.Addr())
		}
	}
}

// A box whose PID 1 somebody killed while it waited is no box.
func TestBoxThatDiedWhileItWaited(t *testing.T) {
	r := newRig(t)
	r.keepSpares(1)
	for slot := range r.spares() {
		for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
			files, _ := filepath.Glob(pattern + r.cfg.Instance + "/" + slot + "/cgroup.kill")
			for _, f := range files {
				if err := os.WriteFile(f, []byte("1"), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		r.awaitDead(slot)
	}
	if out := r.run("echo alive"); out != "alive\n" {
		t.Errorf("it said %q", out)
	}
}

// awaitDead waits until this process has seen the end of a spare's PID 1.
func (r *rig) awaitDead(slot string) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); r.host.Alive(slot); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatal("the killed box does not end")
		}
	}
}

// What is kept ready must not cost a dyno its slot.
func TestDynosComeBeforeSpares(t *testing.T) {
	r := newRig(t)
	r.cfg.Pool = netip.PrefixFrom(r.cfg.Pool.Addr(), 28) // four slots
	r.keepSpares(2)
	for i := range 4 {
		spec := r.spec("exec sleep 1000")
		spec.Size.Memory += int64(i) << 20 // none fits
		r.startSpec(spec)
	}
	if _, err := r.host.Start(t.Context(), r.spec("true")); !errors.Is(err, isolation.ErrNoSlot) {
		t.Errorf("a fifth dyno in four slots: %v", err)
	}
	if n := len(r.spares()); n != 0 {
		t.Errorf("%d spare boxes in slots that all are taken", n)
	}
}

// TestNextAgentRemovesSpares: an agent that is killed leaves no box behind in
// which nothing runs.
func TestNextAgentRemovesSpares(t *testing.T) {
	r := newRig(t)
	r.run("true") // the template stays
	before := r.count()
	delete(before, "own goroutines")
	delete(before, "own descriptors")
	delete(before, "owners of keys")
	r.cfg.Spares = 2
	if said := r.child("of-the-killed", "ready", 0); !strings.Contains(said, "ready") {
		t.Fatalf("the child said %q", said)
	}
	r.cfg.Spares = 0
	if n := len(r.spares()); n != 2 {
		t.Errorf("it left %d", n)
	}
	if err := r.host.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	boxes, err := r.host.Boxes()
	if err != nil || len(boxes) != 1 {
		t.Fatalf("%d boxes, %v; want the one that runs", len(boxes), err)
	}
	r.said(boxes[0], "alive")
	if err := boxes[0].Remove(); err != nil {
		t.Error(err)
	}
	r.same("after the next agent's start", before)
}

// dieReady is the end of startAndDie that has boxes kept ready.
func dieReady(host *isolation.Host, n int) {
	for host.Ready() != n {
		time.Sleep(time.Millisecond)
	}
	os.Stdout.WriteString("ready\n")
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
