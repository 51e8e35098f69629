package isolation_test

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"manifold"
	"manifold/isolation"
)

const mib = 1 << 20

// needSwap adds a swap file of its own for the time of the test, if this host
// has too little for one dyno.
func needSwap(t *testing.T, bytes int64) {
	t.Helper()
	// Always one of its own: what is there may be somebody's for a while only.
	file := filepath.Join(t.TempDir(), "swap")
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, bytes+64*mib)
	f.Close()
	if err != nil {
		t.Fatalf("make a swap file: %v", err)
	}
	for _, cmd := range []string{"mkswap " + file, "swapon " + file} {
		args := strings.Fields(cmd)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", cmd, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("swapoff", file).CombinedOutput(); err != nil {
			t.Errorf("swapoff: %v: %s", err, out)
		}
	})
}

// TestMemoryContract: a dyno lives on swap beyond its quota, and dies at three
// times the quota; its neighbour keeps its memory.
func TestMemoryContract(t *testing.T) {
	size, err := manifold.ParseSize(manifold.DefaultSize)
	if err != nil {
		t.Fatal(err)
	}
	needSwap(t, size.MemorySwap-size.Memory)
	r := newRig(t)
	spec := r.spec("exec calls hold")
	spec.Size = size
	neighbour := r.startSpec(spec)
	r.said(neighbour, "ready")

	rests, goOn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer rests.Close()
	defer goOn.Close()
	spec = r.spec("exec calls grow 1200")
	spec.Size, spec.Stdin = size, rests
	b := r.startSpec(spec)
	var most, ram, swap int64
	for ended := false; !ended; {
		select {
		case <-b.Done():
			ended = true
		case <-time.After(20 * time.Millisecond):
			if u, err := b.Usage(); err == nil {
				most, ram, swap = max(most, u.Needed()), max(ram, u.RSS+u.Shared), max(swap, u.Swap)
			}
			if most >= 1200*mib { // it was seen where it rests
				_, _ = goOn.Write([]byte{'\n'}) // a byte too many is nothing
			}
		}
	}
	exit, err := b.Exit()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("seen alive with %d MiB, of them %d MiB in RAM and %d MiB in swap at most; the end was at %d MiB", most/mib, ram/mib, swap/mib, exit.Peak/mib)
	if !exit.OOM || exit.Status != 137 || exit.Memory == nil || exit.Memory.Stats["memory.stat"] == "" {
		t.Errorf("the end is %+v", exit)
	}
	if exit.Peak < 1500*mib || exit.Peak > 1560*mib {
		t.Errorf("it ended at %d MiB", exit.Peak/mib)
	}
	if most < size.Memory*2 || swap < size.Memory || ram > size.Memory+8*mib {
		t.Errorf("it was not seen alive on swap, or had more RAM than its quota")
	}
	lines := strings.Split(strings.TrimSpace(r.output(b)), "\n")
	if last := lines[len(lines)-1]; last < "holds 1480 MiB" || last > "holds 1550 MiB" || len(last) != len("holds 1500 MiB") {
		t.Errorf("its last words are %q", last)
	}
	if u, err := neighbour.Usage(); err != nil || u.RSS < 64*mib || u.Swap > 0 {
		t.Errorf("the neighbour has %+v, %v", u, err)
	}
}

// TestTooLittleSwapIsSaidAtStart: and nothing is said where there is enough.
func TestTooLittleSwapIsSaidAtStart(t *testing.T) {
	r := newRig(t)
	swap := func() int64 {
		traces, err := isolation.FindTraces(r.cfg)
		if err != nil {
			t.Fatal(err)
		}
		return traces.Swap
	}
	for { // until nobody added or took away swap meanwhile
		var log strings.Builder
		before := swap()
		r.with(func(cfg *isolation.Config) { cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		if swap() != before {
			continue
		}
		said := strings.Contains(log.String(), "level=WARN msg=\"this host has too little swap")
		if want := isolation.SwapWarning(before) != ""; said != want {
			t.Errorf("with %d MiB of swap it is said: %v, want %v:\n%s", before/mib, said, want, log.String())
		}
		return
	}
}

// TestUsage: what a dyno uses is told, and its size's shares weigh CPU and disk
// time, and are capped where that is wished.
func TestUsage(t *testing.T) {
	r := newRig(t)
	r.with(func(cfg *isolation.Config) { cfg.CPUCap = 0.5 })
	spec := r.spec("calls hold & dd if=/dev/zero of=/dev/shm/x bs=1M count=10 2>/dev/null; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo counted; wait")
	spec.Size.Shares = 3
	b := r.startSpec(spec)
	limits, weighed := b.Inspect().Limits, 0
	for file, want := range map[string]string{
		"cpu.weight": "300", "cpu.shares": "3072", "cpu.max": "150000 100000", "cpu.cfs_quota_us": "150000", "io.weight": "default 300", "io.bfq.weight": "default 30", "blkio.bfq.weight": "30",
	} {
		if got, ok := limits[file]; ok && got != want {
			t.Errorf("%s is %s, want %s", file, got, want)
		} else if ok {
			weighed++
		}
	}
	if weighed < 3 { // every kernel these tests run on has one of each kind
		t.Errorf("CPU or disk time is not shared by weight, or not capped: %v", limits)
	}
	r.said(b, "ready")
	r.said(b, "counted")
	u, err := b.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if u.RSS+u.Swap < 30*mib || u.RSS+u.Shared+u.Cache > spec.Size.MemorySwap || u.Needed() < 70*mib || u.CPU < 10*time.Millisecond || u.CPU > time.Minute || u.Processes < 2 || u.Processes > 20 {
		t.Errorf("usage is %+v", u)
	}
	if err := b.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Usage(); err == nil {
		t.Error("a removed dyno uses something")
	}
}
