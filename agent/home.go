package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"manifold/slugfs"
)

// home is the agent's directory. Everything in it is root's alone, since
// assignments hold config vars.
type home struct{ dir string }

func (h home) identity() string  { return filepath.Join(h.dir, "identity.json") }
func (h home) settings() string  { return filepath.Join(h.dir, "host.json") }
func (h home) draining() string  { return filepath.Join(h.dir, "draining") }
func (h home) autopsies() string { return filepath.Join(h.dir, "autopsies") }
func (h home) desired() string   { return filepath.Join(h.dir, "desired.json") }
func (h home) dynos() string     { return filepath.Join(h.dir, "dynos") }
func (h home) runs() string      { return filepath.Join(h.dir, "runs") }
func (h home) images() string    { return filepath.Join(h.dir, "images") }
func (h home) events() string    { return filepath.Join(h.dir, "events.log") }
func (h home) ended() string     { return filepath.Join(h.dir, "ended") }
func (h home) releases() string  { return filepath.Join(h.dir, "releases.json") }

// open makes the directory and takes it, with the images in it, for this
// process: who owns the images owns the home.
func (h home) open(stacks string) (*slugfs.Store, error) {
	for _, dir := range []string{h.dir, h.dynos(), h.runs(), h.images()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the agent's directory: %w", err)
		}
	}
	images, err := slugfs.Open(h.images(), stacks)
	if errors.Is(err, slugfs.ErrInUse) {
		err = fmt.Errorf("another agent runs on %s: stop it first, or give this one its own MANIFOLD_HOME", h.dir)
	}
	return images, err
}

// writeFile replaces the file at path in one step: a reader sees the old text
// or the new one. It does not sync: that is the caller's decision.
func writeFile(path string, text []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// syncFile makes what writeFile wrote survive a power cut.
func syncFile(path string) error {
	for _, p := range []string{path, filepath.Dir(path)} {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		err = f.Sync()
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// setAside keeps a file that cannot be used out of the way, for people to
// look at. An older one set aside before is replaced.
func setAside(path string) error { return os.Rename(path, path+".corrupt") }

// bootID tells one life of the host from the next (proc_sys_kernel(5)).
func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the host's boot id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
