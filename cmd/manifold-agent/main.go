// Command manifold-agent is the host daemon: it runs this host's dynos as the
// coordinator desires. Its settings are environment variables, listed in the
// README; it takes no arguments. SIGTERM ends it and leaves the dynos
// running; to stop them as well, POST /v1/teardown to its socket.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"

	"manifold/agent"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "manifold-agent:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) > 1 {
		return fmt.Errorf("it takes no arguments: its settings are environment variables, see the README")
	}
	cfg, err := agent.FromEnv()
	if err != nil {
		return err
	}
	encoder := zap.NewProductionEncoderConfig()
	encoder.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	core := zapcore.NewCore(zapcore.NewJSONEncoder(encoder), zapcore.Lock(os.Stderr), zapcore.InfoLevel)
	defer func() { _ = core.Sync() }() // stderr may be a pipe, which cannot be synced
	cfg.Log = slog.New(zapslog.NewHandler(core))

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return agent.Run(ctx, cfg)
}
