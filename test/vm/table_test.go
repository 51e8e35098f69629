package vm

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// table is what a person reads at the end: where the time went, what was done
// to the units and what came of it, how far systemd holds them exposed.
type table struct {
	parts     []string // name, seconds
	scenarios []string // what was done, result, seconds in the guest, its last figure
	security  []string // unit, score, the most that was agreed
}

// timer returns a function that notes how long the part took that just ended.
func (tb *table) timer() func(part string) {
	last := time.Now()
	return func(part string) {
		tb.parts = append(tb.parts, fmt.Sprintf("%s\t%.1f", part, time.Since(last).Seconds()))
		last = time.Now()
	}
}

// take looks through what a test said for the lines that are for the table
// (they are marked in guest/platform_test.go).
func (tb *table) take(action string, seconds float64, output string) {
	does, remark := "", ""
	for line := range strings.Lines(output) {
		for mark, to := range map[string]func(string){
			"scenario: ": func(s string) { does = s },
			"figure: ":   func(s string) { remark = s },
			"part: ":     func(s string) { tb.parts = append(tb.parts, s) },
			"security: ": func(s string) { tb.security = append(tb.security, s) },
		} {
			if _, text, ok := strings.Cut(line, mark); ok {
				to(strings.TrimSpace(text))
			}
		}
	}
	if does != "" {
		tb.scenarios = append(tb.scenarios, fmt.Sprintf("%s\t%s\t%.1f\t%s", does, action, seconds, remark))
	}
}

func (tb *table) print(to io.Writer) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	defer w.Flush()
	for _, section := range []struct {
		title string
		rows  []string
	}{
		{"part of the rig\tseconds", tb.parts},
		{"done to the units, under systemd and cgroup v2\tresult\tseconds\t", tb.scenarios},
		{"systemd-analyze security\texposure, of 10\t", tb.security},
	} {
		fmt.Fprintf(w, "%s\n", strings.ToUpper(section.title))
		for _, row := range section.rows {
			fmt.Fprintln(w, row)
		}
		fmt.Fprintln(w)
	}
}
