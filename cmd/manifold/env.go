package main

import (
	"github.com/spf13/cobra"

	"manifold"
	"manifold/cmd/manifold/clientenv"
)

func envCommand(settings manifold.Settings) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print the shell exports that aim the heroku CLI and git at this instance",
		Long: `Print the shell exports that aim the heroku CLI and git at this instance:

    eval "$(manifold env)"

The token in it is the first user's. Certificates that the environment already
trusts (NODE_EXTRA_CA_CERTS, GIT_SSL_CAINFO, SSL_CERT_FILE) stay trusted.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			vars, err := clientenv.Make(settings)
			if err != nil {
				return err
			}
			if asJSON {
				m := make(map[string]string, len(vars))
				for _, v := range vars {
					m[v.Name] = v.Value
				}
				return printJSON(cmd.OutOrStdout(), m)
			}
			return clientenv.Print(cmd.OutOrStdout(), vars)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
