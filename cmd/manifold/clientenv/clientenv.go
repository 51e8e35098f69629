// Package clientenv makes the environment in which the unmodified heroku CLI
// and git talk to this instance. It reads the coordinator's first token and CA
// certificate and writes one bundle of certificates; it must never contact
// anything.
package clientenv

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"manifold"
)

// Var is one variable.
type Var struct{ Name, Value string }

// Make returns the variables in the order they are printed, without a token
// where there is only the CA of a coordinator elsewhere. It writes
// $MANIFOLD_HOME/client/ca-bundle.pem.
func Make(s manifold.Settings) ([]Var, error) {
	token, err := Token(s)
	if _, known := os.Stat(filepath.Join(s.Home, "coordinator", "ca.pem")); errors.Is(err, fs.ErrNotExist) && known == nil {
		token, err = "", nil // the coordinator is another machine's: see manifold proxy
	}
	if err != nil {
		return nil, err
	}
	bundle, err := writeBundle(s)
	if err != nil {
		return nil, err
	}
	s.APIAddr, s.TLSAddr = dialable(s.APIAddr), dialable(s.TLSAddr)
	api := "http://" + s.APIAddr
	direct := noProxy(host(s.APIAddr))
	vars := []Var{{"HEROKU_HOST", api}}
	if token != "" {
		vars = append(vars, Var{"HEROKU_API_KEY", token})
	}
	vars = append(vars, []Var{
		{"HEROKU_PARTICLEBOARD_URL", api}, // else each `GET /account` sends the token to a public host
		{"HEROKU_GIT_HOST", s.TLSAddr},
		{"HEROKU_DATA_HOST", host(s.APIAddr)},
		{"HEROKU_LOGIN_HOST", api},
		{"HEROKU_BUILDPACK_REGISTRY_URL", api},
		{"HEROKU_STATUS_HOST", api},
		{"HEROKU_EXEC_URL", "https://" + s.TLSAddr},
		{"DISABLE_TELEMETRY", "true"},              // else the token goes to public analytics
		{"HEROKU_ANALYTICS_URL", api + "/healthz"}, // the same of CLIs before 11, which heed only this; it says ok to all
		{"HEROKU_SKIP_NEW_VERSION_CHECK", "true"},
		{"HEROKU_DISABLE_AUTOUPDATE", "1"},
		{"HEROKU_NETRC_WRITE", "true"},
		{"NO_PROXY", direct},
		{"no_proxy", direct}, // git and curl heed this one first
		{"NODE_EXTRA_CA_CERTS", bundle},
		{"GIT_SSL_CAINFO", bundle},
	}...)
	return append(vars, gitSettings(s.TLSAddr)...), nil
}

// Token reads the first user's API token.
func Token(s manifold.Settings) (string, error) {
	path := filepath.Join(s.Home, "coordinator", "first-token")
	text, err := readBounded(path)
	switch {
	case os.IsNotExist(err):
		return "", fmt.Errorf("there is no API token at %s yet: start the platform first (manifold run), and use the same MANIFOLD_HOME: %w", path, fs.ErrNotExist)
	case os.IsPermission(err):
		return "", fmt.Errorf("the API token at %s may be read by root only: run this as root", path)
	case err != nil:
		return "", fmt.Errorf("read the API token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// Print writes the variables as shell exports.
func Print(w io.Writer, vars []Var) error {
	for _, v := range vars {
		if _, err := fmt.Fprintf(w, "export %s=%s\n", v.Name, quote(v.Value)); err != nil {
			return err
		}
	}
	return nil
}

// quote makes one word for a POSIX shell.
func quote(s string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_./:,@%+=", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// noProxy adds our names to what the environment already exempts.
func noProxy(api string) string {
	var names []string
	exempt := strings.FieldsFunc(os.Getenv("NO_PROXY")+","+os.Getenv("no_proxy"), func(r rune) bool { return r == ',' || r == ' ' })
	for _, name := range append(exempt, "localhost", "127.0.0.1", api) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// dialable is an address as a client on this machine writes it: a door that is
// open on all of its addresses has localhost in its certificate, and is one the
// heroku CLI sends its token to.
func dialable(addr string) string {
	h, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(h); h == "" || ip.IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return addr
}

func host(addr string) string {
	h, _, err := net.SplitHostPort(addr)
	if err != nil || h == "" {
		return "localhost"
	}
	return h
}

// maxFile bounds what is read of any one file: a system's bundle of
// certificates is about 250 KB.
const maxFile = 8 << 20

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes: %w", path, maxFile, fs.ErrInvalid)
	}
	return text, nil
}
