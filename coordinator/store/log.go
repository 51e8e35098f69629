package store

import (
	"context"
	"io"
	"log/slog"
	"slices"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapTo gives etcd, which logs to zap only, our logger. What etcd finds worth
// information is detail to us: it tells of every listener and snapshot.
func zapTo(log *slog.Logger) *zap.Logger {
	return zap.New(&slogCore{log: log.With("component", "etcd")}, zap.ErrorOutput(zapcore.AddSync(io.Discard)))
}

// slogCore is a zapcore.Core over a slog.Logger.
type slogCore struct{ log *slog.Logger }

func (c *slogCore) Enabled(level zapcore.Level) bool {
	return c.log.Enabled(context.Background(), slogLevel(level))
}

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{log: c.log.With(attributes(fields)...)}
}

func (c *slogCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

// moot are complaints that ask nothing of anybody. The first two are about
// doors the embedded member does not have. A new member says the others once,
// before its first entry is on disk, and tries again some seconds later.
var moot = []string{
	"Running http and grpc server on single port. This is not recommended for production.",
	"simple token is not cryptographically signed",
	"Failed to detect schema version",
	"failed to update storage version",
}

func (c *slogCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	if slices.Contains(moot, entry.Message) {
		return nil
	}
	c.log.Log(context.Background(), slogLevel(entry.Level), entry.Message, attributes(fields)...)
	return nil
}

func (c *slogCore) Sync() error { return nil }

func slogLevel(level zapcore.Level) slog.Level {
	switch {
	case level >= zapcore.ErrorLevel:
		return slog.LevelError
	case level == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func attributes(fields []zapcore.Field) []any {
	into := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(into)
	}
	attrs := make([]any, 0, len(into.Fields))
	for k, v := range into.Fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	return attrs
}
