package compiler

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// cache keeps one opaque tar per app between builds, named
// <app id>@<stack>.tar: what was compiled on one stack is not given to a
// build on another. A cache may vanish at any time; a build then takes longer.
type cache struct {
	dir   string
	limit int64 // bytes
}

const (
	cacheSuffix = ".tar"
	incoming    = "incoming-" // a copy that is not complete
)

func (c cache) path(app, stack string) string {
	return filepath.Join(c.dir, filepath.Base(app)+"@"+filepath.Base(stack)+cacheSuffix)
}

// open returns the app's cache and its size. fs.ErrNotExist: there is none.
func (c cache) open(app, stack string) (*os.File, int64, error) {
	f, err := os.Open(c.path(app, stack))
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// keep takes the file at path as the app's cache from now on, in place of any
// other. One over the limit is not kept, nor is the one before it: it would
// only be outgrown again.
func (c cache) keep(app, stack, path string) error {
	if err := c.drop(app); err != nil {
		return err
	}
	st, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("keep the build cache: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() > c.limit {
		return nil
	}
	to := c.path(app, stack)
	if err := os.Rename(path, to); err == nil {
		return os.Chmod(to, 0o600)
	}
	// The file may be on another filesystem.
	return copyFile(to, path)
}

func copyFile(to, from string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("keep the build cache: %w", err)
	}
	defer src.Close()
	tmp, err := os.CreateTemp(filepath.Dir(to), incoming)
	if err != nil {
		return fmt.Errorf("keep the build cache: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	if _, err = io.Copy(tmp, src); err != nil {
		tmp.Close()
		return fmt.Errorf("keep the build cache: %w", err)
	}
	if err = tmp.Close(); err != nil {
		return fmt.Errorf("keep the build cache: %w", err)
	}
	return os.Rename(tmp.Name(), to)
}

// tidy removes copies that a crash left incomplete. Nothing may be copying.
func (c cache) tidy() error {
	left, err := filepath.Glob(filepath.Join(c.dir, incoming+"*"))
	for _, name := range left {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// drop forgets an app's caches on every stack.
func (c cache) drop(app string) error {
	return c.collect(func(id string) bool { return id != app })
}

// collect removes the caches of apps that exist does not know.
func (c cache) collect(exists func(app string) bool) error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("list build caches: %w", err)
	}
	var failed error
	for _, e := range entries {
		app, _, ok := strings.Cut(e.Name(), "@")
		if !ok || !strings.HasSuffix(e.Name(), cacheSuffix) || exists(app) {
			continue
		}
		if err := os.Remove(filepath.Join(c.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, fmt.Errorf("remove a build cache: %w", err))
		}
	}
	return failed
}
