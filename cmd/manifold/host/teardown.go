package host

import (
	"fmt"

	"github.com/spf13/cobra"
)

// teardownCommand is the end of a host's service.
func (t *tool) teardownCommand() *cobra.Command {
	return &cobra.Command{
		Use: "teardown", Short: "Stop every dyno, remove all that is Manifold's from the kernel, end the agent", Args: cobra.NoArgs,
		Long: `Stop every dyno on this host, gently for ten seconds, and remove all that is
Manifold's from the kernel: processes, cgroups, links, firewall, mounts. Then
the agent ends. What is desired is kept: the next agent brings it back.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var reply struct {
				Status string `json:"status"`
			}
			if err := t.post(cmd.Context(), "/v1/teardown", &reply); err != nil {
				return err
			}
			if t.json {
				return t.print(reply)
			}
			_, err := fmt.Fprintln(t.out, reply.Status)
			return err
		},
	}
}
