package router

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"manifold/coordinator/router/http1"
)

const (
	serverName = "Manifold"
	via        = "1.1 manifold-router"
)

// requestID keeps an id the client gave if it is of Heroku's form: 20 to 200
// letters, digits and "+/=-". Else it draws one.
func requestID(r *http1.Request) string {
	for _, f := range r.Fields {
		if f.Kind == http1.RequestID && validRequestID(f.Value) {
			return f.Value
		}
	}
	return uuid.NewString()
}

func validRequestID(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '+' && c != '/' && c != '=' && c != '-' {
			return false
		}
	}
	return len(s) >= 20 && len(s) <= 200
}

// forwardedFor is the list the client sent with its address at the right: the
// only entry an app may believe.
func forwardedFor(r *http1.Request, client string) string {
	var b strings.Builder
	for _, f := range r.Fields {
		if f.Kind == http1.Forwarded && f.Value != "" {
			b.WriteString(f.Value)
			b.WriteString(", ")
		}
	}
	if b.Len() == 0 {
		return client
	}
	b.WriteString(client)
	return b.String()
}

// appendRequest writes the request's head as the dyno gets it. Single says
// that the connection is not kept for another request.
func (x *exchange) appendRequest(b []byte, single bool) []byte {
	r := x.req
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, r.Target...)
	b = append(b, " HTTP/1.1\r\n"...)
	vias := ""
	for _, f := range r.Fields {
		switch f.Kind {
		case http1.Forwarded, http1.Proto, http1.Port, http1.RequestID, http1.RequestStart,
			http1.ContentLength, http1.Expect:
			continue
		case http1.Via:
			vias += f.Value + ", "
			continue
		case http1.Other, http1.Host: // Host is kept even if Connection names it
		}
		if f.Kind != http1.Host && r.HopByHop(f) {
			continue
		}
		b = http1.AppendField(b, f.Name, f.Value)
	}
	b = http1.AppendField(b, "X-Request-Id", x.id)
	b = http1.AppendField(b, "X-Forwarded-For", x.fwd)
	b = http1.AppendField(b, "X-Forwarded-Proto", x.client.proto)
	b = http1.AppendField(b, "X-Forwarded-Port", x.client.port)
	b = append(b, "X-Request-Start: "...)
	b = strconv.AppendInt(b, x.start.UnixMilli(), 10)
	b = append(b, "\r\n"...)
	b = http1.AppendField(b, "Via", vias+via)
	switch {
	case r.Length == http1.Chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case r.Length > 0 || hasLength(r):
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, r.Length, 10)
		b = append(b, "\r\n"...)
	}
	switch {
	case r.Upgrade != "":
		b = append(b, "Connection: Upgrade\r\n"...)
		b = http1.AppendField(b, "Upgrade", r.Upgrade)
	case single:
		b = append(b, "Connection: close\r\n"...)
	}
	return append(b, '\r', '\n')
}

func hasLength(r *http1.Request) bool {
	for _, f := range r.Fields {
		if f.Kind == http1.ContentLength {
			return true
		}
	}
	return false
}

// framing is how the body goes to the client.
type framing int

const (
	none framing = iota
	asLength
	asChunks
	toClose // a client of HTTP/1.0: the end of the connection is the body's
)

// appendResponse writes the response's head as the client gets it.
func (x *exchange) appendResponse(b []byte, res *http1.Response, how framing) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(res.Status), 10)
	b = append(b, ' ')
	b = append(b, res.Reason...)
	b = append(b, '\r', '\n')
	server, date, vias := false, false, ""
	for _, f := range res.Fields {
		switch f.Kind {
		case http1.ContentLength:
			continue
		case http1.Via:
			vias += f.Value + ", "
			continue
		case http1.Server:
			server = true
		case http1.Date:
			date = true
		case http1.Trailer:
			if how != asChunks {
				continue
			}
		}
		if res.HopByHop(f) {
			continue
		}
		b = http1.AppendField(b, f.Name, f.Value)
	}
	final := res.Status >= 200
	if final && !server {
		b = http1.AppendField(b, "Server", serverName)
	}
	if final && !date {
		b = http1.AppendField(b, "Date", httpDate())
	}
	b = http1.AppendField(b, "Via", vias+via)
	switch {
	case how == asChunks:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case how == asLength:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, res.Length, 10)
		b = append(b, "\r\n"...)
	case res.Announced >= 0 && res.Status >= 200 && res.Status != 204:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, res.Announced, 10)
		b = append(b, "\r\n"...)
	}
	switch {
	case res.Status == 101:
		b = append(b, "Connection: Upgrade\r\n"...)
		b = http1.AppendField(b, "Upgrade", res.Upgrade)
	case !final:
	case x.last:
		b = append(b, "Connection: close\r\n"...)
	case x.req.Minor == 0: // it asked for it
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	return append(b, '\r', '\n')
}

// httpDate is the present time for a Date field, made once a second.
func httpDate() string {
	now := time.Now()
	if d := dateCache.Load(); d != nil && d.second == now.Unix() {
		return d.text
	}
	d := &dateText{now.Unix(), now.UTC().Format(http.TimeFormat)}
	dateCache.Store(d)
	return d.text
}

type dateText struct {
	second int64
	text   string
}

var dateCache atomic.Pointer[dateText]
