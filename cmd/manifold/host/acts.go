package host

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"manifold/agent/door"
	"manifold/isolation"
)

// act has the agent do something and says what it answered.
func (t *tool) act(ctx context.Context, path string, query url.Values) error {
	var done door.Done
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	if err := t.post(ctx, path, &done); err != nil {
		return err
	}
	if t.json {
		return t.print(done)
	}
	text := done.Next
	if done.Dyno != "" {
		text = done.Dyno + ": " + text
	}
	_, err := fmt.Fprintln(t.out, text)
	return err
}

func (t *tool) actOn(ctx context.Context, dyno, act string, query url.Values) error {
	return t.act(ctx, "/v1/dynos/"+url.PathEscape(dyno)+"/"+act, query)
}

func (t *tool) actCommands() []*cobra.Command {
	restart := t.onDyno("restart DYNO", "Replace a formation dyno; the new one is up before the old one goes",
		func(ctx context.Context, dyno string) error { return t.actOn(ctx, dyno, "restart", nil) })
	restart.Long = `Replace a formation dyno: the coordinator places another one, and when that is
up this one is taken out of the routers and stopped. While the coordinator is
away, it is stopped on this host and started again at once.`
	thaw := t.onDyno("thaw DYNO", "Let a frozen dyno's processes go on",
		func(ctx context.Context, dyno string) error { return t.actOn(ctx, dyno, "thaw", nil) })
	return []*cobra.Command{restart, t.stopCommand(), t.freezeCommand(), thaw, t.keepCommand(), t.drainCommand(), t.undrainCommand()}
}

func (t *tool) stopCommand() *cobra.Command {
	var grace time.Duration
	cmd := t.onDyno("stop DYNO", "Stop a dyno now: SIGTERM, its grace, SIGKILL", nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		query := url.Values{}
		if cmd.Flags().Changed("grace") { // the agent says which there may be
			query.Set("grace", grace.String())
		}
		return t.actOn(cmd.Context(), args[0], "stop", query)
	}
	cmd.Long = `Stop a dyno now: SIGTERM to every process, its grace, SIGKILL. A formation dyno
is started again at once, since its app still wants it; a one-off dyno is not.
To replace one without a gap, use restart; to have fewer, scale the app.`
	cmd.Flags().DurationVar(&grace, "grace", 0, "from SIGTERM to SIGKILL (default: the dyno's own)")
	return cmd
}

func (t *tool) freezeCommand() *cobra.Command {
	var limit time.Duration
	cmd := t.onDyno("freeze DYNO", "Stop a dyno's processes where they are", nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return t.actOn(cmd.Context(), args[0], "freeze", url.Values{"limit": {limit.String()}})
	}
	cmd.Long = `Stop a dyno's processes where they are, unseen by them, until they are thawed: by
"thaw", by a stop or restart, or by themselves when the limit is over. A web dyno
is taken out of the routers while it is frozen; requests it has already wait for
the thaw, or for 30 seconds (H12).`
	cmd.Flags().DurationVar(&limit, "limit", door.DefaultFreeze, "thaw by itself after this time, at most "+door.MaxFreeze.String())
	return cmd
}

func (t *tool) keepCommand() *cobra.Command {
	var off bool
	cmd := t.onDyno("keep DYNO", "Keep what is left of a dyno when it ends, for an autopsy", nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		query := url.Values{}
		if off {
			query.Set("off", "true")
		}
		return t.actOn(cmd.Context(), args[0], "keep", query)
	}
	cmd.Long = `Keep what is left of a dyno's run when it ends, however it ends: what it wrote to
its filesystem, its exit record and its log. Of a crashed dyno it is the next run.
The ten newest stay for a week, 4 GB together; see "manifold host autopsy".`
	cmd.Flags().BoolVar(&off, "off", false, "do not keep it after all")
	return cmd
}

func (t *tool) drainCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "drain", Short: "Empty this host: its dynos are replaced on other hosts", Args: cobra.NoArgs,
		Long: `Have no new dynos placed on this host, and each formation dyno here replaced on
another one: the replacement is up before the dyno is taken out of the routers and
stopped. Where no other host can take it, it stays and serves. One-off dynos run
to their end. It holds across restarts, until "manifold host undrain".`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := t.act(cmd.Context(), "/v1/drain", nil); err != nil || wait == 0 {
				return err
			}
			return t.awaitEmpty(cmd.Context(), wait)
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait this long for the host to be empty, and say what stays")
	return cmd
}

func (t *tool) undrainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "undrain", Short: "Take new dynos on this host again", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return t.act(cmd.Context(), "/v1/undrain", nil) },
	}
}

// awaitEmpty waits for the dynos to leave, and says which did not.
func (t *tool) awaitEmpty(ctx context.Context, wait time.Duration) error {
	for until := time.Now().Add(wait); ; {
		var list []door.Status
		if err := t.get(ctx, "/v1/ps", &list); err != nil {
			return err
		}
		if len(list) == 0 {
			_, err := fmt.Fprintln(t.errOut, "This host is empty.")
			return err
		}
		if time.Now().After(until) {
			for _, s := range list {
				fmt.Fprintf(t.errOut, "%s:%s is still here (%s)\n", s.AppName, s.Name, s.Step)
			}
			return fmt.Errorf("%d dynos did not leave within %s: no other host has taken them; the app's log says why", len(list), wait)
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *tool) autopsyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "autopsy", Short: "List what is kept of dead dynos", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return t.autopsies(cmd.Context()) },
	}
	cmd.AddCommand(&cobra.Command{
		Use: "open RUN [COMMAND [ARG...]]", Short: "Look into a dead dyno's filesystem, with a shell or a command",
		Long: `Run a shell, or a command, in what a dead dyno wrote to its filesystem: /tmp/x of
the dyno is tmp/x there. It is mounted read-only, for that process alone. Needs
root. What lies there was made by the app: links in it may lead anywhere.`,
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: t.completeAutopsy,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.openAutopsy(cmd.Context(), args[0], args[1:])
		},
	}, &cobra.Command{
		Use: "remove RUN", Short: "Remove what is kept of a dead dyno", Args: cobra.ExactArgs(1), ValidArgsFunction: t.completeAutopsy,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.call(cmd.Context(), http.MethodDelete, "/v1/autopsies/"+url.PathEscape(args[0]), nil)
		},
	})
	cmd.Commands()[0].Flags().SetInterspersed(false)
	return cmd
}

func (t *tool) autopsies(ctx context.Context) error {
	var list []door.Autopsy
	if err := t.get(ctx, "/v1/autopsies", &list); err != nil {
		return err
	}
	if t.json {
		return t.print(list)
	}
	w := tabwriter.NewWriter(t.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "RUN\tAPP\tDYNO\tENDED\tBY\tSTATUS\tKEPT\tMB")
	for _, a := range list {
		by, status, at := "", "", ""
		if a.Result != nil {
			by, status, at = string(a.Result.Cause), fmt.Sprint(a.Result.Status), a.Result.At.Local().Format(time.DateTime)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.1f\n", a.Run, a.AppName, a.Dyno, at, by, status,
			a.KeptAt.Local().Format(time.DateTime), float64(a.Bytes)/1e6)
	}
	return w.Flush()
}

func (t *tool) completeAutopsy(cmd *cobra.Command, args []string, _ string) (runs []string, _ cobra.ShellCompDirective) {
	var list []door.Autopsy
	if len(args) == 0 && t.get(cmd.Context(), "/v1/autopsies", &list) == nil {
		for _, a := range list {
			runs = append(runs, a.Run+"\t"+a.AppName+" "+a.Dyno)
		}
	}
	return runs, cobra.ShellCompDirectiveNoFileComp
}

// openAutopsy runs a command with the dead dyno's filesystem as its directory.
func (t *tool) openAutopsy(ctx context.Context, run string, argv []string) error {
	var list []door.Autopsy
	if err := t.get(ctx, "/v1/autopsies", &list); err != nil {
		return err
	}
	if len(argv) == 0 {
		argv = []string{"/bin/bash"}
	}
	for _, a := range list {
		if a.Run != run {
			continue
		}
		return isolation.LookInto(a.Dir, func(dir *os.File) error {
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.Dir = fmt.Sprintf("/proc/self/fd/%d", dir.Fd())
			cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
			err := cmd.Run()
			if exit, ok := err.(*exec.ExitError); ok {
				return &Exit{max(exit.ExitCode(), 1)}
			}
			return err
		})
	}
	return fmt.Errorf("nothing is kept of a run %.100q: manifold host autopsy lists what is", run)
}
