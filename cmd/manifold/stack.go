package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"manifold"
	"manifold/slugfs/stack"
)

func stackCommand(settings manifold.Settings) *cobra.Command {
	dir := filepath.Join(settings.Home, "stacks")
	cmd := &cobra.Command{
		Use: "stack", Short: "Build and list stack images",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }, // a word that is no command is an error
	}
	cmd.AddCommand(stackListCommand(dir), stackBuildCommand(dir))
	return cmd
}

func stackListCommand(dir string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the stack images on this machine", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stacks, err := stack.Load(dir)
			if err != nil {
				return err
			}
			if asJSON {
				if stacks == nil {
					stacks = []stack.Stack{}
				}
				return printJSON(cmd.OutOrStdout(), stacks)
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(table, "NAME\tVERSION\tRUN\tBUILD\tPACKAGES\tBUILT")
			for _, s := range stacks {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\n", s.Name, s.Version, layers(s.Run), layers(s.Build), len(s.Packages), s.BuiltAt.Local().Format(time.DateTime))
			}
			return table.Flush()
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func stackBuildCommand(dir string) *cobra.Command {
	return &cobra.Command{
		Use: "build [NAME]", Short: "Build a stack image from Debian packages, where there is none of its recipe", Args: cobra.MaximumNArgs(1),
		Long: `Build a stack image (cedar if no other is named) from Debian packages. One of the
same recipe that is there is left as it is; to have it built anew, with today's
packages, remove $MANIFOLD_HOME/stacks/NAME.json first. Until it is built again,
no dyno of that stack can be placed and nothing can be built; those that run go on.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "cedar"
			if len(args) == 1 {
				name = args[0]
			}
			s, err := stack.Build(cmd.Context(), name, dir, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s in %s: run %s, build %s\n", s.Name, s.Version, dir, layers(s.Run), layers(s.Build))
			return err
		},
	}
}

// layers shows the images of a stack, top first: "210 MB + 420 MB".
func layers(images []manifold.Image) string {
	parts := make([]string, len(images))
	for i, img := range images {
		parts[i] = fmt.Sprintf("%d MB", img.Bytes/1_000_000)
	}
	return strings.Join(parts, " + ")
}
