package host

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"manifold/agent/door"
)

func (t *tool) topCommand() *cobra.Command {
	var every time.Duration
	var rounds int
	cmd := &cobra.Command{
		Use: "top", Short: "Show what the dynos use, again and again; the busiest first", Args: cobra.NoArgs,
		Long: "Show what the dynos use, again and again; the busiest first. Into a pipe each\nround is written below the last. Ctrl-C ends it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond {
				return fmt.Errorf("--every must be at least 100ms")
			}
			return t.top(cmd.Context(), every, rounds)
		},
	}
	cmd.Flags().DurationVarP(&every, "every", "d", 2*time.Second, "time between two rounds")
	cmd.Flags().IntVarP(&rounds, "rounds", "n", 0, "end after so many (0: never)")
	return cmd
}

// top asks again and again. The share of CPU is of the time between two looks.
func (t *tool) top(ctx context.Context, every time.Duration, rounds int) error {
	type look struct {
		at  time.Time
		cpu time.Duration
	}
	before := map[string]look{} // by run
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; ; n++ {
		var list []door.Status
		if err := t.get(ctx, "/v1/ps", &list); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		now, seen := time.Now(), map[string]look{}
		for _, s := range list {
			if s.Use == nil {
				continue
			}
			if was, ok := before[s.Run]; ok && s.Use.CPU >= was.cpu {
				s.Use.CPUPercent = 100 * float64(s.Use.CPU-was.cpu) / float64(now.Sub(was.at))
			}
			seen[s.Run] = look{now, s.Use.CPU}
		}
		before = seen
		slices.SortStableFunc(list, func(a, b door.Status) int { return cmp.Compare(busy(b), busy(a)) })
		if err := t.drawTop(list, now); err != nil || n == rounds {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func busy(s door.Status) float64 {
	if s.Use == nil {
		return -1
	}
	return s.Use.CPUPercent
}

// drawTop writes a round; on a terminal over the last one (ECMA-48, ED, CUP).
func (t *tool) drawTop(list []door.Status, now time.Time) error {
	if t.json {
		return t.print(list)
	}
	var page bytes.Buffer
	if terminal(t.out) {
		page.WriteString("\x1b[H\x1b[2J")
	}
	var memory, swap int64
	running := 0
	for _, s := range list {
		if s.Use != nil {
			running++
			memory, swap = memory+s.Use.Memory, swap+s.Use.Swap
		}
	}
	fmt.Fprintf(&page, "%s  %d dynos, %d run, %s of memory, of it %s swap\n\n", clock(now), len(list), running, size(memory), size(swap))
	t.table(&page, list, now)
	_, err := page.WriteTo(t.out)
	return err
}
