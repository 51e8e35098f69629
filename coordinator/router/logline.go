package router

import (
	"strconv"
	"time"
)

// What a stranger chose may take this much of a log line, so that no line is
// cut: its second part would be his to write.
const (
	maxLoggedPath = 6000
	maxLoggedFwd  = 1500
)

// log sends the request's line to the app's log, in Heroku's form:
//
//	at=info method=GET path="/" host=h request_id=… fwd="1.2.3.4" dyno=web.1 connect=1ms service=18ms status=200 bytes=13 protocol=http
//	at=error code=H12 desc="Request timeout" method=GET …
//
// A request of no app has no log to go to.
func (s *server) log(x *exchange, f *failure) {
	if x.route == nil {
		return
	}
	now := time.Now()
	s.ship.add(x.route.App, now, string(x.appendLine(make([]byte, 0, 384), f, now)))
}

func (x *exchange) appendLine(b []byte, f *failure, now time.Time) []byte {
	if f == nil {
		b = append(b, "at=info"...)
	} else {
		if f.sock != "" {
			b = append(b, "sock="+f.sock+" "...)
		}
		b = append(b, "at="+f.level+" code="+f.code+` desc="`+f.desc+`"`...)
		if f.cause != "" {
			b = append(b, ` cause="`+f.cause+`"`...)
		}
	}
	b = append(append(b, " method="...), x.req.Method...)
	b = append(appendSafe(append(b, ` path="`...), x.req.Target, maxLoggedPath), '"')
	b = append(append(b, " host="...), x.req.Host...) // http1 let nothing through that needs quotes
	b = append(append(b, " request_id="...), x.id...)
	b = append(appendSafe(append(b, ` fwd="`...), x.fwd, maxLoggedFwd), '"')
	b = append(append(b, " dyno="...), x.dynoName...)
	b = append(b, " connect="...)
	if x.dynoName != "" {
		b = appendMS(b, x.connect)
	}
	b = append(b, " service="...)
	if !x.service.IsZero() {
		b = appendMS(b, now.Sub(x.service))
	}
	b = strconv.AppendInt(append(b, " status="...), int64(x.status), 10)
	b = append(b, " bytes="...)
	if !x.service.IsZero() {
		b = strconv.AppendInt(b, x.bytes, 10)
	}
	return append(append(b, " protocol="...), x.client.proto...)
}

func appendMS(b []byte, d time.Duration) []byte {
	return append(strconv.AppendInt(b, d.Milliseconds(), 10), "ms"...)
}

// appendSafe adds s so that it can end neither its quotes nor its line: what
// is not printable ASCII, and quotes and backslashes, become %XX. Past limit
// bytes it ends in "...".
func appendSafe(b []byte, s string, limit int) []byte {
	const hex = "0123456789ABCDEF"
	end := len(b) + limit
	for i := range len(s) {
		if len(b) >= end-3 {
			return append(b, "..."...)
		}
		if c := s[i]; c >= ' ' && c < 0x7f && c != '"' && c != '\\' {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return b
}
