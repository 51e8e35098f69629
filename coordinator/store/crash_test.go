package store

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"manifold"
)

// TestMain makes the test binary the writer that TestKillLosesNothing kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("STORE_CRASH_DIR"); dir != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeUntilKilled adds releases and prints the number of each that was
// acknowledged.
func writeUntilKilled(dir string) error {
	ctx := context.Background()
	s, err := Open(ctx, dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	app, err := s.App(ctx, "crash")
	if err != nil {
		return err
	}
	ctx = By(ctx, &Author{ID: ada.ID, Email: ada.Email})
	for {
		r, err := s.AddRelease(ctx, app.ID, ada, func(r *manifold.Release) error {
			r.Description = "Set LAST config vars"
			r.Config["LAST"] = strconv.Itoa(r.Version + 1)
			return nil
		})
		if err != nil {
			return err
		}
		if _, err := fmt.Println(r.Version); err != nil {
			return err
		}
	}
}

func TestKillLosesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	app := newApp(t, s, "crash")
	s.Close()
	last := 2
	for round := range 6 {
		acknowledged := killedWriter(t, dir, 1+rand.N(150))
		if acknowledged <= last {
			t.Fatalf("round %d: the writer got no further than v%d", round, acknowledged)
		}
		s := open(t, dir)
		releases := must(s.Releases(t.Context(), app.ID))(t)
		// One more than acknowledged may be there: its answer was cut off.
		if n := len(releases); n < acknowledged || n > acknowledged+1 {
			t.Fatalf("round %d: %d releases after v%d was acknowledged", round, n, acknowledged)
		}
		for i, r := range releases {
			if r.Version != i+1 || i >= 2 && r.Config["LAST"] != strconv.Itoa(i+1) {
				t.Fatalf("round %d: release %d is %+v", round, i+1, r)
			}
		}
		if head := must(s.CurrentRelease(t.Context(), app.ID))(t); head.Version != len(releases) {
			t.Fatalf("round %d: current is v%d of %d", round, head.Version, len(releases))
		}
		trail := must(s.Audit(t.Context(), app.ID))(t)
		if e := trail[len(trail)-1]; e.Action != fmt.Sprintf("Set LAST config vars (v%d)", len(releases)) || e.User != ada.Email || int(e.Seq) != len(releases)-2 {
			t.Fatalf("round %d: after v%d the audit trail ends with %+v", round, len(releases), e)
		}
		last = len(releases)
		s.Close()
	}
	t.Logf("%d releases, none lost", last)
}

// killedWriter runs a writer, kills it with SIGKILL after some writes, at a
// moment of no meaning to it, and returns the last number it acknowledged.
func killedWriter(t *testing.T, dir string, writes int) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var complaint strings.Builder
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "STORE_CRASH_DIR="+dir)
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acknowledged := 0
	for lines := bufio.NewScanner(out); lines.Scan(); writes-- {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			break // the kill cut the line
		}
		acknowledged = n
		if writes == 0 {
			time.AfterFunc(rand.N(5*time.Millisecond), func() { cmd.Process.Kill() })
		}
	}
	if cmd.Wait(); complaint.Len() > 0 {
		t.Fatalf("writer: %s", complaint.String())
	}
	return acknowledged
}
