package http1

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
)

// The bounds Heroku documents for responses; total is ours, for memory.
var responseBounds = bounds{first: 8192 + 2, line: 512<<10 + 2, name: 512 << 10, fields: 1000, total: 1 << 20}

const maxCookie = 8192

// UntilClose is the length of a body that ends with its connection.
const UntilClose int64 = -2

// Response is the head of a response.
type Response struct {
	Status int
	Reason string
	Minor  int
	Fields []Field
	Length int64 // of the body, Chunked or UntilClose; 0 for those that have none
	// Announced is the Content-Length field of a response without a body
	// (to HEAD, or 304), -1 if it has none.
	Announced int64
	Last      bool   // the connection cannot be used again
	Upgrade   string // the protocol of a 101
	options   options
	buf       []byte
}

// ErrMalformed is a response that cannot be understood (H17).
var ErrMalformed = errors.New("poorly formatted response")

// Restriction is a response that can be understood but breaks a bound (H25).
// Its text is the restriction's name in Heroku's words.
type Restriction string

func (r Restriction) Error() string { return string(r) }

// HopByHop is as Request.HopByHop.
func (r *Response) HopByHop(f Field) bool { return f.hop() || r.options.named(f.Name) }

// Read reads the head of the response to a request with this method. It
// returns ErrMalformed, a Restriction, io.EOF when the connection ended
// before the first byte, or the connection's error.
func (r *Response) Read(br *bufio.Reader, method string) error {
	*r = Response{Fields: r.Fields[:0], buf: r.buf, Announced: -1, options: options{names: r.options.names[:0]}}
	buf, err := readHead(br, r.buf, responseBounds)
	if r.buf = buf; cap(buf) > 16<<10 {
		r.buf = nil
	}
	switch {
	case errors.Is(err, errFirstLine):
		return Restriction("oversized status line")
	case errors.Is(err, errTooLarge):
		return Restriction("oversized header")
	case errors.Is(err, errLineEnd):
		return ErrMalformed
	case err != nil:
		return err
	}
	line, fields, _ := strings.Cut(string(buf), "\r\n")
	if err := r.parseLine(line); err != nil {
		return err
	}
	if r.Fields, err = parseFields(r.Fields, fields, responseBounds); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return r.understand(method)
}

// parseLine reads "HTTP/1.1 200 OK". The blank after the code is required,
// the reason may be empty.
func (r *Response) parseLine(line string) error {
	switch {
	case strings.HasPrefix(line, "HTTP/1.1 "):
		r.Minor = 1
	case strings.HasPrefix(line, "HTTP/1.0 "):
	default:
		return ErrMalformed
	}
	rest := line[len("HTTP/1.1 "):]
	if len(rest) < 4 || rest[3] != ' ' {
		return ErrMalformed
	}
	for _, c := range []byte(rest[:3]) {
		if c < '0' || c > '9' {
			return ErrMalformed
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	r.Reason = rest[4:]
	for i := range len(r.Reason) {
		if c := r.Reason[i]; c < ' ' && c != '\t' || c == 0x7f {
			return ErrMalformed
		}
	}
	if r.Status < 100 {
		return ErrMalformed
	}
	return nil
}

func (r *Response) understand(method string) error {
	length, chunked := int64(-1), false
	for _, f := range r.Fields {
		switch f.Kind {
		case ContentLength:
			n, ok := parseLength(f.Value)
			if !ok || length >= 0 && n != length {
				return Restriction("invalid content length")
			}
			length = n
		case TransferEncoding:
			if chunked || !strings.EqualFold(f.Value, "chunked") {
				return ErrMalformed
			}
			chunked = true
		case SetCookie:
			if len(f.Name)+2+len(f.Value) > maxCookie {
				return Restriction("oversized cookie")
			}
		case Connection:
			r.options.add(f.Value)
		case Upgrade:
			r.Upgrade = f.Value
		}
	}
	if chunked && length >= 0 {
		return Restriction("invalid content length")
	}
	r.Last = r.options.close || r.Minor == 0 && !r.options.keepAlive
	switch {
	case method == "HEAD" || r.Status < 200 || r.Status == 204 || r.Status == 304:
		r.Announced = length
	case chunked:
		r.Length = Chunked
	case length >= 0:
		r.Length = length
	default:
		r.Length, r.Last = UntilClose, true
	}
	return nil
}

// Body returns the response's body.
func (r *Response) Body(br *bufio.Reader) *Body { return newBody(br, r.Length) }
