package main

import (
	"bufio"
	"context"
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
	c := &cobra.Command{
		Use: "user", Short: "Who may use this platform",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }, // a word that is no command is an error
	}
	c.AddCommand(userAddCommand(), userListCommand(), userPasswordCommand(), userRemoveCommand())
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

func userRemoveCommand() *cobra.Command {
	var what coordinator.RemoveUser
	var confirm string
	c := &cobra.Command{
		Use: "remove EMAIL", Short: "End a user's access; give their apps to somebody, or destroy them", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what.Email, what.DryRun = args[0], true
			plan, err := coordinator.TakeUser(cmd.Context(), manifold.FromEnv(), what)
			if err != nil {
				return err
			}
			if err := sayPlan(cmd.ErrOrStderr(), what, plan); err != nil {
				return err
			}
			if confirm == "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "To go on, type %s: ", plan.User.Email)
				if confirm, err = ask(cmd.Context(), func() (string, error) { return readLine(cmd.InOrStdin()) }); err != nil {
					return fmt.Errorf("nothing was done: say --confirm %s: %w", plan.User.Email, err)
				}
			}
			if !strings.EqualFold(confirm, plan.User.Email) {
				return fmt.Errorf("nothing was done: %q is not %s", confirm, plan.User.Email)
			}
			what.DryRun = false
			_, err = coordinator.TakeUser(cmd.Context(), manifold.FromEnv(), what)
			return err
		},
	}
	c.Flags().StringVar(&what.AppsTo, "apps-to", "", "the `email` of who owns their apps from now on")
	c.Flags().BoolVar(&what.DestroyApps, "destroy-apps", false, "destroy their apps")
	c.Flags().StringVar(&confirm, "confirm", "", "the user's `email` once more, instead of typing it")
	return c
}

// sayPlan says what becomes of a user's apps, which somebody has to have
// decided.
func sayPlan(w io.Writer, what coordinator.RemoveUser, plan coordinator.RemovedUser) error {
	fate := "are destroyed"
	if what.AppsTo != "" {
		fate = "go to " + what.AppsTo
	}
	switch apps := strings.Join(plan.Apps, ", "); {
	case len(plan.Apps) == 0:
		fmt.Fprintf(w, "%s owns no apps. Their tokens, password, SSH keys and share in others' apps end at once.\n", plan.User.Email)
	case what.AppsTo == "" && !what.DestroyApps:
		return fmt.Errorf("%s owns %s: say what becomes of them with --apps-to EMAIL or --destroy-apps", plan.User.Email, apps)
	default:
		fmt.Fprintf(w, "%s owns %s, which %s. Their tokens, password, SSH keys and share in others' apps end at once.\n", plan.User.Email, apps, fate)
	}
	return nil
}

// readPassword reads one line: from a terminal unseen, else as it comes.
func readPassword(cmd *cobra.Command) (string, error) {
	if in := int(os.Stdin.Fd()); term.IsTerminal(in) {
		before, err := term.GetState(in)
		if err != nil {
			return "", fmt.Errorf("look at the terminal: %w", err)
		}
		fmt.Fprint(cmd.ErrOrStderr(), "New password: ")
		text, err := ask(cmd.Context(), func() (string, error) {
			text, err := term.ReadPassword(in)
			return string(text), err
		})
		_ = term.Restore(in, before) // the echo, if nobody waited for the read's end
		fmt.Fprintln(cmd.ErrOrStderr())
		return text, err
	}
	line, err := ask(cmd.Context(), func() (string, error) { return readLine(cmd.InOrStdin()) })
	if err != nil {
		return "", fmt.Errorf("read the password from standard input: %w", err)
	}
	return line, nil
}

// ask reads what a person types until ctx ends, as it does at Ctrl-C. The read is
// left behind then: it cannot be called off, and this process is about to end.
func ask(ctx context.Context, read func() (string, error)) (string, error) {
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		text, err := read()
		got <- answer{text, err}
	}()
	select {
	case a := <-got:
		return a.text, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func readLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 4096)).ReadString('\n')
	if err != nil && (!errors.Is(err, io.EOF) || line == "") {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
