package segment

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Reader follows a stream. It keeps its place between calls, so that
// following costs one read(2) when nothing was written. It is not safe for
// concurrent use.
type Reader struct {
	dir   *os.File
	after uint64 // the last line handed out
	file  *os.File
	start uint64 // of file
	off   int64  // behind the last whole line read of file
	buf   []byte
}

// OpenReader follows the stream in dir from the line behind number after.
func OpenReader(dir string, after uint64) (*Reader, error) {
	d, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &Reader{dir: d, after: after, buf: make([]byte, 0, 32<<10)}, nil
}

// Close releases the reader.
func (r *Reader) Close() {
	r.dir.Close()
	if r.file != nil {
		r.file.Close()
	}
}

// Next returns up to maxLines lines, none if there is nothing new. The texts
// are the caller's. Lines that cannot be read are skipped: they show as a gap.
func (r *Reader) Next(maxLines int) ([]Line, error) {
	var lines []Line
	for len(lines) < maxLines {
		// Asked before reading: what a writer adds to this file after it
		// began the next one is nothing, so an empty read then is the end.
		next, err := r.newer()
		if err != nil {
			return lines, err
		}
		n := 0
		if r.file != nil {
			if n, err = r.fill(); err != nil {
				return lines, err
			}
		}
		switch {
		case n > 0:
			lines = r.take(lines, maxLines)
		case next == 0:
			return lines, nil
		default:
			if ok, err := r.open(next); !ok || err != nil {
				return lines, err
			}
		}
	}
	return lines, nil
}

// fill reads on at off; it returns how many bytes came that hold at least
// one whole line.
func (r *Reader) fill() (int, error) {
	buf := r.buf[:cap(r.buf)]
	n, err := r.file.ReadAt(buf, r.off)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	end := bytes.LastIndexByte(buf[:n], '\n')
	if end < 0 && n == len(buf) {
		r.off += int64(n) // no writer of ours wrote that: skip it
		return n, nil
	}
	r.buf = buf[:end+1]
	return end + 1, nil
}

// take moves whole lines out of buf, up to maxLines.
func (r *Reader) take(lines []Line, maxLines int) []Line {
	rest := r.buf
	for len(rest) > 0 && len(lines) < maxLines {
		i := bytes.IndexByte(rest, '\n')
		l, ok := parse(rest[:i])
		if ok && l.Seq > r.after {
			l.Text = bytes.Clone(l.Text)
			lines = append(lines, l)
			r.after = l.Seq
		}
		rest = rest[i+1:]
		r.off += int64(i + 1)
	}
	return lines
}

// newer is the first number of the file to read after this one, or of the
// file to begin with; 0 if there is none.
func (r *Reader) newer() (uint64, error) {
	list, err := starts(r.dir)
	if err != nil {
		return 0, err
	}
	if r.file != nil {
		for _, s := range list {
			if s > r.start {
				return s, nil
			}
		}
		return 0, nil
	}
	begin := uint64(0)
	for _, s := range list {
		if begin == 0 || s <= r.after+1 {
			begin = s
		}
	}
	return begin, nil
}

// open goes on with the file that starts at number start; false if the
// writer has dropped it meanwhile.
func (r *Reader) open(start uint64) (bool, error) {
	f, err := openat(r.dir, fileName(start), unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if r.file != nil {
		r.file.Close()
	}
	r.file, r.start, r.off = f, start, 0
	return true, nil
}

// Read returns up to maxLines lines behind number after, without keeping a
// place. A directory that does not exist yet holds none.
func Read(dir string, after uint64, maxLines int) ([]Line, error) {
	r, err := OpenReader(dir, after)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.Next(maxLines)
}
