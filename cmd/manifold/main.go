// Command manifold is the operator's tool: the one-machine mode (manifold run),
// the environment that aims the heroku CLI and git at this instance (manifold
// env), the stack images, and what the people of a host see and do there
// (manifold host). Whatever the heroku CLI can do is left to it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"manifold"
	"manifold/cmd/manifold/host"
	"manifold/cmd/manifold/jobs"
)

// version is set by the Makefile.
var version = "unversioned"

func main() {
	ctx, hurry := interrupts()
	cmd := command(manifold.FromEnv(), hurry)
	err := cmd.ExecuteContext(ctx)
	if exit := (*host.Exit)(nil); errors.As(err, &exit) {
		os.Exit(exit.Status)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "manifold:", err)
		os.Exit(1)
	}
}

// interrupts ends the context at the first SIGINT or SIGTERM and closes hurry
// at the second. Later ones are ignored: cleaning up is bounded anyway.
func interrupts() (context.Context, <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	hurry := make(chan struct{})
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		close(hurry)
	}()
	return ctx, hurry
}

func command(settings manifold.Settings, hurry <-chan struct{}) *cobra.Command {
	root := &cobra.Command{
		Use:           "manifold",
		Short:         "Your own hosts as one dyno manifold: git push, and the app runs",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(settings, hurry), envCommand(settings), proxyCommand(settings), auditCommand(settings), stackCommand(settings),
		host.Command(settings), jobs.Command(settings), versionCommand(), manCommand())
	return root
}

func versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]string{"version": version, "go": runtime.Version()})
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "manifold %s (%s)\n", version, runtime.Version())
			return err
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func jsonFlag(cmd *cobra.Command, v *bool) {
	cmd.Flags().BoolVar(v, "json", false, "print JSON")
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
