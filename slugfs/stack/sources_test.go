package stack

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSources(t *testing.T) {
	const keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
	for name, c := range map[string]struct {
		files     map[string]string
		backports bool
		want      []string
	}{
		"one-line form": {
			files: map[string]string{"sources.list": `
# deb http://commented.example/debian bookworm main
deb http://mirror.example/debian bookworm main contrib non-free-firmware # the mirror
deb-src http://mirror.example/debian bookworm main
deb	http://tabs.example/debian bookworm-updates main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://security.example/s bookworm-security main
deb http://mirror.example/debian trixie main
deb cdrom
`},
			want: []string{
				"deb " + keyring + "http://mirror.example/debian bookworm main",
				"deb " + keyring + "http://tabs.example/debian bookworm-updates main",
				"deb " + keyring + "http://security.example/s bookworm-security main",
			},
		},
		"deb822 form": {
			files: map[string]string{"sources.list.d/debian.sources": `Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

# a stanza that is off
Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
`},
			want: []string{
				"deb " + keyring + "http://mirror.example/debian bookworm main",
				"deb " + keyring + "http://mirror.example/debian bookworm-updates main",
			},
		},
		"backports come from the same mirror": {
			files:     map[string]string{"sources.list": "deb http://mirror.example/debian bookworm main\n"},
			backports: true,
			want: []string{
				"deb " + keyring + "http://mirror.example/debian bookworm main",
				"deb " + keyring + "http://mirror.example/debian bookworm-backports main",
			},
		},
		"backports that are there stay": {
			files:     map[string]string{"sources.list": "deb http://b.example/debian bookworm-backports main\ndeb http://mirror.example/debian bookworm main\n"},
			backports: true,
			want: []string{
				"deb " + keyring + "http://b.example/debian bookworm-backports main",
				"deb " + keyring + "http://mirror.example/debian bookworm main",
			},
		},
		"third parties are left out": {
			files: map[string]string{
				"sources.list":                      "deb [trusted=yes] http://mirror.example/debian bookworm main\n",
				"sources.list.d/other.list":         "deb [signed-by=/usr/share/keyrings/other.gpg] http://other.example bookworm main\n",
				"sources.list.d/stable.sources":     "Types: deb\nURIs: http://other.example\nSuites: bookworm\nComponents: stable\n",
				"sources.list.d/off.list.disabled":  "deb http://disabled.example/debian bookworm main\n",
				"sources.list.d/inline-key.sources": "Types: deb\nURIs: http://other.example\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n",
			},
			want: []string{"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg trusted=yes] http://mirror.example/debian bookworm main"},
		},
		"no Debian":  {files: map[string]string{"sources.list": "deb http://other.example/ubuntu noble main\n"}},
		"no sources": {},
	} {
		t.Run(name, func(t *testing.T) {
			etc := t.TempDir()
			if err := os.Mkdir(filepath.Join(etc, "sources.list.d"), 0o755); err != nil {
				t.Fatal(err)
			}
			for file, text := range c.files {
				if err := os.WriteFile(filepath.Join(etc, file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			found, err := sources(etc, "bookworm", c.backports)
			if c.want == nil {
				if err == nil || !strings.Contains(err.Error(), "/etc/apt/sources.list") {
					t.Fatalf("got %v, want an error that says where to put a mirror", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range found {
				got = append(got, a.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}
