package clientenv

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"manifold"
)

// settings returns an instance whose coordinator has started once.
func settings(t *testing.T) (s manifold.Settings, ca []byte) {
	t.Helper()
	s = manifold.Settings{Home: t.TempDir(), APIAddr: "localhost:5000", TLSAddr: "localhost:5443"}
	dir := filepath.Join(s.Home, "coordinator")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ca = certificate(t)
	put(t, filepath.Join(dir, "ca.pem"), ca)
	put(t, filepath.Join(dir, "first-token"), []byte("secret 'token'\n"))
	return s, ca
}

func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func certificate(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// A shell that reads what is printed has exactly these values.
func TestShellReadsWhatIsPrinted(t *testing.T) {
	s, _ := settings(t)
	t.Setenv("NO_PROXY", "10.0.0.0/8, internal")
	t.Setenv("no_proxy", "internal,.corp")
	vars, err := Make(s)
	if err != nil {
		t.Fatal(err)
	}
	var script bytes.Buffer
	if err := Print(&script, vars); err != nil {
		t.Fatal(err)
	}
	for _, v := range vars {
		script.WriteString("printf '%s\\0' \"$" + v.Name + "\"\n")
	}
	out, err := exec.Command("sh", "-euc", script.String()).Output()
	if err != nil {
		t.Fatal(err)
	}
	values := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	byName := map[string]string{}
	for i, v := range vars {
		if values[i] != v.Value {
			t.Errorf("%s: the shell has %q, want %q", v.Name, values[i], v.Value)
		}
		byName[v.Name] = v.Value
	}
	for name, want := range map[string]string{
		"HEROKU_HOST":     "http://localhost:5000",
		"HEROKU_API_KEY":  "secret 'token'",
		"HEROKU_GIT_HOST": "localhost:5443",
		"HEROKU_EXEC_URL": "https://localhost:5443",
		"NO_PROXY":        "10.0.0.0/8,internal,.corp,localhost,127.0.0.1",
	} {
		if byName[name] != want {
			t.Errorf("%s is %q, want %q", name, byName[name], want)
		}
	}
}

// On the machine of a coordinator that others reach, whose doors are open on all
// addresses, clients are led to localhost: no certificate names 0.0.0.0.
func TestDoorsOpenForOthers(t *testing.T) {
	s, _ := settings(t)
	t.Setenv("GIT_CONFIG_COUNT", "")
	for _, at := range []string{"0.0.0.0", "[::]", ""} {
		s.APIAddr, s.TLSAddr = at+":5000", at+":5443"
		vars, err := Make(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range vars {
			want, ok := map[string]string{
				"HEROKU_HOST": "http://localhost:5000", "HEROKU_GIT_HOST": "localhost:5443", "HEROKU_EXEC_URL": "https://localhost:5443",
				"HEROKU_DATA_HOST": "localhost", "GIT_CONFIG_KEY_0": "credential.https://localhost:5443.helper",
			}[v.Name]
			if ok && v.Value != want {
				t.Errorf("on %q %s is %q, want %q", at, v.Name, v.Value, want)
			}
		}
	}
	s.TLSAddr = "10.0.0.1:5443"
	if vars, err := Make(s); err != nil || !slices.Contains(vars, Var{"HEROKU_GIT_HOST", "10.0.0.1:5443"}) {
		t.Errorf("of one address: %v, %v", vars, err)
	}
}

// Behind a proxy git comes to us past it, also where no_proxy is written small:
// curl, which git is made of, heeds that one first.
func TestPastTheProxy(t *testing.T) {
	s, _ := settings(t)
	asked := make(chan string, 10)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.Host
		w.WriteHeader(http.StatusForbidden)
	}))
	defer proxy.Close()
	for _, v := range []Var{{"http_proxy", proxy.URL}, {"https_proxy", proxy.URL}, {"no_proxy", "internal"}, {"NO_PROXY", ""}, {"GIT_CONFIG_GLOBAL", "/dev/null"}, {"GIT_CONFIG_SYSTEM", "/dev/null"}} {
		t.Setenv(v.Name, v.Value)
	}
	s.TLSAddr = "localhost:1" // where nobody is
	vars, err := Make(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vars {
		t.Setenv(v.Name, v.Value)
	}
	out, err := exec.Command("git", "ls-remote", "https://"+s.TLSAddr+"/hello.git").CombinedOutput()
	if err == nil || len(asked) > 0 {
		t.Errorf("git asked the proxy for us (%d times): %s", len(asked), out)
	}
}

// Git has the password for our address and for no other, keeps the settings
// the user made, and gets no more of them by being told again.
func TestGitIsToldThePassword(t *testing.T) {
	s, _ := settings(t)
	for _, v := range []Var{{"GIT_CONFIG_COUNT", "1"}, {"GIT_CONFIG_KEY_0", "user.name"}, {"GIT_CONFIG_VALUE_0", "Ada"}, {"GIT_TERMINAL_PROMPT", "0"}, {"GIT_CONFIG_GLOBAL", "/dev/null"}, {"GIT_CONFIG_SYSTEM", "/dev/null"}} {
		t.Setenv(v.Name, v.Value)
	}
	for range 2 {
		vars, err := Make(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range vars {
			t.Setenv(v.Name, v.Value)
		}
	}
	git := func(input string, args ...string) string {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Stdin = t.TempDir(), strings.NewReader(input)
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	if out := git("protocol=https\nhost=localhost:5443\n\n", "credential", "fill"); !strings.Contains(out, "\npassword=secret 'token'\n") {
		t.Errorf("for our address git has: %s", out)
	}
	if out := git("protocol=https\nhost=localhost:5444\n\n", "credential", "fill"); strings.Contains(out, "secret") {
		t.Errorf("for another address git has: %s", out)
	}
	if out := git("", "config", "user.name"); out != "Ada\n" || os.Getenv("GIT_CONFIG_COUNT") != "2" {
		t.Errorf("the user's setting is %q, with %s of them in all", out, os.Getenv("GIT_CONFIG_COUNT"))
	}
}

// The bundle keeps what the user trusted, holds no key, and does not grow when
// the environment already points at it.
func TestBundleKeepsWhatTheUserTrusts(t *testing.T) {
	s, ca := settings(t)
	own := certificate(t)
	user := filepath.Join(t.TempDir(), "user.pem")
	put(t, user, append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("private")}), own...))
	t.Setenv("NODE_EXTRA_CA_CERTS", user)
	t.Setenv("GIT_SSL_CAINFO", "")
	t.Setenv("SSL_CERT_FILE", filepath.Join(t.TempDir(), "not there"))

	path, err := writeBundle(s)
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(first, own) || !bytes.HasPrefix(first, ca) {
		t.Error("the bundle lacks the user's certificate or ours")
	}
	if bytes.Contains(first, []byte("PRIVATE KEY")) {
		t.Error("a private key was copied into the bundle")
	}
	t.Setenv("NODE_EXTRA_CA_CERTS", path)
	t.Setenv("GIT_SSL_CAINFO", path)
	if _, err := writeBundle(s); err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Errorf("the bundle changed from %d to %d bytes by being used", len(first), len(second))
	}
}

// Before the first start there is nothing to print, and a sentence says so.
func TestNotStartedYet(t *testing.T) {
	_, err := Make(manifold.Settings{Home: t.TempDir(), APIAddr: "localhost:5000"})
	if err == nil || !strings.Contains(err.Error(), "start the platform first") {
		t.Errorf("error is %v", err)
	}
}
