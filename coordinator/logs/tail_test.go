package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestSlowTailIsToldWhatItMissed(t *testing.T) {
	h := open(t, t.TempDir())
	tail, err := h.Subscribe(appA, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	const total = 100_000
	text := strings.Repeat("x", 200)
	for n := uint64(1); n <= total; n += 1000 {
		s := numbered("r1/app", "web.1", n, n+999)
		for i := range s.Lines {
			s.Lines[i].Text = text
		}
		add(t, h, s)
	}
	seen, missed := 0, 0
	for seen+missed < total {
		lines, err := tail.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			if n, ok := strings.CutPrefix(l.Text, "Error L11 (Tail buffer overflow) -> This tail session dropped "); ok {
				count, _, _ := strings.Cut(n, " ")
				k, err := strconv.Atoi(count)
				if err != nil || l.Process != "logplex" {
					t.Fatalf("%v", l)
				}
				missed += k
				continue
			}
			seen++
		}
	}
	if seen+missed != total || missed == 0 || seen < DefaultKeep.Lines {
		t.Fatalf("%d seen, %d missed", seen, missed)
	}
}

func TestTailKeepsUpAcrossSegments(t *testing.T) {
	h := open(t, t.TempDir())
	const total = 30_000
	for range 3 {
		tail, err := h.Subscribe(appA, Filter{Dyno: "web.1"})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			defer tail.Close()
			for want := 1; want <= total; {
				lines, err := tail.Next(t.Context())
				if err != nil {
					done <- err
					return
				}
				for _, l := range lines {
					if l.Text != strconv.Itoa(want) {
						done <- fmt.Errorf("got %q, want %d", l.Text, want)
						return
					}
					want++
				}
			}
			done <- nil
		}()
		defer func() {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
	}
	for n := uint64(1); n <= total; n += 100 {
		add(t, h, numbered("r1/app", "web.1", n, n+99), numbered("r2/app", "web.2", n, n+99))
	}
}

// A tail that cannot begin gives back what it held, also where every other app
// is in use.
func TestTailOfUnreadableApp(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	for i := range maxLoaded {
		tail, err := h.Subscribe(fmt.Sprintf("app-%d", i), Filter{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(tail.Close)
	}
	if err := os.WriteFile(filepath.Join(dir, "unreadable"), nil, 0o600); err != nil { // where a directory belongs
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := h.Subscribe("unreadable", Filter{})
		failed <- err
	}()
	select {
	case err := <-failed:
		if err == nil {
			t.Error("a tail of nothing")
		}
	case <-time.After(patience):
		t.Fatal("the hub hangs")
	}
	if n := len(h.buffers); n != maxLoaded {
		t.Errorf("%d apps are held", n)
	}
}
