package http1

import (
	"bufio"
	"errors"
	"io"
	"strconv"
)

// ErrChunk is a chunked body that breaks its own form.
var ErrChunk = errors.New("bad chunk")

// trailerBounds bound what may follow the last chunk.
var trailerBounds = bounds{first: 8192 + 2, line: 8192 + 2, name: 1000, fields: 100, total: 64 << 10}

const maxChunkLine = 4096

// Body reads a message's body from the connection and never past its end.
// Read returns io.EOF at the end and io.ErrUnexpectedEOF, ErrChunk or the
// connection's error before it.
type Body struct {
	br       *bufio.Reader
	length   int64 // as in the head
	left     int64 // of the body, or of the present chunk
	begun    bool  // a chunk was begun
	err      error
	trailers []Field
}

func newBody(br *bufio.Reader, length int64) *Body {
	b := &Body{br: br, length: length, left: max(length, 0)}
	if length == 0 {
		b.err = io.EOF
	}
	return b
}

// Done says whether the body was read to its end.
func (b *Body) Done() bool { return b.err == io.EOF }

// Trailers are the fields after a chunked body, once it is done.
func (b *Body) Trailers() []Field { return b.trailers }

// Buffered says how much can be read without waiting; it may be less than
// what there is.
func (b *Body) Buffered() int {
	if b.length == UntilClose {
		return b.br.Buffered()
	}
	return int(min(int64(b.br.Buffered()), b.left))
}

func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	if b.length == UntilClose {
		var n int
		n, b.err = b.br.Read(p)
		return n, b.err
	}
	if b.length == Chunked && b.left == 0 {
		if b.err = b.nextChunk(); b.err != nil {
			return 0, b.err
		}
	}
	n, err := b.br.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && b.left == 0 && b.length != Chunked {
		b.err = io.EOF
		return n, nil
	}
	b.err = err
	return n, err
}

// nextChunk reads the line end of the last chunk and the size of the next,
// and after the last one the trailers.
func (b *Body) nextChunk() error {
	if b.begun {
		var end [2]byte
		if _, err := io.ReadFull(b.br, end[:]); err != nil {
			return unexpected(err)
		}
		if end != [2]byte{'\r', '\n'} {
			return ErrChunk
		}
	}
	b.begun = true
	line, err := b.br.ReadSlice('\n')
	if err == bufio.ErrBufferFull || len(line) > maxChunkLine {
		return ErrChunk
	}
	if err != nil {
		return unexpected(err)
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return ErrChunk
	}
	size, ok := parseChunkLine(line[:len(line)-2])
	if !ok {
		return ErrChunk
	}
	if b.left = size; size > 0 {
		return nil
	}
	head, err := readHead(b.br, nil, trailerBounds)
	if err != nil {
		if errors.Is(err, errTooLarge) || errors.Is(err, errFirstLine) || errors.Is(err, errLineEnd) {
			return ErrChunk
		}
		return unexpected(err)
	}
	if b.trailers, err = parseFields(nil, string(head), trailerBounds); err != nil {
		return ErrChunk
	}
	return io.EOF
}

// parseChunkLine reads "1a;extension". Extensions are for the next hop only,
// and dropped.
func parseChunkLine(line []byte) (n int64, ok bool) {
	digits := 0
	for i, c := range line {
		switch {
		case '0' <= c && c <= '9':
			n = n<<4 | int64(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			n = n<<4 | int64(c|0x20-'a'+10)
		case c == ';' || c == ' ' || c == '\t':
			return n, digits > 0 && extension(line[i:])
		default:
			return 0, false
		}
		if digits++; digits > 15 {
			return 0, false
		}
	}
	return n, digits > 0
}

// extension accepts what may follow a chunk's size: blanks, then nothing or
// text after a semicolon, without control characters.
func extension(b []byte) bool {
	semicolon := false
	for _, c := range b {
		switch {
		case c == ';':
			semicolon = true
		case c < ' ' && c != '\t' || c == 0x7f:
			return false
		case c != ' ' && c != '\t' && !semicolon:
			return false
		}
	}
	return true
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// AppendChunk adds the line in front of a chunk of n bytes, n > 0. After the
// bytes comes a CRLF.
func AppendChunk(b []byte, n int) []byte {
	return append(strconv.AppendUint(b, uint64(n), 16), '\r', '\n')
}

// AppendEnd adds the last chunk and the trailers but for those that would
// change the message's framing or its routing (RFC 9110, 6.5.1).
func AppendEnd(b []byte, trailers []Field) []byte {
	b = append(b, "0\r\n"...)
	for _, f := range trailers {
		if f.Kind == Other {
			b = AppendField(b, f.Name, f.Value)
		}
	}
	return append(b, '\r', '\n')
}

// AppendField adds one header field's line.
func AppendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, '\r', '\n')
}
