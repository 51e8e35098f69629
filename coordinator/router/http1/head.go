// Package http1 reads HTTP/1.1 messages the way a router between strangers
// must: strictly, within bounds, and so that no message can be read in two
// ways (RFC 9112). It is stricter than net/http where Heroku's router is:
// CRLF line ends only, one Host, no request with both Content-Length and
// Transfer-Encoding. It must never route, dial or keep time.
package http1

import (
	"bufio"
	"errors"
	"io"
	"strings"
)

// Field is one header field. Its name keeps the sender's letter case.
type Field struct {
	Name, Value string
	Kind        Kind
}

// Kind names the fields that somebody in between must understand.
type Kind uint8

// The kinds. A field of any other name is Other.
const (
	Other Kind = iota
	Connection
	ContentLength
	Date
	Expect
	Forwarded // X-Forwarded-For
	Host
	KeepAlive
	Port // X-Forwarded-Port
	Proto
	ProxyAuthorization
	ProxyConnection
	RequestID
	RequestStart
	Server
	SetCookie
	TE
	Trailer
	TransferEncoding
	Upgrade
	Via
)

var kinds = map[string]Kind{
	"connection": Connection, "content-length": ContentLength, "date": Date, "expect": Expect,
	"x-forwarded-for": Forwarded, "host": Host, "keep-alive": KeepAlive, "x-forwarded-port": Port,
	"x-forwarded-proto": Proto, "proxy-authorization": ProxyAuthorization, "proxy-connection": ProxyConnection,
	"x-request-id": RequestID, "x-request-start": RequestStart, "server": Server, "set-cookie": SetCookie,
	"te": TE, "trailer": Trailer, "transfer-encoding": TransferEncoding, "upgrade": Upgrade, "via": Via,
}

// longestKind is the length of the longest name in kinds.
const longestKind = len("proxy-authorization")

func kindOf(name string) Kind {
	if len(name) > longestKind {
		return Other
	}
	var low [longestKind]byte
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		low[i] = c
	}
	return kinds[string(low[:len(name)])]
}

// Bounds of a message's head. Bytes include the line's end.
type bounds struct {
	first  int // the request or status line
	line   int // a field
	name   int // a field's name
	fields int // their number
	total  int // all together
}

// errTooLarge and its like say which bound a head broke; the callers turn
// them into what their peer is told.
var (
	errTooLarge  = errors.New("oversized header")
	errFirstLine = errors.New("oversized first line")
	errLineEnd   = errors.New("line does not end in CRLF")
	errField     = errors.New("malformed header field")
)

// readHead reads up to and with the empty line and returns all before it, in
// lines that end in CRLF. io.EOF means that there was not one byte.
func readHead(br *bufio.Reader, buf []byte, b bounds) ([]byte, error) {
	buf = buf[:0]
	limit, lines := b.first, 0
	for {
		start := len(buf)
		for {
			part, err := br.ReadSlice('\n')
			if len(buf)-start+len(part) > limit || len(buf)+len(part) > b.total {
				if lines == 0 {
					return buf, errFirstLine
				}
				return buf, errTooLarge
			}
			buf = append(buf, part...)
			if err == nil {
				break
			}
			if err == io.EOF && len(buf) > 0 {
				err = io.ErrUnexpectedEOF
			}
			if err != bufio.ErrBufferFull {
				return buf, err
			}
		}
		line := buf[start:]
		if len(line) < 2 || line[len(line)-2] != '\r' {
			return buf, errLineEnd
		}
		if len(line) == 2 {
			return buf[:start], nil
		}
		if lines++; lines > b.fields+1 {
			return buf, errTooLarge
		}
		limit = b.line
	}
}

// parseFields adds the fields of head, which is lines that end in CRLF.
func parseFields(fields []Field, head string, b bounds) ([]Field, error) {
	for head != "" {
		line, rest, _ := strings.Cut(head, "\r\n")
		head = rest
		name, value, ok := strings.Cut(line, ":")
		if !ok || !Token(name) { // also a line that starts with a blank: folding is obsolete
			return fields, errField
		}
		if len(name) > b.name {
			return fields, errTooLarge
		}
		value = strings.Trim(value, " \t")
		for i := range len(value) {
			if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
				return fields, errField
			}
		}
		fields = append(fields, Field{name, value, kindOf(name)})
	}
	return fields, nil
}

var tokenChars = func() (set [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		set[c] = true
	}
	return set
}()

// Token says whether s is a token of RFC 9110, 5.6.2: not empty, and without
// blanks, quotes and control characters.
func Token(s string) bool {
	for i := range len(s) {
		if !tokenChars[s[i]] {
			return false
		}
	}
	return s != ""
}

// options reads a Connection field.
type options struct {
	close, keepAlive, upgrade bool
	names                     []string // other fields that end here
}

func (o *options) add(value string) {
	for option := range strings.SplitSeq(value, ",") {
		option = strings.Trim(option, " \t")
		switch {
		case option == "":
		case strings.EqualFold(option, "close"):
			o.close = true
		case strings.EqualFold(option, "keep-alive"):
			o.keepAlive = true
		case strings.EqualFold(option, "upgrade"):
			o.upgrade = true
		default:
			o.names = append(o.names, option)
		}
	}
}

func (o *options) named(name string) bool {
	for _, n := range o.names {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// parseLength reads a Content-Length: digits only, and far from overflow.
func parseLength(s string) (n int64, ok bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}
