package host

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"manifold"
	"manifold/agent/door"
	"manifold/agent/why"
	"manifold/isolation"
)

func (t *tool) whyCommand() *cobra.Command {
	cmd := t.onDyno("why DYNO", "Say what ended a dyno last, and all that is known of it", t.why)
	cmd.Long = `Say what ended a dyno last: the first line names the cause. Below it, what that
means, the pressure before the end, what its release changed, its last lines and
its next try. It works for dynos that are gone, too: the last 256 ends are kept.`
	return cmd
}

func (t *tool) why(ctx context.Context, dyno string) error {
	var w door.Why
	if err := t.get(ctx, "/v1/dynos/"+escape(dyno)+"/why", &w); err != nil {
		return err
	}
	if t.json {
		return t.print(w)
	}
	colour := red
	switch w.Verdict.Code {
	case "alive", "stopped", "done":
		colour = green
	}
	t.say("%s: %s", w.Dyno, t.paint(colour, tame(w.Verdict.First)))
	if w.Run != nil {
		t.whyRun(*w.Run)
	}
	t.section("What it means", len(w.Verdict.Means))
	for _, m := range w.Verdict.Means {
		t.say("  %s", tame(m))
	}
	if w.Run != nil {
		t.whyPressure(*w.Run)
	}
	if w.Change != nil {
		t.whyChange(*w.Change)
	}
	if w.Run != nil {
		t.section(fmt.Sprintf("Its last %d lines", len(w.Run.Lines)), len(w.Run.Lines))
		for _, l := range w.Run.Lines {
			t.say("  %s %s: %s", l.At.Local().Format("15:04:05.000"), l.Source, tame(l.Text))
		}
	}
	t.section("Ends before", len(w.Earlier))
	for _, e := range w.Earlier {
		t.say("  %s  %s", clock(e.At), tame(e.First))
	}
	t.whyNow(w)
	return nil
}

func (t *tool) say(format string, args ...any) { fmt.Fprintf(t.out, format+"\n", args...) }

func (t *tool) section(title string, rows int) {
	if rows > 0 {
		t.say("\n%s", t.paint(bold, title))
	}
}

func (t *tool) whyRun(r why.Run) {
	up := "never up"
	if !r.UpAt.IsZero() {
		up = "up for " + r.Result.At.Sub(r.UpAt).Round(100*time.Millisecond).String()
	}
	t.say("  ended %s, %s ago; began %s, %s", clock(r.Result.At), age(time.Since(r.Result.At)), clock(r.Began), up)
	t.say("  run %s, release v%d, %s, cause %s, status %d", r.Run, r.Release, r.Size.Name, r.Result.Cause, r.Result.Status)
	t.say("  command: %s", tame(r.Command))
}

// whyPressure shows what dyno and host waited for, and how memory grew.
func (t *tool) whyPressure(r why.Run) {
	t.section("Pressure before the end (percent of the last 10 s / 60 s / 300 s in which something waited)", 1)
	row := func(name string, p [3]isolation.Stall) {
		one := func(s isolation.Stall) string { return fmt.Sprintf("%.0f / %.0f / %.0f", s.Avg10, s.Avg60, s.Avg300) }
		t.say("  %-5s cpu %s   memory %s   io %s", name, one(p[0]), one(p[1]), one(p[2]))
	}
	row("dyno", r.End.Pressure)
	row("host", r.Host.Pressure)
	t.say("  host: %s of RAM to be had, %s of %s swap free, %s of disk free", size(r.Host.Available), size(r.Host.SwapFree), size(r.Host.SwapTotal), size(r.Host.DiskFree))
	var samples []string
	for _, s := range r.Trail {
		samples = append(samples, size(s.Needed()))
	}
	if len(samples) > 0 {
		t.say("  memory, every 20 s: %s", strings.Join(samples, " → "))
	}
	if r.End.Peak > 0 {
		t.say("  memory at its peak, page cache included: %s of %s", size(r.End.Peak), size(r.End.Limit))
	}
}

func (t *tool) whyChange(c why.Change) {
	t.section("What changed with its release", 1)
	line := fmt.Sprintf("v%d", c.Release)
	if c.Description != "" {
		line += ` "` + tame(c.Description) + `"`
	}
	if c.Commit != "" {
		line += ", commit " + tame(c.Commit)
	}
	t.say("  %s, first seen on this host %s (%s ago)", line, clock(c.Seen), age(time.Since(c.Seen)))
	if c.Since == 0 {
		t.say("  this host saw no release before it")
		return
	}
	same := true
	list := func(what string, names []string) {
		if len(names) > 0 {
			same = false
			t.say("  against v%d: %s %s", c.Since, what, tame(strings.Join(names, ", ")))
		}
	}
	if c.Slug {
		list("the code", []string{"(slug) is another"})
	}
	list("commands changed:", c.Commands)
	list("sizes changed:", c.Sizes)
	list("config vars added:", c.Added)
	list("config vars removed:", c.Removed)
	list("config vars changed:", c.Changed)
	if same {
		t.say("  against v%d: nothing", c.Since)
	}
}

func (t *tool) whyNow(w door.Why) {
	t.section("Now", 1)
	switch s := w.Now; {
	case s == nil:
		t.say("  it is gone from this host")
	case s.State == manifold.StateCrashed:
		t.say("  crashed %d times in a row; next try %s (in %s)", s.Crashes, clock(s.NextTry), until(s.NextTry, time.Now()))
	default:
		t.say("  %s since %s, run %s, release v%d", s.Step, clock(s.Since), s.Run, s.Release)
	}
}
