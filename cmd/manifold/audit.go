package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"manifold"
	"manifold/cmd/manifold/clientenv"
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

The token is HEROKU_API_KEY, or the first user's.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "/account/audit"
			if len(args) == 1 {
				path = "/apps/" + url.PathEscape(args[0]) + "/audit"
			}
			entries, err := readAudit(cmd, settings, path)
			if err != nil {
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

func readAudit(cmd *cobra.Command, settings manifold.Settings, path string) ([]auditEntry, error) {
	token := os.Getenv("HEROKU_API_KEY")
	if token == "" {
		var err error
		if token, err = clientenv.Token(settings); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, "http://"+settings.APIAddr+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/vnd.heroku+json; version=3")
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Range", "seq ..; max=1000")
	client := &http.Client{Transport: &http.Transport{Proxy: nil}, Timeout: 30 * time.Second}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("is the coordinator running? %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return nil, err
	}
	if res.StatusCode/100 != 2 {
		var failure manifold.ErrorBody
		_ = json.Unmarshal(text, &failure) // a body of another form leaves the status to speak
		return nil, fmt.Errorf("%s", cmp.Or(failure.Message, res.Status))
	}
	var entries []auditEntry
	return entries, json.Unmarshal(text, &entries)
}
