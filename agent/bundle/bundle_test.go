package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"manifold"
	"manifold/agent"
)

// planted are secrets as they lie on a host; the last has whatever breaks a
// quoted string.
var planted = map[string]string{
	"DATABASE_URL":  "postgres://u123:hunter2-hunter2@db.example/x",
	"API_TOKEN":     "tok_51HxAbCdEfGhIjKl",
	"SHORT":         "pa55",
	"MULTI_LINE":    "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nqwertzuiopasdfghjklyxcv\n-----END KEY-----\n",
	"AWFUL <&> KEY": `quo"te\back<slash>&more` + "\ttab",
}

func TestBundleHoldsNoSecrets(t *testing.T) {
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	write := func(path string, text []byte) {
		t.Helper()
		path = filepath.Join(home, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	encode := func(v any) []byte {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	const key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n-----END PRIVATE KEY-----\n"
	as := manifold.Assignment{ID: "11111111-1111-4111-8111-111111111111", AppName: "hello", Dyno: "web.1", Command: "serve --key " + planted["API_TOKEN"], Env: planted}
	write("agent/dynos/"+as.ID+"/record.json", encode(map[string]any{"version": 1, "assignment": as}))
	write("agent/dynos/22222222-2222-4222-8222-222222222222/record.json", []byte(`{"assignment":{"env":{"TORN":"torn-secret-value`))
	write("agent/desired.json", encode(manifold.Desired{Assignments: []manifold.Assignment{as}, Execs: []manifold.Exec{{Env: map[string]string{"X": "exec-secret-1"}}}}))
	write("agent/identity.json", encode(manifold.Identity{ID: "h", Key: key}))
	write("agent/runs/"+as.ID+"/box.json", []byte(`{"run":"x"}`))
	write("coordinator/join-token", []byte("joinsecretjoinsecret.0011223344\n"))
	write("coordinator/first-token", []byte("HRKU-first-token-abcdefgh\n"))
	log := "a line that stays\n" + key + "Authorization: Bearer abcdefghijkl\nsecret=whatever-it-is password: \"hunter3\" https://joe:letmein@example.com/\n" +
		"joinsecretjoinsecret HRKU-first-token-abcdefgh exec-secret-1\n"
	for _, v := range planted {
		if len(v) >= minSecret {
			log += v + "\n" + string(encode(v)) + "\n" + url.QueryEscape(v) + "\n" + base64.StdEncoding.EncodeToString([]byte(v)) + "\n"
		}
	}
	write("log/agent.log", []byte(log))
	write("agent/runs/"+as.ID+"/pid1/log/00000001", []byte("what the app logged"))

	var out bytes.Buffer
	err := Write(t.Context(), &out, Config{Version: "v1", Agent: agent.Config{
		Settings: manifold.Settings{Home: home, Run: filepath.Join(dir, "run"), Instance: "bundlet"},
		Pool:     netip.MustParsePrefix("172.27.250.0/24"), UIDBase: 2_110_000_000, JoinTokenFile: filepath.Join(home, "coordinator/join-token"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	files := unpack(t, &out)
	secrets := []string{
		key[40:70], "abcdefghijkl", "whatever-it-is", "hunter3", "letmein", "joinsecretjoinsecret", "HRKU-first", "exec-secret-1", "torn-secret-value",
		"hunter2-hunter2", "tok_51Hx", "pa55", "qwertzuiop", "MIIEvQIBADANBgkqhkiG9w0BAQ", `quo"te`, `quo\"te`, "back<slash>", "back%3Cslash", `back\u003cslash`,
		"what the app logged",
	}
	for _, v := range planted {
		secrets = append(secrets, base64.RawStdEncoding.EncodeToString([]byte(v)), url.QueryEscape(v))
	}
	for name, text := range files {
		for _, secret := range secrets {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s holds %q: …%q…", name, secret, text[max(0, i-40):min(len(text), i+80)])
			}
		}
	}
	for name, want := range map[string]string{
		"logs/agent.log": "a line that stays", "about.json": `"version": "v1"`, "doctor/findings.json": "agent-down", "records/desired.json": `"DATABASE_URL": "[removed]"`,
		"records/dynos/" + as.ID + "/record.json": "serve --key [removed]", "kernel/meminfo": "MemTotal", "records/dynos/22222222-2222-4222-8222-222222222222/record.json": "not JSON",
		"missing.txt": "agent/health.json",
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s lacks %q: %.300q", name, want, files[name])
		}
	}
	t.Logf("%d files, %d secrets looked for", len(files), len(secrets))
}

func unpack(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	packed, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for in := tar.NewReader(packed); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, "manifold-bundle/")] = string(text)
	}
}

// TestFullBundleStillSaysWhatIsMissing: one text too large for what room there
// is keeps no smaller one out.
func TestFullBundleStillSaysWhatIsMissing(t *testing.T) {
	var packed bytes.Buffer
	o := &writer{tar: tar.NewWriter(&packed), scrub: newScrubber(), total: maxTotal - 1000}
	o.add("large.json", make([]byte, 2000))
	o.add("missing.txt", []byte("large.json"))
	if len(o.missing) != 1 || !strings.Contains(packed.String(), "missing.txt") {
		t.Errorf("missing are %q", o.missing)
	}
}
