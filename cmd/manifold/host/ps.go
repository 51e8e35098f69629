package host

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"manifold/agent/door"
)

func (t *tool) psCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ps", Short: "List the dynos on this host", Args: cobra.NoArgs,
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
	w := tabwriter.NewWriter(t.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "APP\tDYNO\tSTATE\tFOR\tCRASHES\tRELEASE\tSIZE")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\tv%d\t%s\n", s.AppName, s.Name, s.Step, time.Since(s.Since).Round(time.Second), s.Crashes, s.Release, s.Size)
	}
	return w.Flush()
}
