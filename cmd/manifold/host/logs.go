package host

import (
	"encoding/json"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"manifold/agent/door"
)

// escape makes a name an element of a path.
func escape(name string) string { return url.PathEscape(name) }

func (t *tool) logsCommand() *cobra.Command {
	var follow bool
	var last int
	cmd := &cobra.Command{
		Use: "logs DYNO", Short: "Show a dyno's lines as they are on this host", Args: cobra.ExactArgs(1), ValidArgsFunction: t.completeDyno,
		RunE: func(cmd *cobra.Command, args []string) error {
			path := fmt.Sprintf("/v1/dynos/%s/logs?last=%d&follow=%t", escape(args[0]), last, follow)
			return t.stream(cmd.Context(), path, t.logLine)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on, over restarts too")
	cmd.Flags().IntVarP(&last, "last", "n", 100, "begin with so many lines")
	return cmd
}

func (t *tool) logLine(text []byte) error {
	if t.json {
		return t.raw(text)
	}
	var l door.LogLine
	if err := json.Unmarshal(text, &l); err != nil {
		return fmt.Errorf("read a log line: %w", err)
	}
	who := fmt.Sprintf("%s %s[%s]:", l.At.UTC().Format("2006-01-02T15:04:05.000000Z"), l.Source, l.Dyno)
	t.say("%s %s", t.paint(faint, who), tame(l.Text))
	return nil
}

// raw passes a JSON line on.
func (t *tool) raw(text []byte) error {
	_, err := fmt.Fprintf(t.out, "%s\n", text)
	return err
}

func (t *tool) eventsCommand() *cobra.Command {
	var follow bool
	var last int
	cmd := &cobra.Command{
		Use: "events", Short: "Show the dynos' changes of state", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.stream(cmd.Context(), fmt.Sprintf("/v1/events?last=%d&follow=%t", last, follow), t.event)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on")
	cmd.Flags().IntVarP(&last, "last", "n", 100, "begin with so many")
	return cmd
}

func (t *tool) event(text []byte) error {
	if t.json {
		return t.raw(text)
	}
	var e door.Event
	if err := json.Unmarshal(text, &e); err != nil {
		return fmt.Errorf("read an event: %w", err)
	}
	end := ""
	if e.Result != nil {
		end = fmt.Sprintf("  %s, status %d %s", e.Result.Cause, e.Result.Status, tame(e.Result.Detail))
	}
	t.say("%s  %s:%s  %s → %s (%s)%s", clock(e.At), e.AppName, e.Dyno, e.From, t.paint(stateColour(string(e.To)), string(e.To)), e.On, end)
	return nil
}
