package logs

import (
	"bytes"
	"strconv"
	"time"
)

// A segment file is lines of text, so that it can be read without us:
//
//	H 1                                       first line: the format
//	P ref seq µs stream                       a stream, the highest number had of it, when it last spoke
//	L id µs ref seq source process text       a log line; ref is 0 when it is of no stream
//
// Every segment starts with a P for each stream that is remembered, so the
// last segment alone tells all that was received. A P comes before the first
// L with its ref. An unfinished last line is one whose writer was killed
// before Append returned, and is cut off.
const header = "H 1\n"

type record struct {
	kind    byte // 'P' or 'L'
	id      uint64
	micros  int64
	ref     uint64
	seq     uint64
	source  []byte
	process []byte
	text    []byte // of P: the stream
}

func (r record) time() time.Time { return time.UnixMicro(r.micros) }

// line shares with last what it can.
func (r record) line(last Line) Line {
	l := Line{ID: r.id, Time: r.time(), Source: last.Source, Process: last.Process, Text: string(r.text)}
	if l.Source != string(r.source) {
		l.Source = string(r.source)
	}
	if l.Process != string(r.process) {
		l.Process = string(r.process)
	}
	return l
}

// parse reads one line without its newline. Its slices point into b.
func parse(b []byte) (record, bool) {
	if len(b) < 2 || b[1] != ' ' {
		return record{}, false
	}
	r := record{kind: b[0]}
	f := fields{rest: b[2:], ok: true}
	switch r.kind {
	case 'L':
		r.id, r.micros, r.ref, r.seq = f.number(), int64(f.number()), f.number(), f.number()
		r.source, r.process, r.text = f.word(), f.word(), f.rest
	case 'P':
		r.ref, r.seq, r.micros = f.number(), f.number(), int64(f.number())
		r.text = f.rest
	default:
		return record{}, false
	}
	return r, f.ok
}

// fields takes blank-separated fields off the front of rest.
type fields struct {
	rest []byte
	ok   bool
}

func (f *fields) word() []byte {
	w, rest, ok := bytes.Cut(f.rest, []byte{' '})
	f.rest, f.ok = rest, f.ok && ok
	return w
}

func (f *fields) number() (n uint64) {
	for _, c := range f.word() {
		if c < '0' || c > '9' {
			f.ok = false
		}
		n = n*10 + uint64(c-'0')
	}
	return n
}

func appendStream(b []byte, ref, seq uint64, at time.Time, stream string) []byte {
	b = append(b, 'P', ' ')
	b = appendNumber(b, ref)
	b = appendNumber(b, seq)
	b = appendNumber(b, uint64(at.UnixMicro()))
	b = append(b, stream...)
	return append(b, '\n')
}

func appendLine(b []byte, id uint64, at time.Time, ref, seq uint64, source, process, text string) []byte {
	b = append(b, 'L', ' ')
	b = appendNumber(b, id)
	b = appendNumber(b, uint64(at.UnixMicro()))
	b = appendNumber(b, ref)
	b = appendNumber(b, seq)
	b = append(b, source...)
	b = append(b, ' ')
	b = append(b, process...)
	b = append(b, ' ')
	b = append(b, text...)
	return append(b, '\n')
}

func appendNumber(b []byte, n uint64) []byte {
	return append(strconv.AppendUint(b, n, 10), ' ')
}
