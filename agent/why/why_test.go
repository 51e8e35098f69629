package why

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"manifold"
	"manifold/isolation"
	"manifold/isolation/boot"
)

// said are an app's last lines.
func said(texts ...string) (lines []Line) {
	for _, text := range texts {
		lines = append(lines, Line{Source: manifold.SourceApp, Text: text})
	}
	return lines
}

func exited(status int, lines ...string) Run {
	r := Run{Kind: manifold.KindFormation, Command: "run", Lines: said(lines...)}
	r.Result.Cause, r.Result.Status = manifold.CauseExit, status
	if status > 128 {
		r.Result.Cause = manifold.CauseSignal
	}
	return r
}

func TestExplain(t *testing.T) {
	full := exited(1, "bash: gone: command not found")
	full.Disk = isolation.Disk{Bytes: 4 << 30, Inodes: 400_000, BytesFree: 1 << 30} // of inodes none is free
	hostFull := exited(1, "write /x: no space left on device")
	hostFull.Host.DiskFree = 1 << 20
	oom := exited(137)
	oom.Result.Cause, oom.Size = manifold.CauseOOM, manifold.Sizes()[0]
	oom.End = isolation.End{Struck: true, OOMKills: 1, Peak: 1536 << 20, Limit: 1536 << 20, Memory: &boot.OOM{
		Stats:   map[string]string{"memory.stat": "anon 536870912\nfile 1048576\n", "memory.swap.current": "1073741824"},
		Biggest: []boot.Process{{PID: 7, Name: "ruby", RSS: 512 << 20, Swap: 1 << 30}},
	}}
	crowded := oom
	crowded.End.Struck, crowded.End.Peak = false, 100<<20
	unseen := exited(137) // a kill for the host's sake that only the kernel counted
	unseen.End = isolation.End{OOMKills: 1, Limit: 1 << 30}
	stopped := exited(143)
	stopped.Stopped, stopped.Withdrawn = true, true
	once := exited(0)
	once.Kind = manifold.KindOneOff
	lost := exited(137)
	lost.Result.Cause = manifold.CauseLost
	for _, c := range []struct {
		run   Run
		code  string
		first string
	}{
		{oom, "oom", "OOM (R15): it used all the memory its size may (Eco has 512 MB of RAM, 1.5 GB with swap) and was killed; it held 1.5 GB: anon 512 MB, file 1 MB, swap 1.0 GB; biggest: ruby (pid 7) 1.5 GB"},
		{crowded, "host-oom", "host pressure: the host ran out of memory and the kernel killed this dyno, which held only 100 MB of the 1.5 GB it may"},
		{unseen, "host-oom", "host pressure"},
		{full, "disk-full", "0 of 400000 inodes free"},
		{hostFull, "disk-full", "the host has only 1 MB left"},
		{exited(127, "bash: line 1: gunicorn: command not found"), "missing-command", `"gunicorn"`},
		{exited(127, "sh: 1: foo: not found"), "missing-command", `"foo"`},
		{exited(127, "bash: line 1: ./run.sh: No such file or directory"), "missing-command", `"./run.sh"`},
		{exited(127), "missing-command", "did not find what it was to run"},
		{exited(126, "bash: ./run.sh: Permission denied"), "missing-command", "cannot be executed"},
		{exited(1, "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"), "missing-library", "libGL.so.1"},
		{exited(139), "signal", "SIGSEGV"},
		{exited(134), "signal", "SIGABRT"},
		{exited(137), "killed", "killed from inside: a process of the dyno sent it SIGKILL"},
		{exited(0), "exit", "exit 0"},
		{exited(3, "boom", ""), "exit", `exit 3: the app ended by itself; its last line: "boom"`},
		{stopped, "stopped", "it was told to stop and ended in time (SIGTERM)"},
		{once, "done", "status 0"},
		{lost, "lost", "its PID 1 was killed from outside"},
		{Run{Result: manifold.Result{Cause: manifold.CauseLaunch, Detail: "no slot"}}, "launch", "never started: no slot"},
		{Run{}, "exit", "exit 0"},
	} {
		if v := Explain(c.run); v.Code != c.code || !strings.Contains(v.First, c.first) || strings.Contains(v.First, "\n") {
			t.Errorf("%+v\nwant %s %q", v, c.code, c.first)
		}
	}
}

func TestStoreKeepsTheLast(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ended")
	s := NewStore(dir)
	for i := range maxRuns + 20 {
		r := exited(i % 200)
		r.Run, r.Dyno = fmt.Sprintf("run-%d", i), "web.1"
		if err := s.Keep(r); err != nil {
			t.Fatal(err)
		}
		past := time.Now().Add(time.Duration(i-1000) * time.Second)
		if err := os.Chtimes(filepath.Join(dir, r.Run+".json"), past, past); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"half.json": `{"version":1,"run":`, "newer.json": `{"version":99}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runs, err := s.Find(3, func(r Run) bool { return r.Dyno == "web.1" })
	if err != nil || len(runs) != 3 || runs[0].Run != fmt.Sprintf("run-%d", maxRuns+19) {
		t.Fatalf("%+v, %v", runs, err)
	}
	all, err := s.Find(1000, func(Run) bool { return true })
	if err != nil || len(all) != maxRuns {
		t.Errorf("%d are kept, %v", len(all), err)
	}
	if err := s.Keep(Run{Run: "../x"}); err == nil {
		t.Error("a run that is a path was kept")
	}
}

func TestReleasesTellNamesAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "releases.json")
	a := manifold.Assignment{App: "a", Dyno: "web.1", Kind: manifold.KindFormation, Release: 1, Command: "one",
		Layers: []manifold.Image{{Digest: "sha256:1"}}, Env: map[string]string{"GONE": "x", "SAME": "y", "SECRET": "tiger"}}
	now := time.Now()
	if err := NewReleases(path).Note(a, now); err != nil {
		t.Fatal(err)
	}
	b := a
	b.Release, b.Command, b.Layers = 3, "two", []manifold.Image{{Digest: "sha256:2"}}
	b.Env = map[string]string{"NEW": "x", "SAME": "y", "SECRET": "lion"}
	r := NewReleases(path) // another agent's
	if err := r.Note(b, now); err != nil {
		t.Fatal(err)
	}
	c := r.Change("a", 3)
	if c == nil || c.Since != 1 || !c.Slug || !slices.Equal(c.Commands, []string{"web"}) || !slices.Equal(c.Added, []string{"NEW"}) ||
		!slices.Equal(c.Removed, []string{"GONE"}) || !slices.Equal(c.Changed, []string{"SECRET"}) {
		t.Errorf("%+v", c)
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(text), "tiger") || strings.Contains(string(text), "lion") {
		t.Errorf("on disk: %s, %v", text, err)
	}
	if r.Change("a", 2) != nil || r.Change("b", 1) != nil {
		t.Error("it knows a release it never saw")
	}
	if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := NewReleases(path).Note(b, now); err != nil {
		t.Errorf("after garbage: %v", err)
	}
}

// What an app wrote last does not keep its end from being known, whatever
// bytes it is of.
func TestStoreKeepsTheLargest(t *testing.T) {
	s := NewStore(t.TempDir())
	lines := make([]string, KeptLines)
	for i := range lines {
		lines[i] = strings.Repeat("\x01", MaxText)
	}
	r := exited(1, lines...)
	r.Run = "run"
	if err := s.Keep(r); err != nil {
		t.Fatal(err)
	}
	runs, err := s.Find(1, func(Run) bool { return true })
	if err != nil || len(runs) != 1 || len(runs[0].Lines) != KeptLines {
		t.Errorf("%d runs are found, %v", len(runs), err)
	}
}

// TestKeepOnAFullDisk: what could not be kept takes no room: no other run would
// ever take its place.
func TestKeepOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("mount a small tmpfs (this test needs root): %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}()
	s := NewStore(dir)
	if err := s.Keep(Run{Run: "r1", Command: strings.Repeat("x", 100<<10)}); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("it says %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}
