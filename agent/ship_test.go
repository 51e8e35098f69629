package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"manifold"
	"manifold/isolation/segment"
)

// logOf makes a run with its app's log, as a box has it.
func (w *world) logOf(a manifold.Assignment) (*runLog, *segment.Writer) {
	w.t.Helper()
	l, err := w.agent.ship.open(a, uuid.NewString(), true)
	if err != nil {
		w.t.Fatal(err)
	}
	dir := w.t.TempDir()
	f, err := os.Open(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { f.Close() })
	out, err := segment.NewWriter(f, 16<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	w.agent.ship.attach(l, dir)
	return l, out
}

func (w *world) shipped(l *runLog) []manifold.LogLine {
	w.up.mu.Lock()
	defer w.up.mu.Unlock()
	return w.up.logs[l.meta.Run+"/app"]
}

func TestLinesOfABusyAndAQuietDyno(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		w.start()
		busy, out := w.logOf(fakeAssignment())
		quiet, whisper := w.logOf(fakeAssignment())
		const all = 80_000
		for i := range all {
			out.Buffer(time.Now(), fmt.Appendf(nil, "%d %s", i+1, strings.Repeat("x", 100)))
		}
		out.Flush()
		whisper.Append(time.Now(), []byte("me too"))
		w.agent.ship.touchAll()
		time.Sleep(time.Second)
		if n := len(w.shipped(busy)); n < paceLines || n > 2*paceLines {
			t.Errorf("%d lines of the busy one in a second", n)
		}
		if n := len(w.shipped(quiet)); n != 1 {
			t.Errorf("%d lines of the quiet one", n)
		}
		time.Sleep(time.Minute)
		if n := len(w.shipped(busy)); n != all {
			t.Errorf("%d lines of the busy one in the end", n)
		}
		for i, b := range w.up.batches() {
			lines, bytes := 0, 0
			for _, s := range b.Streams {
				lines += len(s.Lines)
				for _, line := range s.Lines {
					bytes += len(line.Text)
				}
			}
			if lines > batchLines+2*readLines || bytes > batchBytes+readLines*manifold.MaxLogLine {
				t.Fatalf("batch %d holds %d lines, %d bytes", i, lines, bytes)
			}
		}
	})
}

func TestLinesOfAnyBytes(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		w.start()
		l, out := w.logOf(fakeAssignment())
		out.Append(time.Now(), []byte("\xff\x00\xfe"))
		out.Append(time.Now(), []byte(strings.Repeat("ä", manifold.MaxLogLine)))
		w.agent.ship.touchAll()
		time.Sleep(time.Second)
		lines := w.shipped(l)
		if len(lines) != 3 {
			t.Fatalf("%d lines", len(lines))
		}
		for _, line := range lines {
			if !utf8.ValidString(line.Text) {
				t.Errorf("line %d is no UTF-8: %q", line.Seq, line.Text)
			}
		}
	})
}

func TestCoordinatorThatRefusesABatchForGood(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		w.start()
		l, out := w.logOf(fakeAssignment())
		w.up.setFail(&manifold.StatusError{Status: 400})
		out.Append(time.Now(), []byte("poison"))
		w.agent.ship.touchAll()
		time.Sleep(time.Second)
		w.up.setFail(nil)
		out.Append(time.Now(), []byte("water"))
		w.agent.ship.touchAll()
		time.Sleep(time.Second)
		if lines := w.shipped(l); len(lines) != 1 || lines[0].Text != "water" || lines[0].Seq != 2 {
			t.Errorf("it got %+v", lines)
		}
	})
}

// TestLogsOfACoordinatorAwayForWeeks: they wait on disk, within bounds, and
// go home in order when it is back.
func TestLogsOfACoordinatorAwayForWeeks(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		w.start()
		w.up.setFail(errors.New("connection refused"))
		old, out := w.logOf(fakeAssignment())
		out.Append(time.Now(), []byte("old"))
		w.agent.ship.finish(old, time.Now())
		time.Sleep(5 * 24 * time.Hour)
		young, out := w.logOf(fakeAssignment())
		out.Append(time.Now(), []byte("young"))
		w.agent.ship.finish(young, time.Now())
		time.Sleep(3 * 24 * time.Hour)
		if _, err := os.Stat(old.dir); err == nil {
			t.Error("a log was kept for longer than its time")
		}
		w.up.setFail(nil)
		time.Sleep(time.Minute)
		if lines := w.shipped(young); len(lines) != 1 || lines[0].Text != "young" {
			t.Errorf("of the young one came %+v", lines)
		}
		if left, _ := filepath.Glob(filepath.Join(w.home.dynos(), "*")); len(left) > 0 {
			t.Errorf("%v is left", left)
		}
	})
}

func TestShipperGoesOnWhereItWas(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		a := fakeAssignment()
		w.start()
		l, out := w.logOf(a)
		for range 10 {
			out.Append(time.Now(), []byte("before"))
		}
		w.agent.ship.touchAll()
		time.Sleep(time.Second)
		dir := l.appDir
		w.stop()
		w.up.batches()
		w.start()
		again, err := w.agent.ship.open(a, l.meta.Run, false)
		if err != nil || again == nil {
			t.Fatal(err)
		}
		w.agent.ship.attach(again, dir)
		out.Append(time.Now(), []byte("after"))
		w.agent.ship.touchAll()
		time.Sleep(time.Second)
		if list := w.up.batches(); len(list) != 1 || len(list[0].Streams) != 1 || len(list[0].Streams[0].Lines) != 1 {
			t.Errorf("after a restart it sent %+v", list)
		}
	})
}

// TestLogsThatAFullDiskHolds: an agent that starts on a full disk ships what
// the one before it left. It needs no room for that, and makes some.
func TestLogsThatAFullDiskHolds(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		smallDisk(t, w.home.dynos())
		w.start()
		w.up.setFail(errors.New("connection refused"))
		l, _ := w.logOf(fakeAssignment())
		w.agent.ship.say(l, 1, time.Now(), "last words")
		w.agent.ship.finish(l, time.Now())
		w.stop()
		if err := os.WriteFile(filepath.Join(w.home.dynos(), "filler"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("fill: %v", err)
		}
		w.start()
		time.Sleep(time.Minute)
		w.up.setFail(nil)
		time.Sleep(time.Minute)
		if said := w.up.heroku(); len(said) != 1 || said[0] != "last words" {
			t.Errorf("the coordinator got %q", said)
		}
		w.stop()
	})
}

// TestLogOfTheNextRunWhileThatOfTheLastGoes: the directory above both is taken
// away when it is empty, and made where it is missing, at the same moment.
func TestLogOfTheNextRunWhileThatOfTheLastGoes(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	s := newShipper(shelf{t.TempDir(), log}, &fakeUp{}, log)
	a := fakeAssignment()
	last, err := s.open(a, uuid.NewString(), true)
	for range 500 {
		if err != nil {
			t.Fatal(err)
		}
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			s.drop(last)
		}()
		var next *runLog
		next, err = s.open(a, uuid.NewString(), true)
		<-gone
		last = next
	}
	s.closeAll()
}
