package slugfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// Bounds on a tree to pack. They are far above any real app and keep a
// hostile one from holding a packer for long.
const (
	maxEntries   = 400_000 // mkfs.erofs takes 5 KB of memory for each
	maxDepth     = 256     // directories in directories
	maxPath      = 3800    // bytes below the tree's root; PATH_MAX is 4096
	maxName      = 254     // bytes; mkfs.erofs 1.5 cuts a name of NAME_MAX (255) short
	maxSpecial   = 1000    // sockets, FIFOs and device nodes
	sparseFactor = 10      // sum of file sizes over the limit; lz4 seldom gets there
)

// surveyed is what a walk over a tree found.
type surveyed struct {
	entries int
	bytes   int64    // sum of the sizes of regular files, holes included
	special []string // paths to leave out
}

// survey walks the tree by descriptors, following no link and crossing into
// no other file system, and refuses what mkfs.erofs should not even see.
func survey(ctx context.Context, dir *os.File, o PackOptions) (surveyed, error) {
	var found surveyed
	var stat unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &stat); err != nil {
		return found, err
	}
	w := &walk{ctx: ctx, device: stat.Dev, options: o, found: &found}
	if err := w.dir(int(dir.Fd()), ".", "", 0); err != nil {
		return found, err
	}
	return found, nil
}

type walk struct {
	ctx     context.Context
	device  uint64
	options PackOptions
	found   *surveyed
}

func (w *walk) dir(parent int, name, rel string, depth int) error {
	if depth > maxDepth || len(rel) > maxPath {
		return fmt.Errorf("directories are nested too deeply at %.200q: at most %d levels and %d bytes of path", rel, maxDepth, maxPath)
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open directory %.200q: %w", rel, err)
	}
	dir := os.NewFile(uintptr(fd), rel)
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1000)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read directory %.200q: %w", rel, err)
		}
		if err := w.ctx.Err(); err != nil {
			return context.Cause(w.ctx)
		}
		for _, name := range names {
			if err := w.entry(fd, name, path.Join(rel, name), depth); err != nil {
				return err
			}
		}
	}
}

func (w *walk) entry(dir int, name, rel string, depth int) error {
	if w.found.entries++; w.found.entries > maxEntries {
		return fmt.Errorf("%w: more than %d files", ErrTooLarge, maxEntries)
	}
	if len(name) > maxName {
		return fmt.Errorf("the file name %.200q… is too long: at most %d bytes", rel, maxName)
	}
	var stat unix.Stat_t
	if err := unix.Fstatat(dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat %.200q: %w", rel, err)
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		w.found.bytes += stat.Size
		if limit := w.options.Limit; limit > 0 && w.found.bytes/sparseFactor > limit {
			return fmt.Errorf("%w: its files have more than %s; the limit of the image is %s", ErrTooLarge, size(sparseFactor*limit), size(limit))
		}
	case unix.S_IFDIR:
		if stat.Dev != w.device {
			return nil // a mount point; the packer's bind shows what is below
		}
		return w.dir(dir, name, rel, depth+1)
	case unix.S_IFLNK:
	default:
		if w.options.Trusted {
			return nil
		}
		if w.found.special = append(w.found.special, rel); len(w.found.special) > maxSpecial {
			return fmt.Errorf("more than %d sockets, FIFOs and device nodes; remove them", maxSpecial)
		}
	}
	return nil
}
