package host

import (
	"context"
	"fmt"
	"io"
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
to be replaced for its age.`,
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
	t.columns(w, rows, 2)
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
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
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
