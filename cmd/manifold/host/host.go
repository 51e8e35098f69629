// Package host is the commands "manifold host …": what the people of a host
// see and do there, through the agent's socket alone. They work while the
// coordinator is away.
//
// It must never read or change the agent's files or the kernel's state by
// itself: what can be seen or done is the door's to say (package agent/door),
// which knows who asked. Doctor and bundle, which must work where no agent
// answers, and a look into what is kept of a dead dyno, are other packages'
// work (agent, agent/bundle, isolation), for root alone.
package host

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"manifold"
	"manifold/agent/door"
)

// tool is what the commands share.
type tool struct {
	socket string
	json   bool
	out    io.Writer
	errOut io.Writer
}

// Command is "manifold host".
func Command(settings manifold.Settings) *cobra.Command {
	t := &tool{}
	cmd := &cobra.Command{
		Use:   "host",
		Short: "See and do what is needed on this host, also while the coordinator is away",
		Long: `See and do what is needed on this host, through the agent's socket. All of it
works while the coordinator is away. Root and members of the group manifold may.

DYNO is a name (web.1), an app and a name (hello:web.1), an assignment or a run.`,
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }, // a word that is no command is an error
		PersistentPreRun: func(cmd *cobra.Command, _ []string) { t.out, t.errOut = cmd.OutOrStdout(), cmd.ErrOrStderr() },
	}
	cmd.PersistentFlags().StringVar(&t.socket, "socket", door.SocketPath(settings.Run), "the agent's socket")
	cmd.PersistentFlags().BoolVar(&t.json, "json", false, "print JSON")
	_ = cmd.MarkPersistentFlagFilename("socket", "sock")
	cmd.AddCommand(t.psCommand(), t.topCommand(), t.whyCommand(), t.inspectCommand(), t.logsCommand(), t.eventsCommand(),
		t.execCommand(), t.autopsyCommand(), t.doctorCommand(), t.bundleCommand(), t.teardownCommand())
	cmd.AddCommand(t.actCommands()...)
	return cmd
}

// onDyno is a command about one dyno, whose name the shell completes.
func (t *tool) onDyno(use, short string, run func(ctx context.Context, dyno string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: oneDyno, ValidArgsFunction: t.completeDyno,
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd.Context(), args[0]) },
	}
}

func oneDyno(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s takes the name of one dyno, such as web.1 or hello:web.1: manifold host ps lists them", cmd.CommandPath())
	}
	return nil
}

// completeDyno offers the dynos there are, by the shortest name that is one
// dyno's alone.
func (t *tool) completeDyno(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var list []door.Status
	if len(args) > 0 || t.get(cmd.Context(), "/v1/ps", &list) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	count := map[string]int{}
	for _, s := range list {
		count[s.Name]++
		count[s.AppName+":"+s.Name]++
	}
	var names []string
	for _, s := range list {
		name := s.Name
		if count[name] > 1 {
			name = s.AppName + ":" + s.Name
		}
		if count[name] > 1 {
			name = s.Run
		}
		names = append(names, name+"\t"+s.AppName+" "+string(s.State))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// print writes v as JSON for programs.
func (t *tool) print(v any) error {
	enc := json.NewEncoder(t.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
