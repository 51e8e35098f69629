// Command manifold-agent is the host daemon: it runs this host's dynos as the
// coordinator desires. Its settings are environment variables, listed in the
// README; it takes no arguments. SIGTERM ends it and leaves the dynos running;
// `manifold host teardown` stops them as well.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"manifold/agent"
	"manifold/cmd/journal"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "manifold-agent:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) > 1 {
		return errors.New("it takes no arguments: its settings are environment variables, see the README")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := agent.FromEnv()
	if err != nil {
		return err
	}
	var flush func()
	cfg.Log, flush = journal.Logger()
	defer flush()
	return agent.Run(ctx, cfg)
}
