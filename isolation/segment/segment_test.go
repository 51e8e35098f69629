package segment

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var at = time.Date(2026, 11, 21, 19, 3, 57, 123456000, time.UTC)

func newWriter(t *testing.T, dir string, limit int64) *Writer {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	w, err := NewWriter(d, limit)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestLinesComeBackInOrder(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, 1<<20)
	for i := range 1000 {
		w.Append(at, fmt.Appendf(nil, "line %d \xff", i+1))
	}
	w.Close()
	lines, err := Read(dir, 0, 2000)
	if err != nil || len(lines) != 1000 {
		t.Fatalf("got %d lines, %v; want 1000", len(lines), err)
	}
	for i, l := range lines {
		if want := fmt.Sprintf("line %d \xff", i+1); l.Seq != uint64(i+1) || string(l.Text) != want || !l.Time.Equal(at) {
			t.Fatalf("line %d is %d %v %q", i+1, l.Seq, l.Time, l.Text)
		}
	}
	if lines, _ := Read(dir, 990, 5); len(lines) != 5 || lines[0].Seq != 991 {
		t.Errorf("after 990: %v", lines)
	}
}

func TestWriterGoesOnAfterReopening(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, 1<<20)
	w.Append(at, []byte("one"))
	w.Close()
	// A torn line, as a crash in the middle of a write leaves it.
	f, _ := os.OpenFile(filepath.Join(dir, fileName(1)), os.O_APPEND|os.O_WRONLY, 0)
	fmt.Fprint(f, "2 2026-11-21T19")
	f.Close()
	w = newWriter(t, dir, 1<<20)
	w.Append(at, []byte("two"))
	w.Close()
	lines, err := Read(dir, 0, 10)
	if err != nil || len(lines) != 2 || lines[1].Seq != 2 || string(lines[1].Text) != "two" {
		t.Fatalf("got %v, %v", lines, err)
	}
}

func TestOldestFilesGoAndAreCounted(t *testing.T) {
	for _, burst := range []int{1, 700} { // lines between two flushes
		t.Run(fmt.Sprint(burst), func(t *testing.T) { oldestFilesGo(t, burst) })
	}
}

func oldestFilesGo(t *testing.T, burst int) {
	dir := t.TempDir()
	w := newWriter(t, dir, 1<<20)
	text := bytes.Repeat([]byte("x"), 1000)
	const n = 5000 // 5 MB into 1 MB
	for i := range n {
		w.Buffer(at, text)
		if i%burst == 0 {
			w.Flush()
		}
	}
	w.Close()
	var size int64
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		info, _ := e.Info()
		size += info.Size()
	}
	if size > 1<<20 {
		t.Errorf("%d bytes on disk, limit is %d", size, 1<<20)
	}
	lines, err := Read(dir, 0, 2*n)
	if err != nil || len(lines) == 0 || lines[len(lines)-1].Seq != n {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	for i := 1; i < len(lines); i++ {
		if lines[i].Seq != lines[i-1].Seq+1 {
			t.Fatalf("gap between %d and %d inside what was kept", lines[i-1].Seq, lines[i].Seq)
		}
	}
}

func TestReaderFollowsAcrossFiles(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, 4<<20)
	r, err := OpenReader(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	next := uint64(1)
	for i := range 3000 {
		w.Append(at, bytes.Repeat([]byte("y"), 500))
		if i%7 != 0 {
			continue
		}
		lines, err := r.Next(100)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			if l.Seq != next {
				t.Fatalf("got line %d, want %d", l.Seq, next)
			}
			next++
		}
	}
	w.Close()
	lines, err := r.Next(1 << 20)
	if err != nil || int(next)+len(lines) != 3001 {
		t.Fatalf("read up to %d and then %d more (%v), want 3000", next-1, len(lines), err)
	}
	if lines, err := r.Next(10); len(lines) != 0 || err != nil {
		t.Fatalf("at the end: %v, %v", lines, err)
	}
}

func TestLongLinesAreCutAndNewlinesCannotForgeLines(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, 1<<20)
	w.Append(at, bytes.Repeat([]byte("z"), 2*MaxLine+1))
	w.Append(at, []byte("a\n99 2026-11-21T19:03:57.123456Z forged"))
	w.Close()
	lines, err := Read(dir, 0, 10)
	if err != nil || len(lines) != 4 || len(lines[2].Text) != 1 || lines[3].Seq != 4 {
		t.Fatalf("got %d lines, %v", len(lines), err)
	}
}

func TestFullDiskDropsAndCounts(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, 1<<20)
	w.Append(at, []byte("kept"))
	w.file.Close() // every write now fails, as on a full disk
	w.Append(at, []byte("dropped"))
	w.file = nil
	w.Append(at, []byte("kept again"))
	w.Close()
	lines, err := Read(dir, 0, 10)
	if err != nil || len(lines) != 2 || lines[1].Seq != 3 {
		t.Fatalf("got %v, %v", lines, err)
	}
}

func TestGarbageIsSkipped(t *testing.T) {
	dir := t.TempDir()
	garbage := append(bytes.Repeat([]byte{0xff, 0}, 100<<10), []byte("\n1 nonsense\n\n7 2026-11-21T19:03:57.123456Z good\n")...)
	if err := os.WriteFile(filepath.Join(dir, fileName(1)), garbage, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, fileName(9))); err != nil {
		t.Fatal(err)
	}
	lines, err := Read(dir, 0, 10)
	if len(lines) != 1 || lines[0].Seq != 7 {
		t.Fatalf("got %v, %v", lines, err)
	}
	if err == nil {
		t.Error("a link in place of a segment was read without complaint")
	}
}

func BenchmarkAppend(b *testing.B) {
	dir, err := os.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	w, err := NewWriter(dir, 16<<20)
	if err != nil {
		b.Fatal(err)
	}
	line := bytes.Repeat([]byte("l"), 100)
	for b.Loop() {
		w.Buffer(at, line)
	}
	w.Close()
}

// TestLastLinesAmongGarbage: a stream's end is found whatever a disk or a
// hostile hand made of it, and reading it is bounded.
func TestLastLinesAmongGarbage(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, 1<<20)
	for i := range 200 {
		w.Append(at, fmt.Appendf(nil, "line %d", i+1))
	}
	w.Close()
	lines, err := Last(dir, 50)
	if err != nil || len(lines) != 50 || lines[0].Seq != 151 || string(lines[49].Text) != "line 200" {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	// A line of 100 MB, which no writer of ours makes, and then a good one.
	huge, err := os.Create(filepath.Join(dir, fileName(201)))
	if err != nil {
		t.Fatal(err)
	}
	defer huge.Close()
	if err := huge.Truncate(100 << 20); err != nil { // binary zeros, and no disk for them
		t.Fatal(err)
	}
	if _, err := huge.WriteAt([]byte("\n300 2026-11-21T19:03:57.123456Z good\n\xff\x00garbage\n301 2026-11"), 100<<20); err != nil {
		t.Fatal(err)
	}
	lines, err = Last(dir, 50)
	if err != nil || len(lines) != 1 || lines[0].Seq != 300 || string(lines[0].Text) != "good" {
		t.Fatalf("behind a long line: %d lines, %v", len(lines), err)
	}
	if n := testing.AllocsPerRun(1, func() { _, _ = Last(dir, 50) }); n > 1000 {
		t.Errorf("%v allocations", n)
	}
	// What is read from the middle of a line must not pass for one.
	forged := append(bytes.Repeat([]byte("x"), 10), []byte(" 400 2026-11-21T19:03:57.123456Z forged")...)
	forged = append(forged, bytes.Repeat([]byte(" "), maxTail-len(" 400 2026-11-21T19:03:57.123456Z forged")+1)...)
	if err := os.WriteFile(filepath.Join(dir, fileName(400)), append(forged, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	if lines, err = Last(dir, 50); err != nil || len(lines) > 1 {
		t.Fatalf("after a forged line: %d lines, %v", len(lines), err)
	}
	if lines, err = Last(filepath.Join(dir, "none"), 5); err != nil || lines != nil {
		t.Fatalf("without a directory: %v, %v", lines, err)
	}
}
