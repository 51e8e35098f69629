// Package jobs is `manifold scheduler`: an app's scheduled jobs, over the
// Platform API, with the heroku CLI's own credentials. It must never do what
// the heroku CLI can do.
package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"manifold"
	"manifold/cmd/manifold/apiclient"
)

type job struct {
	ID      string `json:"id"`
	Command string `json:"command"`
	Size    string `json:"size"`
	Every   string `json:"every"`
	At      string `json:"at"`
	LastRun *struct {
		Name string    `json:"name"`
		At   time.Time `json:"at"`
	} `json:"last_run"`
	NextRunAt time.Time `json:"next_run_at"`
}

// flags are what every subcommand takes.
type flags struct {
	settings manifold.Settings
	app      string
	asJSON   bool
}

// Command is `manifold scheduler`.
func Command(settings manifold.Settings) *cobra.Command {
	f := &flags{settings: settings}
	cmd := &cobra.Command{
		Use: "scheduler", Short: "Run an app's commands every ten minutes, every hour or every day",
		Long: `Run an app's commands every ten minutes, every hour or every day, as one-off
dynos scheduler.N. All times are UTC.

It speaks to HEROKU_HOST with the token of HEROKU_API_KEY or ~/.netrc, as the
heroku CLI does: eval "$(manifold env)" sets both.`,
		Args: cobra.NoArgs,
		RunE: f.list,
	}
	cmd.PersistentFlags().StringVarP(&f.app, "app", "a", os.Getenv("HEROKU_APP"), "the app")
	cmd.PersistentFlags().BoolVar(&f.asJSON, "json", false, "print JSON")
	cmd.AddCommand(&cobra.Command{Use: "list", Short: "List an app's jobs", Args: cobra.NoArgs, RunE: f.list},
		f.addCommand(),
		&cobra.Command{Use: "remove JOB", Short: "Remove a job; a dyno of it that runs goes on", Args: cobra.ExactArgs(1), RunE: f.remove},
		&cobra.Command{Use: "run JOB", Short: "Run a job now, besides its schedule", Args: cobra.ExactArgs(1), RunE: f.run})
	return cmd
}

// open returns the client and the path of the app's jobs, or of one.
func (f *flags) open(ids ...string) (*apiclient.Client, string, error) {
	if f.app == "" {
		return nil, "", errors.New("name the app: --app NAME")
	}
	c, err := apiclient.New(f.settings)
	path := "/apps/" + url.PathEscape(f.app) + "/scheduler-jobs"
	for _, id := range ids {
		path += "/" + url.PathEscape(id)
	}
	return c, path, err
}

func (f *flags) print(w io.Writer, v any, text string, args ...any) error {
	if f.asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	_, err := fmt.Fprintf(w, text+"\n", args...)
	return err
}

func (f *flags) list(cmd *cobra.Command, _ []string) error {
	c, path, err := f.open()
	if err != nil {
		return err
	}
	jobs := []job{}
	if err := c.Call(cmd.Context(), "GET", path, nil, &jobs); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if f.asJSON {
		return f.print(out, jobs, "")
	}
	if len(jobs) == 0 {
		_, err := fmt.Fprintf(out, "%s has no scheduled jobs. Add one: manifold scheduler add --every 10m -a %s -- COMMAND\n", f.app, f.app)
		return err
	}
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "JOB\tEVERY\tAT (UTC)\tNEXT RUN\tLAST RUN\tSIZE\tCOMMAND")
	for _, j := range jobs {
		last := "never"
		if j.LastRun != nil {
			last = j.LastRun.Name + ", " + j.LastRun.At.UTC().Format("Jan 2 15:04")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", j.ID, j.Every, j.At, j.NextRunAt.UTC().Format("Jan 2 15:04"), last, j.Size, j.Command)
	}
	return table.Flush()
}

func (f *flags) addCommand() *cobra.Command {
	var every, at, size string
	cmd := &cobra.Command{
		Use: "add --every 10m|hour|day [--at :MM|HH:MM] -- COMMAND", Short: "Add a job", Args: cobra.MinimumNArgs(1),
		Example: `  manifold scheduler add --every 10m -a my-app -- bin/poll
  manifold scheduler add --every hour --at :05 -a my-app -- bin/report
  manifold scheduler add --every day --at 04:30 -a my-app -- "bin/tidy && bin/report"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, path, err := f.open()
			if err != nil {
				return err
			}
			wish := map[string]string{"command": joined(args), "every": every, "at": at}
			if size != "" {
				wish["size"] = size
			}
			var j job
			if err := c.Call(cmd.Context(), "POST", path, wish, &j); err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), j, "Added job %s. It runs next on %s UTC.", j.ID, j.NextRunAt.UTC().Format("Jan 2 at 15:04"))
		},
	}
	cmd.Flags().StringVar(&every, "every", "", "10m, hour or day")
	cmd.Flags().StringVar(&at, "at", "", "minute of the hour (:30) or time of the day (14:30), UTC")
	cmd.Flags().StringVar(&size, "size", "", "size of the dyno")
	_ = cmd.MarkFlagRequired("every") // it was defined above
	return cmd
}

// joined is a command of one word as it is, and of several as a shell reads
// them with blanks between, as heroku run does it.
func joined(args []string) string {
	text := args[0]
	for _, a := range args[1:] {
		text += " " + a
	}
	return text
}

func (f *flags) remove(cmd *cobra.Command, args []string) error {
	c, path, err := f.open(args...)
	if err != nil {
		return err
	}
	var j job
	if err := c.Call(cmd.Context(), "DELETE", path, nil, &j); err != nil {
		return err
	}
	return f.print(cmd.OutOrStdout(), j, "Removed job %s (%s).", j.ID, j.Command)
}

func (f *flags) run(cmd *cobra.Command, args []string) error {
	c, path, err := f.open(args...)
	if err != nil {
		return err
	}
	var dyno struct {
		Name    string `json:"name"`
		Command string `json:"command"`
	}
	if err := c.Call(cmd.Context(), "POST", path+"/actions/run", nil, &dyno); err != nil {
		return err
	}
	return f.print(cmd.OutOrStdout(), dyno, "Running %s on %s. Follow it: heroku logs --tail --dyno %s -a %s", dyno.Command, dyno.Name, dyno.Name, f.app)
}
