package host

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"manifold/agent/door"
)

func (t *tool) psCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ps", Short: "List the dynos on this host and what they use", Args: cobra.NoArgs,
		Long: `List the dynos on this host and what they use.

MEM is what counts against the size's quota (RAM without the page cache, and
swap), CPU% is of one core. PSI are the shares of the last ten seconds in which
something in the dyno waited for cpu, memory or disk. CYCLE is when the dyno is
to be replaced for its age. A terminal that is too narrow for all columns is
shown those that matter most; a pipe, and --json, get all.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return t.ps(cmd.Context()) },
	}
}

func (t *tool) ps(ctx context.Context) error {
	var list []door.Status
	if err := t.get(ctx, "/v1/ps", &list); err != nil {
		return err
	}
	if t.json {
		return t.print(list)
	}
	t.table(t.out, list, time.Now())
	return nil
}

// table writes the dynos in columns.
func (t *tool) table(w io.Writer, list []door.Status, now time.Time) {
	rows := [][]string{{"APP", "DYNO", "STATE", "FOR", "RESTARTS", "CRASHES", "MEM", "SWAP", "CPU%", "PROCS", "PSI C/M/IO", "RELEASE", "SIZE", "CYCLE", "NEXT TRY"}}
	for _, s := range list {
		mem, swap, cpu, procs, psi := "-", "-", "-", "-", "-"
		if u := s.Use; u != nil {
			mem, swap, cpu, procs = size(u.Memory), size(u.Swap), fmt.Sprintf("%.0f", u.CPUPercent), fmt.Sprint(u.Processes)
			psi = fmt.Sprintf("%.0f/%.0f/%.0f", u.CPUPressure, u.MemoryPressure, u.IOPressure)
		}
		state := string(s.Step)
		if !s.FrozenUntil.IsZero() {
			state = "frozen"
		}
		rows = append(rows, []string{
			s.AppName, s.Name, state, age(now.Sub(s.Since)), fmt.Sprint(s.Restarts), fmt.Sprint(s.Crashes), mem, swap, cpu, procs, psi,
			fmt.Sprintf("v%d", s.Release), s.Size, until(s.CycleAt, now), until(s.NextTry, now),
		})
	}
	t.columns(w, fit(rows, t.width(), spare), 2)
}

// spare are the columns a narrow terminal can do without, the first first.
var spare = []string{"SIZE", "PROCS", "RELEASE", "RESTARTS", "SWAP", "CYCLE", "PSI C/M/IO", "CPU%", "CRASHES"}

// fit leaves columns out until the rows are no wider than width; 0 is any.
func fit(rows [][]string, width int, spare []string) [][]string {
	for _, name := range spare {
		if width == 0 || wide(rows) <= width {
			break
		}
		i := slices.Index(rows[0], name)
		for n, row := range rows {
			rows[n] = slices.Delete(row, i, i+1)
		}
	}
	return rows
}

// widths are the columns' own.
func widths(rows [][]string) []int {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	return width
}

// wide is the longest a row can be.
func wide(rows [][]string) (all int) {
	for _, w := range widths(rows) {
		all += w + 2
	}
	return all - 2
}

// until is how far a moment is; "-" where there is none.
func until(at, now time.Time) string {
	switch {
	case at.IsZero():
		return "-"
	case at.Before(now):
		return "now"
	}
	return age(at.Sub(now))
}

// columns aligns rows, the first of them bold; the column of states has its
// colours.
func (t *tool) columns(w io.Writer, rows [][]string, states int) {
	width := widths(rows)
	for n, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-len([]rune(cell))+2)
			switch {
			case n == 0:
				cell = t.paint(bold, cell)
			case i == states:
				cell = t.paint(stateColour(cell), cell)
			}
			line.WriteString(cell + pad)
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}
