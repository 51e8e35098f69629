package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"manifold"
	"manifold/cmd/manifold/proxy"
)

func proxyCommand(settings manifold.Settings) *cobra.Command {
	var ca string
	cmd := &cobra.Command{
		Use:   "proxy HOST",
		Short: "Bring a coordinator on another machine to this one's loopback, over TLS",
		Long: `Bring a coordinator on another machine to this one's loopback, over TLS, for as
long as it runs: the heroku CLI sends its token to localhost only.

It needs the coordinator's CA certificate, which its operator gives out
($MANIFOLD_HOME/coordinator/ca.pem there), in the same place below this
machine's MANIFOLD_HOME, or named with --ca. It listens on MANIFOLD_API_ADDR,
MANIFOLD_TLS_ADDR and MANIFOLD_ATTACH_ADDR and leads to the same ports of HOST,
where the coordinator must listen for others: MANIFOLD_TLS_ADDR=0.0.0.0:5443.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if ca == "" {
				ca = filepath.Join(settings.Home, "coordinator", "ca.pem")
			}
			cfg, err := proxyTo(settings, args[0], ca)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "http://%s leads to the coordinator on %s. Ctrl-C ends it.\nIn another terminal, with the same MANIFOLD_HOME: eval \"$(manifold env)\"\n", settings.APIAddr, args[0])
			return proxy.Run(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&ca, "ca", "", "`file` of the coordinator's CA certificate")
	return cmd
}

func proxyTo(s manifold.Settings, host, ca string) (cfg proxy.Config, err error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return cfg, fmt.Errorf("read the coordinator's CA certificate: %w", err)
	}
	cfg = proxy.Config{CA: x509.NewCertPool(), Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if !cfg.CA.AppendCertsFromPEM(pem) {
		return cfg, fmt.Errorf("there is no certificate in %s", ca)
	}
	for _, door := range []struct {
		addr   string
		at     *net.Listener
		remote *string
	}{{s.APIAddr, &cfg.API, nil}, {s.TLSAddr, &cfg.TLS, &cfg.RemoteTLS}, {s.AttachAddr, &cfg.Attach, &cfg.RemoteAttach}} {
		l, err := proxy.Listen(door.addr)
		if err != nil {
			return cfg, errors.Join(err, cfg.Close())
		}
		*door.at = l
		if door.remote != nil {
			_, port, err := net.SplitHostPort(l.Addr().String())
			if err != nil {
				return cfg, errors.Join(err, cfg.Close())
			}
			*door.remote = net.JoinHostPort(host, port)
		}
	}
	return cfg, nil
}
