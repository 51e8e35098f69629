package segment

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// maxTail bounds how much of a stream's end Last reads, in bytes. It has room
// for a hundred lines of the greatest length.
const maxTail = 1 << 20

// Last returns the last n lines of the stream in dir, oldest first, or fewer
// where they are not within a megabyte of its end. A directory that does not
// exist holds none.
func Last(dir string, n int) ([]Line, error) {
	d, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	list, err := starts(d)
	if err != nil {
		return nil, err
	}
	var lines []Line // newest first
	room := int64(maxTail)
	for _, start := range slices.Backward(list) {
		if len(lines) >= n || room <= 0 {
			break
		}
		text, read, err := tail(d, fileName(start), room)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the writer has dropped it meanwhile
		}
		if err != nil {
			return nil, err
		}
		room -= read
		lines = lastOf(lines, text, n)
	}
	slices.Reverse(lines)
	return lines, nil
}

// tail reads the end of a file: its lines, and how many bytes that took.
func tail(dir *os.File, name string, room int64) (text []byte, read int64, err error) {
	f, err := openat(dir, name, unix.O_RDONLY)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	from := max(info.Size()-room, 0)
	text, err = io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
	read = int64(len(text))
	if from > 0 { // the rest of a line could pass for one
		text = text[bytes.IndexByte(text, '\n')+1:]
	}
	return text, read, err
}

// lastOf adds the whole lines of text, newest first, up to n.
func lastOf(lines []Line, text []byte, n int) []Line {
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	for len(text) > 0 && len(lines) < n {
		text = text[:len(text)-1]
		i := bytes.LastIndexByte(text, '\n')
		if l, ok := parse(text[i+1:]); ok && (len(lines) == 0 || l.Seq < lines[len(lines)-1].Seq) {
			l.Text = bytes.Clone(l.Text)
			lines = append(lines, l)
		}
		text = text[:i+1]
	}
	return lines
}
