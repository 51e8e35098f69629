// Package segment keeps a stream of numbered log lines in a directory of
// bounded files: PID 1 of a dyno writes one, the agent writes one, and the
// agent reads both and ships them.
//
// A file is named by the number of its first line and holds text that an SRE
// can read with less(1):
//
//	00000000000000000001.log     1 2026-11-21T19:03:57.123456Z Listening on 31337
//	                             2 2026-11-21T19:03:57.130021Z GET / 200
//	00000000000000018211.log     …
//
// Every line gets a number, also one that could not be kept: a gap in the
// numbers is exactly the lines that were dropped. A writer must never block
// or fail its caller, whatever the disk says, and a reader must never believe
// a file: it may be cut short, or be written by a hostile dyno.
package segment

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// MaxLine is where a line is cut into several, in bytes.
	MaxLine = 10_000
	// files is how many files a full stream is spread over; the oldest goes
	// when a new one is begun, so at most 1/files of the bound is lost at once.
	files = 16
	// minFile keeps tiny bounds from making a file per line.
	minFile = 64 << 10

	suffix  = ".log"
	nameLen = 20 + len(suffix)
	stamp   = "2006-01-02T15:04:05.000000Z"
)

// Line is one line of a stream.
type Line struct {
	Seq  uint64 // from 1
	Time time.Time
	Text []byte // without newline, at most MaxLine bytes, any bytes
}

func fileName(seq uint64) string {
	s := strconv.FormatUint(seq, 10)
	return strings.Repeat("0", 20-len(s)) + s + suffix
}

func parseFileName(name string) (seq uint64, ok bool) {
	if len(name) != nameLen || !strings.HasSuffix(name, suffix) {
		return 0, false
	}
	seq, err := strconv.ParseUint(strings.TrimSuffix(name, suffix), 10, 64)
	return seq, err == nil
}

// starts lists the first numbers of the files in dir, oldest first.
func starts(dir *os.File) ([]uint64, error) {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(10 * files)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var seqs []uint64
	for _, name := range names {
		if seq, ok := parseFileName(name); ok {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	return seqs, nil
}

// parse reads one line without its newline.
func parse(b []byte) (Line, bool) {
	num, rest, ok := bytes.Cut(b, []byte{' '})
	if !ok {
		return Line{}, false
	}
	at, text, ok := bytes.Cut(rest, []byte{' '})
	if !ok || len(text) > MaxLine {
		return Line{}, false
	}
	seq, err := strconv.ParseUint(string(num), 10, 64)
	if err != nil || seq == 0 {
		return Line{}, false
	}
	t, err := time.Parse(stamp, string(at))
	if err != nil {
		return Line{}, false
	}
	return Line{Seq: seq, Time: t, Text: text}, true
}
