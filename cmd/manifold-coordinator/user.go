package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"manifold"
	"manifold/coordinator"
)

func userCommand() *cobra.Command {
	c := &cobra.Command{Use: "user", Short: "Who may use this platform", Args: cobra.NoArgs}
	c.AddCommand(userAddCommand(), userListCommand(), userPasswordCommand())
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

func userPasswordCommand() *cobra.Command {
	return &cobra.Command{
		Use: "password EMAIL", Short: "Set a user's password, which is read from standard input", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := readPassword(cmd)
			if err != nil {
				return err
			}
			return coordinator.SetPassword(cmd.Context(), manifold.FromEnv(), args[0], password)
		},
	}
}

// readPassword reads one line: from a terminal unseen, else as it comes.
func readPassword(cmd *cobra.Command) (string, error) {
	if in := int(os.Stdin.Fd()); term.IsTerminal(in) {
		fmt.Fprint(cmd.ErrOrStderr(), "New password: ")
		text, err := term.ReadPassword(in)
		fmt.Fprintln(cmd.ErrOrStderr())
		return string(text), err
	}
	line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 4096)).ReadString('\n')
	if err != nil && (!errors.Is(err, io.EOF) || line == "") {
		return "", fmt.Errorf("read the password from standard input: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
