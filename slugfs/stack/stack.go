// Package stack makes the images dynos stand on, from Debian packages: a run
// layer (base system, language runtimes) and a build layer on top of it
// (compilers, headers, package managers).
//
// A stack is a recipe in this package and nothing else: it must never hold a
// file of the machine it is built on (certificates, resolvers, apt's sources),
// and it never changes once built: another recipe is another image.
package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"time"

	"manifold"
)

// Stack is a stack as built. It is kept as <name>.json beside its images,
// written after them, so that a stack that can be read can be run.
type Stack struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Recipe is the digest of all the stack was made from, but for the
	// packages' versions: building again takes newer ones only when forced
	// by removing <name>.json.
	Recipe   string            `json:"recipe"`
	Run      []manifold.Image  `json:"run"`   // layers of a dyno, top first
	Build    []manifold.Image  `json:"build"` // layers of a build, top first
	BuiltAt  time.Time         `json:"built_at"`
	Packages map[string]string `json:"packages"` // Debian package → version
}

// Load lists the stacks in dir by name. A directory that is not there has
// none.
func Load(dir string) ([]Stack, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("load stacks: %w", err)
	}
	var stacks []Stack
	for _, path := range paths {
		s, err := load(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		stacks = append(stacks, s)
	}
	sort.Slice(stacks, func(i, j int) bool { return stacks[i].Name < stacks[j].Name })
	return stacks, nil
}

func load(path string) (Stack, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Stack{}, fmt.Errorf("load stack: %w", err)
	}
	var s Stack
	if err := json.Unmarshal(text, &s); err != nil {
		return Stack{}, fmt.Errorf("load stack %s: %w; remove the file and build the stack again", path, err)
	}
	return s, nil
}

// save writes the stack's record, whole or not at all.
func save(dir string, s Stack) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, "new-json-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(append(text, '\n'))
	if err := errors.Join(err, file.Chmod(0o644), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), filepath.Join(dir, s.Name+".json"))
}
