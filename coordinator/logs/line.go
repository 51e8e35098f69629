package logs

import (
	"iter"
	"strings"
	"time"
	"unicode/utf8"

	"manifold"
)

// Line is one line as it is shown.
type Line struct {
	ID      uint64 // grows by one with each line of the app
	Time    time.Time
	Source  string // manifold.SourceApp or manifold.SourceHeroku
	Process string // "web.1", "router"
	Text    string // valid UTF-8 without line ends
}

// timeFormat is Logplex's: microseconds, and UTC spelled as an offset.
const timeFormat = "2006-01-02T15:04:05.000000+00:00"

// AppendTo adds the line to b in the form every user knows:
//
//	2012-10-11T03:47:20.123456+00:00 app[web.1]: text
func (l Line) AppendTo(b []byte) []byte {
	b = l.Time.UTC().AppendFormat(b, timeFormat)
	b = append(b, ' ')
	b = append(b, l.Source...)
	b = append(b, '[')
	b = append(b, l.Process...)
	b = append(b, "]: "...)
	return append(b, l.Text...)
}

// String is AppendTo's form.
func (l Line) String() string { return string(l.AppendTo(nil)) }

// Filter chooses lines. An empty field matches all. Dyno is a dyno ("web.1"),
// a process type ("web" matches "web.1", "web.2" …) or another process
// ("router").
type Filter struct{ Source, Dyno string }

func (f Filter) match(source, process []byte) bool {
	if f.Source != "" && f.Source != string(source) {
		return false
	}
	n := len(f.Dyno)
	return n == 0 || len(process) >= n && string(process[:n]) == f.Dyno &&
		(len(process) == n || process[n] == '.')
}

// clean makes text safe to frame by lines, wherever it goes next: no line end
// is left in it, nor a control character but tab and escape, which colours
// output. What it takes out becomes U+FFFD, or a blank where it parted words.
func clean(text string) string {
	text = strings.TrimRight(text, "\r\n")
	if plain(text) {
		return text
	}
	var b strings.Builder
	for _, r := range text { // an invalid byte comes out as U+FFFD
		switch {
		case r == '\n' || r == '\r' || r == '\v' || r == '\f':
			r = ' '
		case r < ' ' && r != '\t' && r != '\x1b' || r >= 0x7f && r < 0xa0:
			r = utf8.RuneError
		}
		b.WriteRune(r)
	}
	return b.String()
}

func plain(text string) bool {
	for i := range len(text) {
		if c := text[i]; (c < ' ' && c != '\t' && c != '\x1b') || c >= 0x7f {
			return false
		}
	}
	return true
}

// pieces cleans text and cuts it into pieces of at most manifold.MaxLogLine
// bytes, without parting a character. Of an empty text there is one.
func pieces(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		rest := clean(text)
		for len(rest) > manifold.MaxLogLine {
			n := manifold.MaxLogLine
			for !utf8.RuneStart(rest[n]) { // ends: clean made it valid
				n--
			}
			if !yield(rest[:n]) {
				return
			}
			rest = rest[n:]
		}
		yield(rest)
	}
}

// word makes a stranger's process or source name fit between the blanks of a
// record and the brackets of a line.
func word(s string) string {
	ok := s != "" && len(s) <= 160
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		ok = c > ' ' && c < 0x7f && c != '[' && c != ']'
	}
	if ok {
		return s
	}
	return "unknown"
}
