package main

import (
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"manifold"
	"manifold/cmd/manifold/apiclient"
)

// auditEntry is one entry as the API shows it.
type auditEntry struct {
	Seq       int64     `json:"seq"`
	CreatedAt time.Time `json:"created_at"`
	User      struct {
		Email string `json:"email"`
	} `json:"user"`
	Action        string `json:"action"`
	From          string `json:"from"`
	RequestID     string `json:"request_id"`
	Authorization struct {
		ID string `json:"id"`
	} `json:"authorization"`
}

func auditCommand(settings manifold.Settings) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "audit [APP]",
		Short: "Print who changed what of an app, or of your account",
		Long: `Print who changed what of an app, when and from where, oldest first. Without
an app: what you did to your account, its tokens and keys, and which apps you
created and destroyed. The newest 200 entries of each are kept.

It speaks to HEROKU_HOST with the token of HEROKU_API_KEY or ~/.netrc, as the
heroku CLI does; without them to this machine's platform, as its first user.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "/account/audit"
			if len(args) == 1 {
				path = "/apps/" + url.PathEscape(args[0]) + "/audit"
			}
			client, err := apiclient.New(settings)
			if err != nil {
				return err
			}
			entries := []auditEntry{}
			if err := client.Call(cmd.Context(), http.MethodGet, path, nil, &entries); err != nil {
				return fmt.Errorf("read the audit trail: %w", err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), entries)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "WHEN\tWHO\tFROM\tWHAT")
			for _, e := range entries {
				fmt.Fprintf(w, "%s\t%s\t%s\t%q\n", e.CreatedAt.Local().Format(time.DateTime), e.User.Email, e.From, e.Action)
			}
			return w.Flush()
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
