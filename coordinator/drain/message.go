package drain

import (
	"strconv"

	"manifold"
	"manifold/coordinator/logs"
)

// Priorities as Logplex gives them: facility times eight plus severity
// (RFC 5424, 6.2.1).
const (
	priorityApp      = "<190>1 " // local7.info
	priorityRouter   = "<158>1 " // local3.info
	priorityPlatform = "<134>1 " // local0.info
	priorityLogplex  = "<172>1 " // local5.warning
)

func priority(l logs.Line) string {
	switch {
	case l.Process == "router":
		return priorityRouter
	case l.Process == "logplex":
		return priorityLogplex
	case l.Source == manifold.SourceApp && l.Process != "api":
		return priorityApp
	}
	return priorityPlatform
}

const timeForm = "2006-01-02T15:04:05.000000+00:00"

// appendMessage adds a line as a syslog message (RFC 5424, 6): priority, time,
// host, source, process, then what stands between the process and the text.
// The hub's words for source and process hold nothing that could end a field.
func appendMessage(b []byte, l logs.Line, host, between string) []byte {
	b = append(b, priority(l)...)
	b = l.Time.UTC().AppendFormat(b, timeForm)
	b = append(b, ' ')
	b = append(b, host...)
	b = append(b, ' ')
	b = append(b, l.Source...)
	b = append(b, ' ')
	b = append(b, l.Process[:min(len(l.Process), 128)]...)
	b = append(b, between...)
	return append(b, l.Text...)
}

// frames makes what is sent of lines: each message behind its length in bytes
// and a blank (RFC 6587, 3.4.1). It is reused.
type frames struct{ all, one []byte }

func (f *frames) make(lines []logs.Line, host, between, end string) []byte {
	f.all = f.all[:0]
	for _, l := range lines {
		f.one = append(appendMessage(f.one[:0], l, host, between), end...)
		f.all = strconv.AppendInt(f.all, int64(len(f.one)), 10)
		f.all = append(f.all, ' ')
		f.all = append(f.all, f.one...)
	}
	return f.all
}
