package isolation_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/vishvananda/netlink"

	"manifold"
	"manifold/isolation"
	"manifold/isolation/segment"
	"manifold/slugfs"
)

// rig is a host of its own with a small root image (busybox).
type rig struct {
	t      testing.TB
	cfg    isolation.Config
	host   *isolation.Host
	images *slugfs.Store
	root   manifold.Image
}

var instances atomic.Int32

func newRig(t testing.TB) *rig {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test builds dynos on the real kernel: run it as root")
	}
	dir := t.TempDir()
	images, image, err := busyboxImage()
	if err != nil {
		t.Fatal(err)
	}
	store, err := slugfs.Open(filepath.Join(dir, "images"), images)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })

	n := instances.Add(1)
	id := (os.Getpid()*16 + int(n)) % 256
	r := &rig{t: t, images: store, root: image, cfg: isolation.Config{
		Instance: fmt.Sprintf("t%d", (os.Getpid()*16+int(n))%1_000_000),
		Dir:      filepath.Join(dir, "runs"),
		Pool:     netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 29, byte(id), 0}), 24),
		UIDBase:  2_000_000_000,
		Log:      slog.New(slog.DiscardHandler),
	}}
	before := r.marks()
	r.open()
	t.Cleanup(func() {
		boxes, err := r.host.Boxes()
		if err != nil {
			t.Error(err)
		}
		for _, b := range boxes {
			if err := b.Remove(); err != nil {
				t.Error(err)
			}
		}
		if err := r.host.Teardown(); err != nil {
			t.Error(err)
		}
		r.host.Close()
		r.leftBehind("on this host", before)
	})
	return r
}

// leftBehind waits until only the marks are left that were there before: the
// kernel may let go of a loop device a moment after the last mount of it.
func (r *rig) leftBehind(what string, before []string) {
	r.t.Helper()
	after := r.marks()
	for deadline := time.Now().Add(patience); !slices.Equal(before, after) && time.Now().Before(deadline); after = r.marks() {
		time.Sleep(10 * time.Millisecond)
	}
	if !slices.Equal(before, after) {
		r.t.Errorf("%s: left behind:\n%s\nbefore:\n%s", what, strings.Join(after, "\n"), strings.Join(before, "\n"))
	}
}

func (r *rig) open() {
	r.t.Helper()
	host, err := isolation.Open(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.host = host
}

// marks lists what an instance could leave on the host.
func (r *rig) marks() []string {
	var found []string
	links, err := netlink.LinkList()
	for tries := 0; errors.Is(err, netlink.ErrDumpInterrupted) && tries < 20; tries++ {
		links, err = netlink.LinkList() // other tests make links meanwhile
	}
	if err != nil {
		r.t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, r.cfg.Instance+"-") {
			found = append(found, "link "+l.Attrs().Name)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/"} {
		dirs, _ := filepath.Glob(pattern + r.cfg.Instance)
		found = append(found, dirs...)
	}
	tables, err := exec.Command("nft", "list", "tables").CombinedOutput()
	if err != nil {
		r.t.Fatalf("nft: %v: %s", err, tables)
	}
	for line := range strings.Lines(string(tables)) {
		if strings.TrimSpace(line) == "table inet "+r.cfg.Instance {
			found = append(found, line)
		}
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		if data, _ := os.ReadFile(l); strings.HasPrefix(string(data), r.cfg.Dir) {
			found = append(found, "loop device of "+string(data))
		}
	}
	runs, _ := filepath.Glob(filepath.Join(r.cfg.Dir, "*"))
	return append(found, runs...)
}

var testSize = manifold.Size{
	Name: "test", Memory: 64 << 20, MemorySwap: 128 << 20, Shares: 1, Processes: 64, Files: 256,
	Disk: 32 << 20, Inodes: 2000,
}

func (r *rig) spec(script string) isolation.Spec {
	r.t.Helper()
	layer, err := r.images.Mount(r.root)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { layer.Close() })
	return isolation.Spec{
		Run: uuid.NewString(), Layers: []*os.File{layer}, Argv: []string{"/bin/sh", "-c", script},
		Env: []string{"PATH=/bin", "HOME=/app", "SECRET=hunter2"}, Dir: "/app", Size: testSize, Grace: patience,
	}
}

func (r *rig) start(script string) *isolation.Box {
	r.t.Helper()
	return r.startSpec(r.spec(script))
}

func (r *rig) startSpec(spec isolation.Spec) *isolation.Box {
	r.t.Helper()
	b, err := r.host.Start(r.t.Context(), spec)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

// patience bounds what must happen, and happens soon: not on an emulated
// processor that has a tenth of a real one's time.
const patience = time.Minute

func (r *rig) wait(b *isolation.Box) isolation.Exit {
	r.t.Helper()
	select {
	case <-b.Done():
	case <-time.After(patience):
		r.t.Fatalf("dyno does not end; it said:\n%s", r.output(b))
	}
	exit, err := b.Exit()
	if err != nil {
		r.t.Fatalf("%v; it said:\n%s", err, r.output(b))
	}
	return exit
}

func (r *rig) output(b *isolation.Box) string {
	r.t.Helper()
	lines, err := segment.Read(b.LogDir(), 0, 100_000)
	if err != nil {
		r.t.Fatal(err)
	}
	var out strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&out, "%s\n", l.Text)
	}
	return out.String()
}

// said polls until the dyno's output contains want.
func (r *rig) said(b *isolation.Box, want string) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(r.output(b), want); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("dyno did not say %q but:\n%s", want, r.output(b))
		}
	}
}

// run starts script, waits for its end and returns what it printed.
func (r *rig) run(script string) string {
	r.t.Helper()
	b := r.start(script)
	r.wait(b)
	out := r.output(b)
	if err := b.Remove(); err != nil {
		r.t.Error(err)
	}
	return out
}
