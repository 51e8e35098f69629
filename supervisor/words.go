package supervisor

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// seconds writes a duration as the platform's messages do.
func seconds(d time.Duration) string {
	if d%time.Second == 0 {
		return fmt.Sprintf("%d seconds", d/time.Second)
	}
	return d.String()
}

// shownCommand is a command as the log shows it: with $PORT put in, which
// people look for. Config vars are not expanded, since they may be secret.
func shownCommand(command string, port int) string {
	number := strconv.Itoa(port)
	command = strings.ReplaceAll(command, "${PORT}", number)
	var out strings.Builder
	for {
		before, after, found := strings.Cut(command, "$PORT")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		if after != "" && inName(after[0]) {
			out.WriteString("$PORT") // of another variable's name
		} else {
			out.WriteString(number)
		}
		command = after
	}
}

func inName(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

// clip keeps text within n bytes, so that a line said is one line.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	n -= len("…")
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "…"
}
