package host

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// terminal says whether people look at w, and not a pipe or a file.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width is how many columns there are to write in; 0 where that does not matter.
func (t *tool) width() int {
	if !terminal(t.out) {
		return 0
	}
	width, _, err := term.GetSize(int(t.out.(*os.File).Fd()))
	if err != nil {
		return 0
	}
	return width
}

// The few colours there are (ECMA-48, SGR).
const (
	bold  = "1"
	red   = "31"
	green = "32"
	amber = "33"
	faint = "2"
)

// paint colours text, on a terminal only and where NO_COLOR is not set.
func (t *tool) paint(colour, text string) string {
	if !terminal(t.out) || os.Getenv("NO_COLOR") != "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// stateColour is what a state looks like.
func stateColour(state string) string {
	switch state {
	case "up", "complete":
		return green
	case "crashed", "overdue", "ailing":
		return red
	}
	return amber
}

// tame makes a stranger's text harmless for a terminal: what a dyno logs must
// not move the cursor or change the title of whoever looks.
func tame(s string) string {
	clean := func(r rune) rune {
		if r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError) {
			return '·'
		}
		return r
	}
	return strings.Map(clean, s)
}

// bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%dG", n>>30)
	case n >= 1<<30:
		return fmt.Sprintf("%.1fG", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%dM", n>>20)
	case n > 0:
		return fmt.Sprintf("%dk", n>>10)
	}
	return "0"
}

// age is how long ago something was, or how far it is, in at most two units.
func age(d time.Duration) string {
	d = d.Abs()
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

func clock(at time.Time) string { return at.Local().Format("2006-01-02 15:04:05") }
