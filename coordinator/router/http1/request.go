package http1

import (
	"bufio"
	"errors"
	"strings"
)

// The bounds Heroku documents for requests; total is ours, for memory.
var requestBounds = bounds{first: 8192 + 2, line: 8192 + 2, name: 1000, fields: 1000, total: 256 << 10}

const maxMethod = 127

// Chunked is the length of a body that says itself where it ends.
const Chunked int64 = -1

// Request is the head of a request. Its strings do not change when the next
// one is read into it.
type Request struct {
	Method   string
	Target   string // origin form ("/path?query"), or "*" for OPTIONS
	Minor    int    // of HTTP/1.x: 0 or 1
	Host     string
	Fields   []Field
	Length   int64 // of the body, or Chunked
	Last     bool  // the client wants no further request on this connection
	Upgrade  string
	Continue bool // it waits for 100 Continue before it sends the body
	Expects  bool // it expects something else, which is not supported (417)
	options  options
	buf      []byte
}

// Refusal says why a request is answered by Status instead of being routed.
type Refusal struct {
	Status int
	Why    string
}

func (r *Refusal) Error() string { return r.Why }

func refuse(status int, why string) error { return &Refusal{Status: status, Why: why} }

// HopByHop says whether a field is between the client and us only: because
// of what it is, or because Connection names it (RFC 9110, 7.6.1).
func (r *Request) HopByHop(f Field) bool { return f.hop() || r.options.named(f.Name) }

func (f Field) hop() bool {
	switch f.Kind {
	case Connection, KeepAlive, ProxyConnection, ProxyAuthorization, TE, TransferEncoding, Upgrade:
		return true
	}
	return false
}

// Read reads the next request's head. It returns a *Refusal for one that
// must not be routed, io.EOF when the client left before it began one, or the
// connection's error.
func (r *Request) Read(br *bufio.Reader) error {
	*r = Request{Fields: r.Fields[:0], buf: r.buf, options: options{names: r.options.names[:0]}}
	if b, err := br.Peek(2); err == nil && b[0] == '\r' && b[1] == '\n' {
		_, _ = br.Discard(2) // an empty line too much after the last body (RFC 9112, 2.2)
	}
	buf, err := readHead(br, r.buf, requestBounds)
	if r.buf = buf; cap(buf) > 16<<10 {
		r.buf = nil
	}
	switch {
	case errors.Is(err, errFirstLine):
		return refuse(400, "The request line is too long.")
	case errors.Is(err, errTooLarge):
		return refuse(400, "The header is too large.")
	case errors.Is(err, errLineEnd):
		return refuse(400, "A line of the request does not end in CRLF.")
	case err != nil:
		return err
	}
	line, fields, _ := strings.Cut(string(buf), "\r\n")
	if err := r.parseLine(line); err != nil {
		return err
	}
	if r.Fields, err = parseFields(r.Fields, fields, requestBounds); err != nil {
		return refuse(400, "A header field is malformed.")
	}
	return r.understand()
}

// parseLine reads "GET /path HTTP/1.1", with single blanks.
func (r *Request) parseLine(line string) error {
	method, rest, ok1 := strings.Cut(line, " ")
	target, version, ok2 := strings.Cut(rest, " ")
	if !ok1 || !ok2 || !Token(method) || len(method) > maxMethod {
		return refuse(400, "The request line is malformed.")
	}
	switch version {
	case "HTTP/1.1":
		r.Minor = 1
	case "HTTP/1.0":
	default:
		if strings.HasPrefix(version, "HTTP/") && !strings.Contains(version, " ") {
			return refuse(505, "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
		}
		return refuse(400, "The request line is malformed.")
	}
	if method == "CONNECT" {
		return refuse(405, "CONNECT is not supported.")
	}
	if target == "" {
		return refuse(400, "The request line is malformed.")
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c == 0x7f {
			return refuse(400, "The request target holds a control character.")
		}
	}
	r.Method, r.Target = method, target
	return nil
}

// understand takes from the fields what is meant for us.
func (r *Request) understand() error {
	hosts, lengths, chunked := 0, 0, false
	for _, f := range r.Fields {
		switch f.Kind {
		case Host:
			hosts++
			r.Host = f.Value
		case ContentLength:
			n, ok := parseLength(f.Value)
			if !ok || lengths > 0 && n != r.Length {
				return refuse(400, "The Content-Length is invalid.")
			}
			lengths++
			r.Length = n
		case TransferEncoding:
			if chunked || r.Minor == 0 {
				return refuse(400, "The Transfer-Encoding is invalid.")
			}
			if !strings.EqualFold(f.Value, "chunked") {
				return refuse(501, "This Transfer-Encoding is not supported.")
			}
			chunked = true
		case Connection:
			r.options.add(f.Value)
		case Expect:
			r.Expects = r.Expects || !strings.EqualFold(f.Value, "100-continue")
			r.Continue = r.Minor == 1
		case Upgrade:
			r.Upgrade = f.Value
		}
	}
	if hosts != 1 || !validHost(r.Host) {
		return refuse(400, "The request must have one valid Host.")
	}
	if chunked {
		if lengths > 0 {
			return refuse(400, "The request has a Content-Length and a Transfer-Encoding.")
		}
		r.Length = Chunked
	}
	if !r.options.upgrade || r.Length != 0 || r.Minor == 0 {
		r.Upgrade = "" // with a body it would not be clear where the pipe begins
	}
	r.Last = r.options.close || r.Minor == 0 && !r.options.keepAlive
	return r.originForm()
}

// originForm takes the origin out of an absolute target: a proxy's form, that
// a server must understand (RFC 9112, 3.2.2). It must not name another host
// than Host does.
func (r *Request) originForm() error {
	switch {
	case r.Target[0] == '/' || r.Target == "*" && r.Method == "OPTIONS":
		return nil
	case len(r.Target) < 8 || !strings.EqualFold(r.Target[:7], "http://"):
		return refuse(400, "The request target must be a path.")
	}
	authority := r.Target[7:]
	path := ""
	if i := strings.IndexAny(authority, "/?#"); i >= 0 {
		authority, path = authority[:i], authority[i:]
	}
	if !strings.EqualFold(authority, r.Host) {
		return refuse(400, "The request target names another host than Host.")
	}
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	r.Target = path
	return nil
}

// validHost accepts what can be a host and a port: letters, digits and
// ".-_:[]". All else, such as quotes, would only serve to trick a log reader.
func validHost(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(".-_:[]", rune(c)) {
			return false
		}
	}
	return s != "" && len(s) <= 300
}

// Body returns the request's body.
func (r *Request) Body(br *bufio.Reader) *Body { return newBody(br, r.Length) }
