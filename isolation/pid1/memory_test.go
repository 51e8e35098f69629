package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"manifold/isolation/boot"
)

// TestALookAtTheDyingIsNotKept: R15 tells how much memory an app was ended for,
// and not what was left of it when somebody looked in the middle of its end.
func TestALookAtTheDyingIsNotKept(t *testing.T) {
	dir := t.TempDir()
	set := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names := []string{"memory.current", "memory.swap.current", boot.Events}
	p := &pressure{}
	for _, name := range names {
		set(name, "0\n")
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), name) // by its name alone, as PID 1 gets it
		defer f.Close()
		p.stats = append(p.stats, f)
	}
	p.events = p.stats[2]
	for _, at := range []struct{ ram, swap, events, want string }{
		{"500", "900", "oom_kill 0\n", "900"},
		{"500", "100", "oom_kill 0\n", "100"}, // it gave some back by itself
		{"500", "1000", "oom_kill 0\n", "1000"},
		{"500", "0", "oom_kill 2\n", "1000"}, // half dead
		{"0", "0", "oom_kill 2\n", "1000"},
	} {
		set(names[0], at.ram+"\n")
		set(names[1], at.swap+"\n")
		set(names[2], at.events)
		p.look()
		if got := p.seen.Load().Stats["memory.swap.current"]; got != at.want {
			t.Errorf("with %+v kept is %s", at, got)
		}
	}
	if last := p.last(); last == nil || last.Stats["memory.swap.current"] != "1000" || last.Stats[boot.Events] != "oom_kill 2" {
		t.Errorf("in the end %+v", last)
	}
}
