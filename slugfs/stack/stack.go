// Package stack makes the stack images dynos stand on, from Debian packages.
package stack

import (
	"context"
	"errors"
	"io"
	"time"

	"manifold"
)

// Stack is one stack as built: what <name>.json holds.
type Stack struct {
	Name     string            `json:"name"`
	Version  string            `json:"version"`
	Recipe   string            `json:"recipe"` // digest of what it was made from
	Run      []manifold.Image  `json:"run"`    // layers of a dyno, top first
	Build    []manifold.Image  `json:"build"`  // layers of a build, top first
	BuiltAt  time.Time         `json:"built_at"`
	Packages map[string]string `json:"packages"` // package → version, run and build
}

func Build(ctx context.Context, name, dir string, progress io.Writer) (Stack, error) {
	return Stack{}, errors.New("not yet")
}

func Load(dir string) ([]Stack, error) { return nil, nil }
