package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"manifold"
	"manifold/coordinator"
)

func hostsCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "hosts", Short: "List the hosts that joined, whether they are there, and what they run", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hosts, err := coordinator.Hosts(cmd.Context(), manifold.FromEnv())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), hosts)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tSTATE\tDYNOS\tUP\tJOINED\tID")
			for _, h := range hosts {
				fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\n", h.Name, stateOf(h), h.Dynos, h.Up, h.JoinedAt.Local().Format(time.DateOnly), h.ID)
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// stateOf says in few words whether a host can be counted on.
func stateOf(h coordinator.KnownHost) string {
	switch {
	case !h.Connected && h.Seen.IsZero():
		return "away"
	case !h.Connected:
		return "away for " + time.Since(h.Seen).Round(time.Second).String()
	case h.Draining:
		return "draining"
	}
	return "connected"
}
