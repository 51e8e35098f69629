package journal

import (
	"errors"
	"log/slog"
	"maps"
	"testing"
	"time"
)

func TestFields(t *testing.T) {
	h := handler{fields: map[string]string{"SYSLOG_IDENTIFIER": "x"}}
	base := h.WithAttrs([]slog.Attr{slog.String("app", "hello"), slog.String("dyno", "web.1")}).(handler)
	other := base.WithAttrs([]slog.Attr{slog.String("app", "other")}).(handler)
	got := base.WithGroup("exit").(handler)
	got.fields = maps.Clone(got.fields)
	for _, a := range []slog.Attr{
		slog.Any("error", errors.New("no \"such\" file")), slog.Duration("after", time.Second), slog.String("message", "m"),
		slog.Group("memory", slog.Int("peak-mib", 7)), slog.String("ü", "lost"),
	} {
		got.add(a)
	}
	want := map[string]string{
		"SYSLOG_IDENTIFIER": "x", "APP": "hello", "DYNO": "web.1", "EXIT_ERROR": `no "such" file`, "EXIT_AFTER": "1s",
		"EXIT_MESSAGE": "m", "EXIT_MEMORY_PEAK_MIB": "7", "EXIT__": "lost",
	}
	if !maps.Equal(got.fields, want) {
		t.Errorf("fields are %q, want %q", got.fields, want)
	}
	if want := ` app=hello dyno=web.1 exit_error="no \"such\" file" exit_after=1s exit_message=m exit_memory_peak-mib=7 exit_ü=lost`; got.suffix != want {
		t.Errorf("the message ends %q, want %q", got.suffix, want)
	}
	if base.fields["APP"] != "hello" || other.fields["APP"] != "other" {
		t.Errorf("loggers share fields: %q, %q", base.fields, other.fields)
	}
	for name, want := range map[string]string{"message": "MESSAGE_", "priority": "PRIORITY_", "_pid": "PID", "9": "", "": ""} {
		if got := fieldName(name); got != want {
			t.Errorf("field of %q is %q, want %q", name, got, want)
		}
	}
}
