package segment

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Writer appends to a stream. It is not safe for concurrent use.
type Writer struct {
	dir     *os.File
	perFile int64
	most    int    // bytes in buf that are written at once
	seq     uint64 // of the last line, kept or not
	buf     []byte // lines not yet written
	first   uint64 // number of the first line in buf
	file    *os.File
	size    int64 // of file
	starts  []uint64
}

// NewWriter opens the stream in dir for writing, going on behind the last
// line there is. limit bounds its size on disk, in bytes. dir stays the
// caller's.
func NewWriter(dir *os.File, limit int64) (*Writer, error) {
	w := &Writer{dir: dir, perFile: max(limit/files, minFile)}
	w.most = min(256<<10, int(w.perFile)-MaxLine-len(stamp)-32) // one line more still fits into a file
	var err error
	if w.starts, err = starts(dir); err != nil {
		return nil, fmt.Errorf("list log segments: %w", err)
	}
	if n := len(w.starts); n > 0 {
		w.seq = w.starts[n-1] - 1
		err := w.resume()
		if err != nil {
			return nil, fmt.Errorf("read last log segment: %w", err)
		}
	}
	return w, nil
}

// resume finds the last whole line of the newest file. A torn one behind it
// is left alone: the next line starts a new file.
func (w *Writer) resume() error {
	fd, err := openat(w.dir, fileName(w.starts[len(w.starts)-1]), unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer fd.Close()
	data, err := io.ReadAll(io.LimitReader(fd, w.perFile+2*MaxLine))
	if err != nil {
		return err
	}
	for line := range bytes.Lines(data) {
		if l, ok := parse(bytes.TrimSuffix(line, []byte{'\n'})); ok && l.Seq > w.seq {
			w.seq = l.Seq
		}
	}
	return nil
}

// Seq is the number of the last line given to the writer.
func (w *Writer) Seq() uint64 { return w.seq }

// Append adds one line and writes it out. It never fails: a line the disk
// does not take is dropped, and its number with it.
func (w *Writer) Append(t time.Time, line []byte) {
	w.Buffer(t, line)
	w.Flush()
}

// Buffer adds one line to be written at the next Flush. A line over MaxLine
// is cut into several.
func (w *Writer) Buffer(t time.Time, line []byte) {
	for len(line) > MaxLine {
		w.buffer(t, line[:MaxLine])
		line = line[MaxLine:]
	}
	w.buffer(t, line)
}

func (w *Writer) buffer(t time.Time, line []byte) {
	w.seq++
	if len(w.buf) == 0 {
		w.first = w.seq
	}
	w.buf = strconv.AppendUint(w.buf, w.seq, 10)
	w.buf = append(w.buf, ' ')
	w.buf = t.UTC().AppendFormat(w.buf, stamp)
	w.buf = append(w.buf, ' ')
	start := len(w.buf)
	w.buf = append(w.buf, line...)
	for i := bytes.IndexByte(w.buf[start:], '\n'); i >= 0; i = bytes.IndexByte(w.buf[start:], '\n') {
		w.buf[start+i] = ' ' // a newline inside a line would be another line
	}
	w.buf = append(w.buf, '\n')
	if len(w.buf) >= w.most {
		w.Flush()
	}
}

// Flush writes what Buffer gathered.
func (w *Writer) Flush() {
	if len(w.buf) == 0 {
		return
	}
	w.write()
	if cap(w.buf) > 512<<10 {
		w.buf = nil
	}
	w.buf = w.buf[:0]
}

// write appends buf to the current file, or drops it: a half-written tail is
// cut off again, so that a file holds whole lines only.
func (w *Writer) write() {
	if w.file == nil || w.size+int64(len(w.buf)) > w.perFile && w.size > 0 {
		if !w.roll() {
			return
		}
	}
	n, err := w.file.Write(w.buf)
	if err != nil {
		if n > 0 && w.file.Truncate(w.size) != nil {
			w.file.Close() // the torn line stays; readers skip it
			w.file = nil
		}
		return
	}
	w.size += int64(n)
}

// roll begins a new file, after making room for it.
func (w *Writer) roll() bool {
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
	for len(w.starts) >= files {
		_ = unix.Unlinkat(int(w.dir.Fd()), fileName(w.starts[0]), 0) // gone already is as good
		w.starts = w.starts[1:]
	}
	f, err := openat(w.dir, fileName(w.first), unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_APPEND)
	if err != nil {
		return false
	}
	w.file, w.size = f, 0
	if n := len(w.starts); n == 0 || w.starts[n-1] != w.first {
		w.starts = append(w.starts, w.first)
	}
	return true
}

// Close writes what is left and closes the file.
func (w *Writer) Close() {
	w.Flush()
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
}

// openat opens a plain file of the stream, never through a link.
func openat(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "openat", Path: name, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, &os.PathError{Op: "openat", Path: name, Err: unix.EINVAL}
	}
	return os.NewFile(uintptr(fd), name), nil
}
