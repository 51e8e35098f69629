package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"manifold"
	"manifold/slugfs"
)

// Build makes the stack name in dir, unless a stack of the same recipe is
// there with its images. One build runs in dir at a time; others wait for it.
// Progress gets a line as each step begins and ends. It needs root, mmdebstrap and
// erofs-utils, and takes the packages from where apt on this machine does.
//
// A build that breaks off leaves nothing a reader could take for a stack; the
// next one in dir sweeps up.
func Build(ctx context.Context, name, dir string, progress io.Writer) (Stack, error) {
	s, err := build(ctx, name, dir, progress)
	if err != nil {
		return Stack{}, fmt.Errorf("build stack %s: %w", name, err)
	}
	return s, nil
}

func build(ctx context.Context, name, dir string, progress io.Writer) (Stack, error) {
	r, err := find(name)
	if err != nil {
		return Stack{}, err
	}
	// The work directory holds the new root: maintainer scripts that are not
	// root's must be able to walk through it.
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Stack{}, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return Stack{}, err
	}
	images, err := turn(ctx, dir, progress)
	if err != nil {
		return Stack{}, err
	}
	defer images.Close()
	if s, err := load(filepath.Join(dir, name+".json")); err == nil && s.Recipe == r.digest() && hasAll(images, s) {
		fmt.Fprintf(progress, "stack %s %s: built %s, nothing to do\n", name, s.Version, s.BuiltAt.Format(time.DateTime))
		return s, nil
	}
	archives, err := sources("/etc/apt", r.Suite, r.Backports)
	if err != nil {
		return Stack{}, err
	}
	work, err := os.MkdirTemp(dir, "new-stack-")
	if err != nil {
		return Stack{}, err
	}
	defer os.RemoveAll(work)
	b := &builder{ctx: ctx, recipe: r, work: work, images: images, progress: progress, archives: archives}
	s, err := b.stack()
	if err != nil {
		return Stack{}, err
	}
	return s, save(dir, s)
}

// turn opens dir as soon as no other build has it: daemons only read in a
// directory of stacks, and never own it.
func turn(ctx context.Context, dir string, progress io.Writer) (*slugfs.Store, error) {
	images, err := slugfs.Open(dir)
	if errors.Is(err, slugfs.ErrInUse) {
		fmt.Fprintf(progress, "another stack is being built in %s: waiting for it\n", dir)
	}
	for errors.Is(err, slugfs.ErrInUse) {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		images, err = slugfs.Open(dir)
	}
	return images, err
}

func hasAll(images *slugfs.Store, s Stack) bool {
	return !slices.ContainsFunc(append(s.Run, s.Build...), func(img manifold.Image) bool { return !images.Has(img) })
}

// builder is one build in its work directory:
//
//	run/      the run layer's root
//	build/    the build layer: overlay's upper directory over run/
//	overlay/  overlay's own work directory
//	root/     both merged, in a private mount namespace only
//	sources.list, apt.conf
type builder struct {
	ctx      context.Context
	recipe   recipe
	work     string
	images   *slugfs.Store
	progress io.Writer
	archives []archive
}

func (b *builder) stack() (Stack, error) {
	if err := b.prepare(); err != nil {
		return Stack{}, err
	}
	s := Stack{Name: b.recipe.Name, Version: b.recipe.Version, Recipe: b.recipe.digest()}
	err := b.step(fmt.Sprintf("install %d packages of the run layer and what they need", len(b.recipe.Run)), b.bootstrap)
	if err != nil {
		return Stack{}, err
	}
	if len(b.recipe.Build) > 0 {
		err = b.step(fmt.Sprintf("install %d packages of the build layer and what they need", len(b.recipe.Build)), b.layer)
		if err != nil {
			return Stack{}, err
		}
	}
	var run, layer manifold.Image
	if err := b.pack("run", &run); err != nil {
		return Stack{}, err
	}
	s.Run, s.Build = []manifold.Image{run}, []manifold.Image{run}
	if len(b.recipe.Build) > 0 {
		if err := b.pack("build", &layer); err != nil {
			return Stack{}, err
		}
		s.Build = []manifold.Image{layer, run}
	}
	if s.Packages, err = b.packages(); err != nil {
		return Stack{}, err
	}
	s.BuiltAt = time.Now().UTC().Truncate(time.Second)
	return s, nil
}

// step does one step and tells people.
func (b *builder) step(what string, do func() error) error {
	fmt.Fprintf(b.progress, "stack %s: %s …\n", b.recipe.Name, what)
	start := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Fprintf(b.progress, "stack %s: … done in %.0f s\n", b.recipe.Name, time.Since(start).Seconds())
	return nil
}

func (b *builder) pack(layer string, img *manifold.Image) error {
	return b.step("pack the "+layer+" image", func() error {
		dir, err := os.Open(filepath.Join(b.work, layer))
		if err != nil {
			return err
		}
		defer dir.Close()
		*img, err = b.images.Pack(b.ctx, dir, slugfs.PackOptions{Owner: -1, Trusted: true})
		if err == nil {
			fmt.Fprintf(b.progress, "stack %s: %s image %d MB\n", b.recipe.Name, layer, img.Bytes>>20)
		}
		return err
	})
}

// packages reads the versions of what is installed, build layer included.
func (b *builder) packages() (map[string]string, error) {
	status, err := os.ReadFile(filepath.Join(b.work, "build/var/lib/dpkg/status"))
	if errors.Is(err, os.ErrNotExist) {
		status, err = os.ReadFile(filepath.Join(b.work, "run/var/lib/dpkg/status"))
	}
	if err != nil {
		return nil, err
	}
	versions, name := map[string]string{}, ""
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "Package: "); ok {
			name = strings.TrimSpace(value)
		}
		if value, ok := strings.CutPrefix(line, "Version: "); ok {
			versions[name] = strings.TrimSpace(value)
		}
	}
	return versions, nil
}
