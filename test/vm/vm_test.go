// Package vm boots Debian 12 in an emulator and runs there what depends on
// kernel and init: the kernel tests of slugfs, isolation and agent on Linux
// 6.1 with cgroup v2 alone, and our programs as units of a real systemd
// (guest/). It must never touch the host beyond its cache and its own
// temporary directory.
//
//	image_test.go  the guest's disk: Debian packages, cached by what it is made from
//	work_test.go   a second disk with what is to be run, made each time
//	qemu_test.go   the emulator
//	vm_test.go     results: every test of the guest's is a subtest here
package vm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bootLimit ends a guest that hangs.
const bootLimit = 20 * time.Minute

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
	step := timer(t)
	img, err := guestImage(t.Context(), cache, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	step("image")
	dir := t.TempDir()
	work, console := filepath.Join(dir, "work"), filepath.Join(dir, "console")
	if err := makeWork(t.Context(), repo, cache, work); err != nil {
		t.Fatal(err)
	}
	step("programs")
	ctx, cancel := context.WithTimeoutCause(t.Context(), bootLimit, errTooLong)
	defer cancel()
	from, to := io.Pipe()
	booted := make(chan error, 1)
	go func() {
		err := boot(ctx, img, work, console, to)
		to.Close()
		booted <- err
	}()
	complete := report(t, from)
	if err := <-booted; err != nil {
		t.Error(err)
	}
	step("guest")
	if !complete || t.Failed() {
		text, _ := os.ReadFile(console)
		t.Logf("the end of the guest's console:\n%s", text[max(0, len(text)-6<<10):])
	}
}

var errTooLong = context.DeadlineExceeded

func timer(t *testing.T) func(string) {
	last := time.Now()
	return func(what string) {
		t.Logf("%s: %.1f s", what, time.Since(last).Seconds())
		last = time.Now()
	}
}

// report makes a subtest of each test in the guest's output, as it comes, and
// says whether every program ran to its end.
func report(t *testing.T, results io.Reader) bool {
	lines := bufio.NewReader(results)
	next := 0
	for {
		line, err := lines.ReadString('\n')
		if pkg, ok := strings.CutPrefix(strings.TrimSpace(line), beginMark); ok {
			if next >= len(runs) || pkg != runs[next].pkg {
				t.Fatalf("the guest ran %s out of turn", pkg)
			}
			next++
			t.Run(strings.TrimPrefix(pkg, "manifold/"), func(t *testing.T) { reportPackage(t, pkg, lines) })
		} else if strings.TrimSpace(line) != "" {
			t.Logf("the guest says: %s", line)
		}
		if err != nil {
			break
		}
	}
	if next != len(runs) {
		t.Errorf("the guest ended after %d of %d test programs", next, len(runs))
	}
	return next == len(runs)
}

func reportPackage(t *testing.T, pkg string, lines *bufio.Reader) {
	status := "none: the guest ended"
	raw, in := io.Pipe()
	go func() {
		defer in.Close()
		for {
			line, err := lines.ReadString('\n')
			if s, ok := strings.CutPrefix(strings.TrimSpace(line), endMark); ok {
				status = s
				return
			}
			if _, wrong := io.WriteString(in, line); err != nil || wrong != nil {
				return
			}
		}
	}()
	convert := exec.Command("go", "tool", "test2json", "-t", "-p", pkg)
	var said bytes.Buffer
	convert.Stdin, convert.Stderr = raw, &said
	events, err := convert.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := convert.Start(); err != nil {
		t.Fatal(err)
	}
	tests := reportEvents(t, events)
	if err := convert.Wait(); err != nil {
		t.Fatalf("test2json: %v: %s", err, said.String())
	}
	if tests == 0 {
		t.Error("no test ran")
	}
	if status != "0" {
		t.Errorf("exit status %s", status)
	}
}

// reportEvents returns how many tests it saw end.
func reportEvents(t *testing.T, events io.Reader) (tests int) {
	type event struct { // go doc test2json
		Action, Test, Output string
		Elapsed              float64
	}
	output := map[string]string{}
	decoder := json.NewDecoder(events)
	for {
		var e event
		if err := decoder.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		switch e.Action {
		case "output":
			output[e.Test] += e.Output
		case "pass", "fail", "skip":
			if e.Test == "" {
				continue
			}
			tests++
			t.Run(e.Test, func(t *testing.T) {
				t.Logf("%s, %.2f s in the guest", e.Test, e.Elapsed)
				for line := range strings.Lines(output[e.Test]) {
					if _, text, ok := strings.Cut(line, "figure: "); ok {
						t.Log(strings.TrimSpace(text))
					}
				}
				if e.Action != "pass" {
					t.Errorf("%s\n%s", e.Action, output[e.Test])
				}
			})
			delete(output, e.Test)
		}
	}
	// What no test claims, and tests that never ended: a crash, or the time was up.
	for test, text := range output {
		if t.Failed() || test != "" {
			t.Errorf("%s did not end:\n%s", test, text[max(0, len(text)-16<<10):])
		}
	}
	return tests
}
