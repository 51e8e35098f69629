package slugfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const lockName = "lock"

// dirLock is a directory that this process owns, by a record lock (fcntl(2)).
// A flock(2) would belong to every process that has the file open, also to a
// child between fork and exec: an owner that is killed then would leave a
// directory that nobody can have. A record lock is one process's alone. It goes
// when that process closes the file by any descriptor, so nobody else in it
// may open it; and it does not hold off the process itself: owned does.
type dirLock struct {
	dir  identity
	file *os.File
}

// identity tells a directory whatever path leads to it.
type identity struct{ dev, ino uint64 }

var owned = struct {
	sync.Mutex
	dirs map[identity]bool
}{dirs: map[identity]bool{}}

// lockDir makes a directory this process's, or says ErrInUse.
func lockDir(dir string) (*dirLock, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	st := info.Sys().(*syscall.Stat_t)
	id := identity{st.Dev, st.Ino}
	owned.Lock()
	defer owned.Unlock()
	if owned.dirs[id] {
		return nil, ErrInUse
	}
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.FcntlFlock(file.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if err != nil {
		file.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			err = ErrInUse
		}
		return nil, err
	}
	owned.dirs[id] = true
	return &dirLock{id, file}, nil
}

func (l *dirLock) close() error {
	owned.Lock()
	defer owned.Unlock()
	err := l.file.Close()
	if err == nil { // the second time it may be another's
		delete(owned.dirs, l.dir)
	}
	return err
}

// InUse says whether another process owns the directory of a Store. It does
// not disturb one that is about to, and must not be asked by the owner.
func InUse(dir string) (bool, error) {
	file, err := os.Open(filepath.Join(dir, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(file.Fd(), unix.F_GETLK, &lock); err != nil {
		return false, fmt.Errorf("ask for the lock of %s: %w", dir, err)
	}
	return lock.Type != unix.F_UNLCK, nil
}
