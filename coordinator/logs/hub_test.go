package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"manifold"
)

// patience is how long a test waits for what must happen: a machine may be busy
// with others' tests.
const patience = time.Minute

const appA = "01234567-89ab-cdef-0123-456789abcdef"

func open(t testing.TB, dir string) *Hub {
	t.Helper()
	h, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// numbered makes lines from..to of a stream, whose text is their number.
func numbered(id, process string, from, to uint64) manifold.LogStream {
	s := manifold.LogStream{ID: id, App: appA, Source: manifold.SourceApp, Process: process}
	for n := from; n <= to; n++ {
		s.Lines = append(s.Lines, manifold.LogLine{Seq: n, Time: time.Now(), Text: strconv.FormatUint(n, 10)})
	}
	return s
}

func add(t testing.TB, h *Hub, streams ...manifold.LogStream) {
	t.Helper()
	if err := h.Append(t.Context(), streams); err != nil {
		t.Fatal(err)
	}
}

func recent(t testing.TB, h *Hub, f Filter, n int) []string {
	t.Helper()
	lines, err := h.Recent(appA, f, n)
	if err != nil {
		t.Fatal(err)
	}
	texts := make([]string, len(lines))
	for i, l := range lines {
		texts[i] = l.Source + "[" + l.Process + "]: " + l.Text
	}
	return texts
}

func same(t testing.TB, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestFiltersChooseLines(t *testing.T) {
	h := open(t, t.TempDir())
	add(t, h, numbered("r1/app", "web.1", 1, 2), numbered("r2/app", "web.2", 1, 1), numbered("r3/app", "webber.1", 1, 1))
	h.Write(appA, manifold.SourceHeroku, "web.1", "State changed from starting to up")
	for _, c := range []struct {
		f    Filter
		want []string
	}{
		{Filter{Dyno: "web"}, []string{"app[web.1]: 1", "app[web.1]: 2", "app[web.2]: 1", "heroku[web.1]: State changed from starting to up"}},
		{Filter{Dyno: "web.1", Source: "app"}, []string{"app[web.1]: 1", "app[web.1]: 2"}},
		{Filter{Source: "heroku"}, []string{"heroku[web.1]: State changed from starting to up"}},
		{Filter{Dyno: "webber.1"}, []string{"app[webber.1]: 1"}},
		{Filter{Dyno: "w"}, nil},
	} {
		same(t, recent(t, h, c.f, 100), c.want...)
	}
	same(t, recent(t, h, Filter{}, 1), "heroku[web.1]: State changed from starting to up")
	same(t, recent(t, h, Filter{}, 0))
	same(t, recent(t, h, Filter{}, -1))
}

func TestLineFormat(t *testing.T) {
	at := time.Date(2012, 10, 11, 5, 47, 20, 123456789, time.FixedZone("", 7200))
	l := Line{Time: at, Source: "app", Process: "web.1", Text: "text"}
	if got, want := l.String(), "2012-10-11T03:47:20.123456+00:00 app[web.1]: text"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
}

func TestResentLinesAreDroppedAlsoAfterRestart(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	add(t, h, numbered("r1/app", "web.1", 1, 3))
	add(t, h, numbered("r1/app", "web.1", 2, 4))
	h.Close()
	h = open(t, dir)
	add(t, h, numbered("r1/app", "web.1", 1, 5))
	same(t, recent(t, h, Filter{}, 100), "app[web.1]: 1", "app[web.1]: 2", "app[web.1]: 3", "app[web.1]: 4", "app[web.1]: 5")
}

// TestQuietStreamIsRemembered though its last line left the buffer long ago.
func TestQuietStreamIsRemembered(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	add(t, h, numbered("quiet/app", "web.1", 1, 10))
	for n := uint64(1); n <= 100_000; n += 5000 {
		add(t, h, numbered("busy/app", "web.2", n, n+4999))
	}
	h.Close()
	h = open(t, dir)
	add(t, h, numbered("quiet/app", "web.1", 10, 11))
	same(t, recent(t, h, Filter{}, 2), "app[web.2]: 100000", "app[web.1]: 11")
}

func TestGapBecomesOneLineWithTheCount(t *testing.T) {
	h := open(t, t.TempDir())
	add(t, h, numbered("r1/app", "web.1", 1, 1))
	add(t, h, numbered("r1/app", "web.1", 10, 10))
	add(t, h, numbered("r1/app", "web.1", 10, 11))
	got := recent(t, h, Filter{}, 100)
	if len(got) != 4 || !strings.HasPrefix(got[1], "heroku[logplex]: Error L12: 8 messages dropped since 2") {
		t.Fatalf("%q", got)
	}
	same(t, got[2:], "app[web.1]: 10", "app[web.1]: 11")
}

// TestUnfinishedWriteIsCutOff does what a kill in the middle of a write leaves.
func TestUnfinishedWriteIsCutOff(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	add(t, h, numbered("r1/app", "web.1", 1, 3))
	h.Close()
	name := filepath.Join(dir, appA, fmt.Sprintf("%020d.log", 1))
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, info.Size()-1); err != nil {
		t.Fatal(err)
	}
	h = open(t, dir)
	same(t, recent(t, h, Filter{}, 100), "app[web.1]: 1", "app[web.1]: 2")
	add(t, h, numbered("r1/app", "web.1", 1, 4))
	same(t, recent(t, h, Filter{}, 100), "app[web.1]: 1", "app[web.1]: 2", "app[web.1]: 3", "app[web.1]: 4")
}

// TestKilledHub kills a writing process with SIGKILL ten times, and each time
// sends on from a little before what was acknowledged.
func TestKilledHub(t *testing.T) {
	dir := t.TempDir()
	const rounds, perRound = 10, 90 // all within what is kept
	var acked uint64
	for range rounds {
		from := max(acked, 5) - 4
		cmd := exec.Command(os.Args[0], "-test.run=^TestHelperWrites$")
		cmd.Env = append(os.Environ(), "LOGS_DIR="+dir, fmt.Sprintf("LOGS_FROM=%d", from))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		first := acked
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if n, err := strconv.ParseUint(lines.Text(), 10, 64); err == nil {
				acked = n
			}
			if acked > first+perRound {
				break
			}
		}
		_ = cmd.Process.Kill()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	}
	h := open(t, dir)
	got := recent(t, h, Filter{}, DefaultKeep.Lines)
	if uint64(len(got)) < acked {
		t.Fatalf("%d lines kept, %d acknowledged", len(got), acked)
	}
	for i, text := range got {
		if want := fmt.Sprintf("app[web.1]: %d", i+1); text != want {
			t.Fatalf("line %d is %q", i+1, text)
		}
	}
}

// TestHelperWrites is the process that TestKilledHub kills.
func TestHelperWrites(t *testing.T) {
	dir := os.Getenv("LOGS_DIR")
	if dir == "" {
		return
	}
	from, _ := strconv.ParseUint(os.Getenv("LOGS_FROM"), 10, 64)
	h := open(t, dir)
	for n := from; n < from+140; n++ { // it may be well ahead of who reads, not of what is kept
		add(t, h, numbered("r1/app", "web.1", n, n))
		fmt.Println(n)
	}
	select {}
}

func diskUse(t testing.TB, dir string) (bytes int64, files int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			info, _ := d.Info()
			bytes, files = bytes+info.Size(), files+1
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes, files
}

func TestKeptIsBounded(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	for n := uint64(1); n <= 60_000; n += 500 {
		add(t, h, numbered("r1/app", "web.1", n, n+499))
	}
	got := recent(t, h, Filter{}, 1_000_000)
	if len(got) != DefaultKeep.Lines || got[0] != "app[web.1]: 58501" || got[DefaultKeep.Lines-1] != "app[web.1]: 60000" {
		t.Fatalf("%d lines, %s … %s", len(got), got[0], got[len(got)-1])
	}
	if size, files := diskUse(t, dir); size > keepBytes+2*segmentBytes || files > 8 {
		t.Fatalf("%d bytes in %d files", size, files)
	}
	long := numbered("r1/app", "web.1", 60_001, 64_000)
	for i := range long.Lines {
		long.Lines[i].Text = strings.Repeat("x", 10_000)
	}
	add(t, h, long)
	if size, _ := diskUse(t, dir); size > int64(DefaultKeep.Lines)*10_100+2*segmentBytes {
		t.Fatalf("%d bytes of long lines", size)
	}
	if got := recent(t, h, Filter{}, 5000); len(got) != DefaultKeep.Lines {
		t.Fatalf("%d lines", len(got))
	}
}

func TestManyAppsAreNotHeldInMemory(t *testing.T) {
	h := open(t, t.TempDir())
	id := func(n int) string { return fmt.Sprintf("app-%d", n) }
	const apps = maxLoaded + 500
	for n := range apps {
		s := numbered("r/app", "web.1", 1, 2)
		s.App = id(n)
		add(t, h, s)
	}
	if n := len(h.buffers); n > maxLoaded {
		t.Fatalf("%d apps loaded", n)
	}
	for n := range apps {
		s := numbered("r/app", "web.1", 1, 3)
		s.App = id(n)
		add(t, h, s)
		if lines, err := h.Recent(id(n), Filter{}, 10); err != nil || len(lines) != 3 {
			t.Fatalf("app %d: %d lines, %v", n, len(lines), err)
		}
	}
}

func TestStreamsAreForgottenOldestFirst(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	for n := range 5000 {
		s := numbered(fmt.Sprintf("run-%d/app", n), "web.1", 1, 1)
		s.Lines[0].Text = strings.Repeat("y", 1000)
		add(t, h, s)
	}
	h.Close()
	h = open(t, dir)
	add(t, h, numbered("run-4999/app", "web.1", 1, 1))
	if got := recent(t, h, Filter{}, 1)[0]; !strings.HasSuffix(got, "yyy") {
		t.Fatalf("the last stream was forgotten: %s", got)
	}
	if n := len(h.buffers[appA].Value.(*buffer).streams); n > 2*maxStreams {
		t.Fatalf("%d streams", n)
	}
}

func TestForget(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	add(t, h, numbered("r1/app", "web.1", 1, 3))
	tail, err := h.Subscribe(appA, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	if err := h.Forget(appA); err != nil {
		t.Fatal(err)
	}
	if _, err := tail.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Fatalf("tail: %v", err)
	}
	add(t, h, numbered("r1/app", "web.1", 4, 5)) // the last words of its dynos
	h.Write(appA, "app", "api", "late")
	if _, err := h.Recent(appA, Filter{}, 10); !errors.Is(err, ErrForgotten) {
		t.Fatalf("recent: %v", err)
	}
	if _, files := diskUse(t, dir); files != 0 {
		t.Fatalf("%d files left", files)
	}
}

func TestAWeekLaterNothingIsLeft(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	add(t, h, numbered("r1/app", "web.1", 1, 3))
	h.sweepOnce(time.Now().Add(DefaultKeep.Time - time.Hour))
	if got := recent(t, h, Filter{}, 10); len(got) != 3 {
		t.Fatalf("%d lines before the week was over", len(got))
	}
	h.sweepOnce(time.Now().Add(DefaultKeep.Time + time.Hour))
	if _, files := diskUse(t, dir); files != 0 {
		t.Fatalf("%d files left", files)
	}
	add(t, h, numbered("r1/app", "web.1", 1, 1))
	same(t, recent(t, h, Filter{}, 10), "app[web.1]: 1")
}

func TestOldLinesAreNotShown(t *testing.T) {
	h := open(t, t.TempDir())
	s := numbered("r1/app", "web.1", 1, 2)
	s.Lines[0].Time = time.Now().Add(-DefaultKeep.Time - time.Minute)
	add(t, h, s)
	same(t, recent(t, h, Filter{}, 10), "app[web.1]: 2")
}

// TestFullDisk has a real file system with no room left.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("logs-test", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatalf("mount a small tmpfs (this test needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	h, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	add(t, h, numbered("r1/app", "web.1", 1, 2))
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill: %v", err)
	}
	long := numbered("r1/app", "web.1", 3, 3)
	long.Lines[0].Text = strings.Repeat("x", 9000)
	if err := h.Append(t.Context(), []manifold.LogStream{long}); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("append: %v", err)
	}
	h.Write(appA, "app", "api", strings.Repeat("z", 9000))
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	add(t, h, numbered("r1/app", "web.1", 3, 4))
	h.Write(appA, "app", "api", "room again")
	got := recent(t, h, Filter{}, 10)
	if !strings.Contains(got[4], "Error L12: 1 messages dropped") {
		t.Fatalf("%q", got)
	}
	same(t, append(got[:4:4], got[5:]...), "app[web.1]: 1", "app[web.1]: 2", "app[web.1]: 3", "app[web.1]: 4", "app[api]: room again")
}

func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	for _, app := range []string{"", ".", "..", "../x", "a/b", "a\x00b", strings.Repeat("a", 65)} {
		s := numbered("r1/app", "web.1", 1, 1)
		s.App = app
		if err := h.Append(t.Context(), []manifold.LogStream{s}); err == nil {
			t.Errorf("app %q was accepted", app)
		}
		if _, err := h.Recent(app, Filter{}, 1); err == nil {
			t.Errorf("app %q was read", app)
		}
		h.Write(app, "app", "api", "x")
		_ = h.Forget(app)
	}
	for _, id := range []string{"", "a b", "a\nb", "ü", strings.Repeat("a", 300)} {
		if err := h.Append(t.Context(), []manifold.LogStream{numbered(id, "web.1", 1, 1)}); err == nil {
			t.Errorf("stream %q was accepted", id)
		}
	}
	bad := numbered("r1/app", "web.1]: x\nL 9", 1, 4)
	bad.Source = "app\n"
	bad.Lines[0].Text = "one\nL 5 5 0 0 heroku router fake\r\n\x00\x1b[31mred\x9b\xff"
	bad.Lines[1].Text = strings.Repeat("ü", 6000)
	bad.Lines[2].Time = time.Date(99999, 1, 1, 0, 0, 0, 0, time.UTC)
	bad.Lines[3].Time = time.Time{}
	add(t, h, bad)
	same(t, recent(t, h, Filter{}, 100),
		"unknown[unknown]: one L 5 5 0 0 heroku router fake  \uFFFD\x1b[31mred\uFFFD\uFFFD",
		"unknown[unknown]: "+strings.Repeat("ü", 5000), "unknown[unknown]: "+strings.Repeat("ü", 1000),
		"unknown[unknown]: 3", "unknown[unknown]: 4")
	add(t, h, manifold.LogStream{ID: "zero", App: appA, Lines: []manifold.LogLine{{Seq: 0, Text: "never"}}})
}

func BenchmarkAppend(b *testing.B) {
	for _, batch := range []uint64{1, 100, 500} {
		b.Run(fmt.Sprintf("lines=%d", batch), func(b *testing.B) {
			h := open(b, b.TempDir())
			s := numbered("r1/app", "web.1", 1, batch)
			for i := range s.Lines {
				s.Lines[i].Text = strings.Repeat("x", 100)
			}
			b.ReportAllocs()
			var n uint64
			for b.Loop() {
				for i := range s.Lines {
					n++
					s.Lines[i].Seq = n
				}
				if err := h.Append(context.Background(), []manifold.LogStream{s}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/line")
		})
	}
}

func BenchmarkRecent(b *testing.B) {
	h := open(b, b.TempDir())
	add(b, h, numbered("r1/app", "web.1", 1, 5000))
	for b.Loop() {
		if lines, err := h.Recent(appA, Filter{Dyno: "web"}, 100); err != nil || len(lines) != 100 {
			b.Fatal(err)
		}
	}
}
