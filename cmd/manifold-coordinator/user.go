package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"manifold"
	"manifold/coordinator"
)

func userCommand() *cobra.Command {
	c := &cobra.Command{Use: "user", Short: "Who may use this platform", Args: cobra.NoArgs}
	c.AddCommand(userAddCommand(), userListCommand())
	return c
}

func userAddCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "add EMAIL", Short: "Make a user and print their first API token, which is shown once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			user, err := coordinator.AddUser(cmd.Context(), manifold.FromEnv(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), user)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), user.Token)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func userListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List users", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			users, err := coordinator.Users(cmd.Context(), manifold.FromEnv())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), users)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "EMAIL\tID\tSINCE")
			for _, u := range users {
				fmt.Fprintf(w, "%s\t%s\t%s\n", u.Email, u.ID, u.CreatedAt.Format(time.DateOnly))
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
