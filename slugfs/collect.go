package slugfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Collect removes the images keep does not want, and what is left of their
// fetches, and says how many bytes that freed. An image that is being fetched
// stays, and so does one that anything on this machine has open: a mount
// (also one handed out by an earlier process), a loop device, a reader. The
// next Collect tries again.
//
// keep is called without locks held. An image nobody has recorded yet is not
// wanted: do not run Collect between Add and the record.
func (s *Store) Collect(keep func(digest string) bool) (freed int64, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return 0, fmt.Errorf("collect images: %w", err)
	}
	var problems []error
	for _, entry := range entries {
		ext := filepath.Ext(entry.Name())
		name := strings.TrimSuffix(entry.Name(), ext)
		if _, err := hexOf("sha256:" + name); err != nil || ext != suffix && ext != partial {
			continue
		}
		if keep("sha256:" + name) {
			continue
		}
		n, err := s.remove(name, entry.Name())
		freed += n
		if err != nil {
			problems = append(problems, fmt.Errorf("collect %s: %w", entry.Name(), err))
		}
	}
	return freed, errors.Join(problems...)
}

// remove deletes a file of image name unless it is in use.
func (s *Store) remove(name, file string) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, fetching := s.busy[name]; fetching {
		return 0, nil
	}
	// Our own mount of it goes first; if others hold clones the file stays
	// open, and the next Mount makes a new superblock.
	if m, ok := s.mounts[name]; ok {
		delete(s.mounts, name)
		if err := m.close(); err != nil {
			return 0, err
		}
	}
	path := filepath.Join(s.dir, file)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	// A write lease is granted only if nobody else has the file open
	// (fcntl(2)). That asks the kernel instead of our own memory, so dynos
	// that outlived the process which mounted for them count as well.
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EBUSY) {
			return 0, nil
		}
		return 0, fmt.Errorf("ask whether it is in use: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if err := os.Remove(path); err != nil {
		return 0, err
	}
	return info.Size(), nil
}
