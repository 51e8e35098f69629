package compiler

import (
	"bytes"
	"errors"
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
//
// It walks the nodes itself: decoding into a map takes time and memory that
// grow with the square of the number of repeated keys, and a stranger wrote
// this.
func parseRelease(text []byte) (map[string]string, error) {
	if len(text) > maxRelease {
		return nil, fmt.Errorf("the buildpack's bin/release printed more than %d KB", maxRelease>>10)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("the buildpack's bin/release did not print the YAML it must: %s", clip(err.Error()))
	}
	if len(document.Content) == 0 || isNull(document.Content[0]) {
		return nil, nil
	}
	bad := func(err error) error { return fmt.Errorf("the buildpack's bin/release cannot be used: %w", err) }
	release, err := pairs(document.Content[0])
	if err != nil {
		return nil, bad(err)
	}
	named, ok := release["default_process_types"]
	if !ok || isNull(named) {
		return nil, nil
	}
	processes, err := pairs(named)
	if err != nil {
		return nil, bad(fmt.Errorf("default_process_types: %w", err))
	}
	types := map[string]string{}
	for name, command := range processes {
		if command.Kind != yaml.ScalarNode {
			return nil, bad(fmt.Errorf("the command of %s is no text", clip(name)))
		}
		if err := checkProcess(name, command.Value); err != nil {
			return nil, bad(err)
		}
		types[name] = command.Value
	}
	return types, nil
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// pairs reads a mapping of at most MaxProcessTypes scalar keys, each once.
func pairs(n *yaml.Node) (map[string]*yaml.Node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, errors.New("it must be a map")
	}
	if len(n.Content)/2 > MaxProcessTypes {
		return nil, fmt.Errorf("it names %d entries; at most %d are allowed", len(n.Content)/2, MaxProcessTypes)
	}
	all := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode {
			return nil, errors.New("its keys must be text")
		}
		if all[key.Value] != nil {
			return nil, fmt.Errorf("it names %s twice", clip(key.Value))
		}
		all[key.Value] = n.Content[i+1]
	}
	return all, nil
}

// clip keeps a stranger's text short in an error message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
