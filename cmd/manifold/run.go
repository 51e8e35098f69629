package main

import (
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"manifold"
	"manifold/cmd/manifold/onemachine"
)

func runCommand(settings manifold.Settings, hurry <-chan struct{}) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the whole platform on this machine, in the foreground",
		Long: `Run coordinator, router and agent on this machine, each a process of its own,
deploy the sample app the first time, and stay in the foreground. Ctrl-C stops
every dyno and removes all that is ours from the machine but $MANIFOLD_HOME: apps,
releases and config are there again the next time.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			// With manifold run | tee, Ctrl-C ends the reader of what we print as
			// well, and what is said of the stop must not end us before it is done.
			signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
			return onemachine.Run(cmd.Context(), onemachine.Config{
				Settings: settings,
				Programs: filepath.Dir(self),
				Out:      cmd.OutOrStdout(),
				Hurry:    hurry,
			})
		},
	}
}
