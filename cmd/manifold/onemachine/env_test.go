package onemachine

import (
	"os"
	"path/filepath"
	"testing"
)

// Builds trust the file the host trusts, whatever its name is: ca-bundle.pem is a
// common one. That of manifold env is left out.
func TestBuildCA(t *testing.T) {
	dir := t.TempDir()
	theirs, ours := filepath.Join(dir, "ca-bundle.pem"), filepath.Join(dir, "client", "ca-bundle.pem")
	if err := os.Mkdir(filepath.Dir(ours), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{theirs, ours} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SSL_CERT_FILE", theirs)
	t.Setenv("NODE_EXTRA_CA_CERTS", ours)
	if got := buildCA(); got != theirs {
		t.Errorf("builds get %q, want %q", got, theirs)
	}
	t.Setenv("SSL_CERT_FILE", "")
	if got := buildCA(); got == ours {
		t.Errorf("builds get %q, which manifold env made", got)
	}
}
