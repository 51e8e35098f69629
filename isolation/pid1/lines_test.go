package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"manifold/isolation/segment"
)

// TestLinesAreCutAlikeHoweverTheyCome: a line of the greatest length whose end
// is read later is one line, and no empty one comes behind it.
func TestLinesAreCutAlikeHoweverTheyCome(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0) // each write is one read
	if err != nil {
		t.Fatal(err)
	}
	output, app := os.NewFile(uintptr(pair[0]), "output"), os.NewFile(uintptr(pair[1]), "app")
	defer output.Close()
	full := strings.Repeat("x", segment.MaxLine)
	go func() {
		defer app.Close()
		for _, piece := range []string{full + "\n", full, "\n", full + "\r", "\n", full + "y", "\n", full + full, full + "\n", "\nend"} {
			if _, err := app.WriteString(piece); err != nil {
				t.Error(err)
			}
		}
	}()
	name := t.TempDir()
	dir, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	w, err := segment.NewWriter(dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	count := copyLines(output, w)
	lines, err := segment.Read(name, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range lines {
		got = append(got, strings.ReplaceAll(string(l.Text), full, "FULL"))
	}
	if want := []string{"FULL", "FULL", "FULL", "FULL", "y", "FULL", "FULL", "FULL", "", "end"}; !slices.Equal(got, want) || int(count) != len(want) {
		t.Errorf("%d lines: %q, want %q", count, got, want)
	}
}
