// Command manifold-coordinator is the control plane of Manifold. Without a
// subcommand it serves: Platform API, git, fleet, scheduler. Its subcommands
// are the router, git's hook, and what an operator needs on its machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"manifold"
	"manifold/cmd/journal"
	"manifold/coordinator"
	"manifold/coordinator/git"
	"manifold/coordinator/router"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errShown) {
			fmt.Fprintln(os.Stderr, "manifold-coordinator:", err)
		}
		os.Exit(1)
	}
}

// errShown ends us with status 1 when the person has read why already.
var errShown = errors.New("already shown")

func command() *cobra.Command {
	root := &cobra.Command{
		Use: "manifold-coordinator", Short: "Serve the Platform API, git and the fleet",
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := coordinator.FromEnv()
			if err != nil {
				return err
			}
			var flush func()
			cfg.Log, flush = journal.Logger()
			defer flush()
			return coordinator.Run(cmd.Context(), cfg)
		},
	}
	root.AddCommand(routerCommand(), preReceiveCommand(), joinTokenCommand(), hostsCommand(), userCommand())
	return root
}

func routerCommand() *cobra.Command {
	return &cobra.Command{
		Use: "router", Short: "Serve apps: take requests and give them to web dynos", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings := manifold.FromEnv()
			log, flush := journal.Logger()
			defer flush()
			return router.Run(cmd.Context(), router.Config{
				Settings: settings, TokenFile: coordinator.JoinTokenFile(settings), Log: log,
			})
		},
	}
}

func preReceiveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "pre-receive", Short: "Git's hook: build what is pushed", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := git.Hook(cmd.Context(), os.Stdin, os.Stderr); err != nil {
				return errors.Join(errShown, err)
			}
			return nil
		},
	}
}

func joinTokenCommand() *cobra.Command {
	life := 24 * time.Hour
	c := &cobra.Command{
		Use: "join-token", Short: "Print a token with which agents and routers join", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := coordinator.NewJoinToken(cmd.Context(), manifold.FromEnv(), life)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		},
	}
	c.Flags().DurationVar(&life, "life", life, "how long the token is good")
	return c
}
