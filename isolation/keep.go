package isolation

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"manifold/isolation/boot"
)

// Keep puts what is left of a dyno that has ended into dir, which exists, is
// empty or was filled by a Keep that was cut short, and lies on the same
// filesystem: its writable layer (for LookInto), its exit record and its log
// segments, in app/. The box can be removed then as ever. Whatever of it is
// missing is not kept.
func (b *Box) Keep(dir string) error {
	select {
	case <-b.done:
	default:
		return fmt.Errorf("keep run %s: it has not ended", b.record.Run)
	}
	err := errors.Join(
		move(filepath.Join(b.Dir(), scratchName), filepath.Join(dir, scratchName)),
		move(filepath.Join(b.Dir(), pid1Name, boot.RecordName), filepath.Join(dir, boot.RecordName)),
		LinkFiles(b.LogDir(), filepath.Join(dir, boot.LogName)),
	)
	if err != nil {
		return fmt.Errorf("keep run %s: %w", b.record.Run, err)
	}
	return nil
}

// move renames a file that may be there already, or nowhere.
func move(from, to string) error {
	err := os.Rename(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// LinkFiles makes the regular files of directory from appear in to as well,
// which is made. Links are not followed; a file that is there already stays.
func LinkFiles(from, to string) error {
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = os.MkdirAll(to, 0o700)
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		err := os.Link(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
