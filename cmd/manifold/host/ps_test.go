package host

import (
	"strings"
	"testing"
	"time"

	"manifold"
	"manifold/agent/door"
)

// TestTableFitsItsTerminal: at 80 columns a dyno is one line, and what is left
// out is what matters least.
func TestTableFitsItsTerminal(t *testing.T) {
	var out strings.Builder
	tl := &tool{out: &out}
	now := time.Now()
	s := door.Status{
		Dyno:    manifold.Dyno{Name: "worker.12", Since: now.Add(-47 * time.Hour), Crashes: 3, NextTry: now.Add(599 * time.Second)},
		AppName: "quiet-river-12345", Step: "crashed", Release: 123, Size: "Standard-2X", CycleAt: now.Add(26 * time.Hour),
	}
	tl.table(&out, []door.Status{s}, now)
	if head, _, _ := strings.Cut(out.String(), "\n"); strings.Join(strings.Fields(head), " ") != "APP DYNO STATE FOR RESTARTS CRASHES MEM SWAP CPU% PROCS PSI C/M/IO RELEASE SIZE CYCLE NEXT TRY" {
		t.Errorf("a pipe gets %q", head)
	}
	for width, want := range map[int]string{
		0: "A B C", 9: "A B C", 8: "A B", 5: "A B", 1: "A",
	} {
		rows := fit([][]string{{"A", "B", "C"}, {"1", "22", "33"}}, width, []string{"C", "B"})
		if got := strings.Join(rows[0], " "); got != want || len(rows[1]) != len(rows[0]) {
			t.Errorf("in %d columns it shows %q, want %q", width, got, want)
		}
	}
}
