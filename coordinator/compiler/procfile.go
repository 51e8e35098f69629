package compiler

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"manifold"
)

// MaxProcessTypes is how many process types one slug may have.
const MaxProcessTypes = 100

// ParseProcfile reads a Procfile: one "name: command" a line, blank lines and
// # comments, any of Unix and Windows line ends, maybe a byte order mark. Its
// error names the line and is meant for the person who wrote it.
func ParseProcfile(text []byte) (map[string]string, error) {
	if len(text) > manifold.MaxProcfile {
		return nil, fmt.Errorf("Procfile is larger than %d KB", manifold.MaxProcfile>>10)
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	types := map[string]string{}
	first := map[string]int{} // type → line
	number := 0
	for raw := range bytes.Lines(text) {
		number++
		line := strings.TrimSpace(string(raw))
		if line == "" || line[0] == '#' {
			continue
		}
		bad := func(why string) error { return fmt.Errorf("Procfile line %d: %q %s", number, clip(line), why) }
		name, command, ok := strings.Cut(line, ":")
		name, command = strings.TrimSpace(name), strings.TrimSpace(command)
		if !ok {
			return nil, bad("is not of the form  name: command")
		}
		if err := checkProcess(name, command); err != nil {
			return nil, bad("cannot be used: " + err.Error())
		}
		if before := first[name]; before != 0 {
			return nil, bad(fmt.Sprintf("declares process type %s again; line %d has it already", name, before))
		}
		first[name], types[name] = number, command
	}
	if len(types) > MaxProcessTypes {
		return nil, fmt.Errorf("Procfile declares %d process types; at most %d are allowed", len(types), MaxProcessTypes)
	}
	return types, nil
}

func checkProcess(name, command string) error {
	if err := manifold.CheckProcessType(name); err != nil {
		return err
	}
	switch {
	case command == "":
		return fmt.Errorf("process type %s has no command", name)
	case len(command) > manifold.MaxCommand:
		return fmt.Errorf("the command of %s is longer than %d KB", name, manifold.MaxCommand>>10)
	case strings.ContainsRune(command, 0):
		return fmt.Errorf("the command of %s holds a NUL byte", name)
	case !utf8.ValidString(command):
		return fmt.Errorf("the command of %s is not valid UTF-8", name)
	}
	return nil
}

// maxRelease bounds what bin/release may print.
const maxRelease = 64 << 10

// parseRelease reads the YAML that a buildpack's bin/release printed and
// returns its default process types. Everything else in it (add-ons, config
// vars) has no meaning here.
func parseRelease(text []byte) (map[string]string, error) {
	if len(text) > maxRelease {
		return nil, fmt.Errorf("the buildpack's bin/release printed more than %d KB", maxRelease>>10)
	}
	var release struct {
		Types map[string]string `yaml:"default_process_types"`
	}
	if err := yaml.Unmarshal(text, &release); err != nil {
		return nil, fmt.Errorf("the buildpack's bin/release did not print the YAML it must: %w", err)
	}
	if len(release.Types) > MaxProcessTypes {
		return nil, fmt.Errorf("the buildpack's bin/release names %d process types; at most %d are allowed", len(release.Types), MaxProcessTypes)
	}
	for name, command := range release.Types {
		if err := checkProcess(name, command); err != nil {
			return nil, fmt.Errorf("the buildpack's bin/release cannot be used: %w", err)
		}
	}
	return release.Types, nil
}

// clip keeps a stranger's text short in an error message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
