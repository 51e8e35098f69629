// Package vm boots Debian 12 in an emulator and runs there what depends on
// kernel and init: the kernel tests of slugfs, isolation and agent on Linux
// 6.1 with cgroup v2 alone, and our programs as units of a real systemd
// (guest/). It must never touch the host beyond its cache and its own
// temporary directory.
//
//	image_test.go  the guest's disk: Debian packages, cached by what it is made from
//	work_test.go   a second disk with what is to be run, made each time
//	qemu_test.go   the emulator
//	vm_test.go     all of it in its order
//	report_test.go results: every test of the guest's is a subtest here
//	table_test.go  what a person reads at the end
package vm

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// bootLimit ends a guest that hangs.
const bootLimit = 50 * time.Minute

// shown is the table of the run, printed when all is over.
var shown table

func TestMain(m *testing.M) {
	code := m.Run()
	shown.print(os.Stdout)
	os.Exit(code)
}

func TestGuest(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the guest's disks are made of files that belong to root: run this as root")
	}
	for program, pkg := range map[string]string{"qemu-system-x86_64": "qemu-system-x86", "mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: apt-get install %s", err, pkg)
		}
	}
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	cache := os.Getenv("MANIFOLD_CACHE")
	if cache == "" {
		cache = "/var/cache/manifold"
	}
	tb := &shown
	step := tb.timer()
	img, err := guestImage(t.Context(), cache, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	step("the image: made once, then cached")
	dir := t.TempDir()
	work, console := filepath.Join(dir, "work"), filepath.Join(dir, "console")
	if err := makeWork(t.Context(), repo, cache, work); err != nil {
		t.Fatal(err)
	}
	step("programs, packages and their disk")
	ctx, cancel := context.WithTimeoutCause(t.Context(), bootLimit, errTooLong)
	defer cancel()
	from, to := io.Pipe()
	booted := make(chan error, 1)
	go func() {
		err := bootUntilHeard(ctx, t, img, work, console, to)
		to.Close()
		booted <- err
	}()
	complete := report(t, from, tb)
	if err := <-booted; err != nil {
		t.Error(err)
	}
	if !complete || t.Failed() {
		text, _ := os.ReadFile(console)
		t.Logf("the end of the guest's console:\n%s", text[max(0, len(text)-6<<10):])
	}
}

var errTooLong = context.DeadlineExceeded

// wordLimit is how long a guest may take to its first word: three times the
// longest seen, on a busy machine.
const wordLimit = 8 * time.Minute

// bootUntilHeard boots anew a guest that says nothing, and says so: an emulated
// kernel stands still now and then before anything of ours runs in it. One that
// has spoken is not booted again.
func bootUntilHeard(ctx context.Context, t *testing.T, img image, work, console string, to io.Writer) (err error) {
	for n := range 3 {
		var heard atomic.Bool
		attempt, cancel := context.WithCancel(ctx)
		timer := time.AfterFunc(wordLimit, func() {
			if !heard.Load() {
				cancel()
			}
		})
		err = boot(attempt, img, work, console, writerFunc(func(p []byte) (int, error) {
			heard.Store(true)
			return to.Write(p)
		}))
		timer.Stop()
		cancel()
		if heard.Load() || ctx.Err() != nil {
			return err
		}
		text, _ := os.ReadFile(console)
		t.Logf("boot %d of 3: the guest said nothing: %v; the end of its console:\n%s", n+1, err, text[max(0, len(text)-2<<10):])
	}
	return err
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
