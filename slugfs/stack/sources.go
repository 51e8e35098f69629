package stack

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// archive is one line of sources.list(5): the machine's own mirror of Debian.
type archive struct {
	URI, Suite string
	Components []string
	SignedBy   string
	Trusted    bool
}

const debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

func (a archive) String() string {
	options := "signed-by=" + a.SignedBy
	if a.Trusted {
		options += " trusted=yes"
	}
	return fmt.Sprintf("deb [%s] %s %s %s", options, a.URI, a.Suite, strings.Join(a.Components, " "))
}

// Sources is the sources.list(5) by which this machine gets Debian's suite.
func Sources(suite string) (string, error) {
	archives, err := sources("/etc/apt", suite, false)
	var list strings.Builder
	for _, a := range archives {
		fmt.Fprintln(&list, a)
	}
	return list.String(), err
}

// sources finds where this machine gets Debian's suite from: what apt reads
// below etc (/etc/apt), both forms. Third parties' archives are left out:
// they are signed by other keys or have no "main".
func sources(etc, suite string, backports bool) ([]archive, error) {
	paths, err := filepath.Glob(filepath.Join(etc, "sources.list.d", "*"))
	if err != nil {
		return nil, err
	}
	var found []archive
	for _, path := range append([]string{filepath.Join(etc, "sources.list")}, paths...) {
		parse := map[string]func(io.Reader) []archive{".list": parseList, ".sources": parseDeb822}[filepath.Ext(path)]
		if parse == nil {
			continue
		}
		file, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read apt's sources: %w", err)
		}
		found = append(found, parse(file)...)
		file.Close()
	}
	return choose(found, suite, backports)
}

// choose keeps the archives of the suite, its updates and security updates,
// and adds backports at the address of the suite itself.
func choose(all []archive, suite string, backports bool) ([]archive, error) {
	wanted := []string{suite, suite + "-updates", suite + "-security"}
	if backports {
		wanted = append(wanted, suite+"-backports")
	}
	var chosen []archive
	has := map[string]bool{}
	for _, a := range all {
		if a.SignedBy == "" {
			a.SignedBy = debianKeyring
		}
		if !slices.Contains(wanted, a.Suite) || !slices.Contains(a.Components, "main") || filepath.Base(a.SignedBy) != filepath.Base(debianKeyring) {
			continue
		}
		a.Components = []string{"main"}
		chosen = append(chosen, a)
		has[a.Suite] = true
	}
	if !has[suite] {
		return nil, fmt.Errorf("apt on this machine knows no archive of Debian %s: add \"deb <mirror> %s main\" to /etc/apt/sources.list", suite, suite)
	}
	if backports && !has[suite+"-backports"] {
		i := slices.IndexFunc(chosen, func(a archive) bool { return a.Suite == suite })
		more := chosen[i]
		more.Suite = suite + "-backports"
		chosen = append(chosen, more)
	}
	return chosen, nil
}

// parseList reads one-line entries: deb [option=value …] uri suite component…
func parseList(r io.Reader) []archive {
	var found []archive
	for lines := bufio.NewScanner(r); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if fields := strings.Fields(line); len(fields) == 0 || fields[0] != "deb" {
			continue
		}
		var a archive
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "deb"))
		if rest, ok := strings.CutPrefix(line, "["); ok {
			options, after, _ := strings.Cut(rest, "]")
			line = after
			for _, option := range strings.Fields(options) {
				key, value, _ := strings.Cut(option, "=")
				a.set(key, value)
			}
		}
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		a.URI, a.Suite, a.Components = fields[0], fields[1], fields[2:]
		found = append(found, a)
	}
	return found
}

// parseDeb822 reads stanzas of "Key: value"; a line that begins with a blank
// goes on with the value before it.
func parseDeb822(r io.Reader) []archive {
	var found []archive
	stanza, last := map[string]string{}, ""
	flush := func() {
		found = append(found, fromStanza(stanza)...)
		stanza, last = map[string]string{}, ""
	}
	for lines := bufio.NewScanner(r); lines.Scan(); {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			stanza[last] += " " + strings.TrimSpace(line)
		default:
			key, value, _ := strings.Cut(line, ":")
			last = strings.ToLower(key)
			stanza[last] = strings.TrimSpace(value)
		}
	}
	flush()
	return found
}

func fromStanza(stanza map[string]string) []archive {
	if strings.EqualFold(stanza["enabled"], "no") || !slices.Contains(strings.Fields(stanza["types"]), "deb") {
		return nil
	}
	var found []archive
	for _, uri := range strings.Fields(stanza["uris"]) {
		for _, suite := range strings.Fields(stanza["suites"]) {
			a := archive{URI: uri, Suite: suite, Components: strings.Fields(stanza["components"])}
			a.set("signed-by", stanza["signed-by"])
			a.set("trusted", stanza["trusted"])
			found = append(found, a)
		}
	}
	return found
}

func (a *archive) set(key, value string) {
	switch strings.ToLower(key) {
	case "signed-by":
		a.SignedBy = value
	case "trusted":
		a.Trusted = strings.EqualFold(value, "yes")
	}
}
