// Package journal makes the logger of our daemons. Under systemd each line
// goes to the journal with its attributes as fields, so that
//
//	journalctl -u manifold-agent APP=hello DYNO=web.1
//
// finds what was said of one dyno; elsewhere it is a JSON object on stderr. It
// must never be imported by a library: those log to the *slog.Logger they are
// given.
package journal

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
)

// Logger returns the daemon's logger, and what flushes it at the end.
func Logger() (log *slog.Logger, flush func()) {
	if native, err := journal.StderrIsJournalStream(); err == nil && native {
		fields := map[string]string{"SYSLOG_IDENTIFIER": filepath.Base(os.Args[0])}
		return slog.New(handler{fields: fields}), func() {}
	}
	encoder := zap.NewProductionEncoderConfig()
	encoder.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	core := zapcore.NewCore(zapcore.NewJSONEncoder(encoder), zapcore.Lock(os.Stderr), zapcore.InfoLevel)
	return slog.New(zapslog.NewHandler(core)), func() { _ = core.Sync() } // stderr cannot be synced everywhere
}

// handler sends records to the journal. Attributes are fields under their
// names in capitals, and stand behind the message too, for people.
type handler struct {
	fields map[string]string // never changed once in a handler
	suffix string            // the same, as " name=value"
	group  string
}

func (h handler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (h handler) WithGroup(name string) slog.Handler {
	h.group += name + "_"
	return h
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.fields = maps.Clone(h.fields)
	for _, a := range attrs {
		h.add(a)
	}
	return h
}

// add writes to h.fields, which must be the caller's own.
func (h *handler) add(a slog.Attr) {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		within := *h
		if a.Key != "" {
			within.group += a.Key + "_"
		}
		for _, a := range value.Group() {
			within.add(a)
		}
		h.suffix = within.suffix
		return
	}
	name := fieldName(h.group + a.Key)
	if name == "" {
		return
	}
	text := value.String()
	h.fields[name] = text
	if strings.ContainsAny(text, " \"\n=") || text == "" {
		text = strconv.Quote(text)
	}
	h.suffix += " " + h.group + a.Key + "=" + text
}

// fieldName is the journal's form of a name: capitals, digits and underscores,
// beginning with a letter (systemd.journal-fields(7)); "" if nothing is left.
func fieldName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name)
	name = strings.TrimLeft(name, "_0123456789")
	switch name {
	case "MESSAGE", "PRIORITY": // not ours to set by an attribute
		return name + "_"
	}
	return name[:min(len(name), 64)]
}

func (h handler) Handle(_ context.Context, r slog.Record) error {
	h.fields = maps.Clone(h.fields)
	r.Attrs(func(a slog.Attr) bool { h.add(a); return true })
	if err := journal.Send(r.Message+h.suffix, priority(r.Level), h.fields); err != nil {
		_, err = fmt.Fprintf(os.Stderr, "%s%s\n", r.Message, h.suffix) // which the journal has as well
		return err
	}
	return nil
}

func priority(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
