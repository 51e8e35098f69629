package slugfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"manifold"
	"manifold/slugfs/loop"
)

// mounted is one image's superblock, kept so that every dyno of a slug shares
// its page cache.
//
// Linux 6.12 mounts EROFS from a file, and 6.15 clones a detached mount: there
// tree is cloned for each caller. Older kernels get a loop device, which is
// mounted again for each caller; the kernel finds the same superblock by the
// device. It clears the device itself when the last mount and we are gone.
type mounted struct {
	tree *os.File // detached mount; nil with a loop device
	loop *os.File // nil without one
}

func (m *mounted) close() error {
	if m.loop != nil {
		return m.loop.Close()
	}
	return m.tree.Close()
}

// Mount returns a detached, read-only, nosuid, nodev mount of the image, open
// as a path (O_PATH). It is the caller's own: mount_setattr(2) on it (an
// idmap, say) does not touch other callers' mounts of the image, with which it
// shares the superblock. It is seen in no mount table until the caller moves
// it there; closing it unmounts it unless it was moved. Needs CAP_SYS_ADMIN.
// A file that is not an image, or cut short, is ErrImage.
func (s *Store) Mount(img manifold.Image) (*os.File, error) {
	tree, err := s.mount(img)
	if err != nil {
		return nil, fmt.Errorf("mount image %s: %w", img.Digest, err)
	}
	return tree, nil
}

func (s *Store) mount(img manifold.Image) (*os.File, error) {
	name, err := hexOf(img.Digest)
	if err != nil {
		return nil, err
	}
	// The lock is held over the system calls, some milliseconds, so that an
	// image has one superblock however many ask at once.
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.mounts[name]
	if !ok {
		path, err := s.Path(img)
		if err != nil {
			return nil, err
		}
		if m, err = open(path); err != nil {
			return nil, err
		}
	}
	tree, err := m.another()
	if err != nil && !ok { // a loop device does not show before that the image is bad
		return nil, errors.Join(err, m.close())
	}
	s.mounts[name] = m
	return tree, err
}

// open makes the superblock of the image at path.
func open(path string) (*mounted, error) {
	if err := checkImage(path); err != nil {
		return nil, err
	}
	tree, err := mountErofs(path)
	if err == nil {
		var clone *os.File
		if clone, err = cloneTree(tree); err == nil {
			return &mounted{tree: tree}, clone.Close()
		}
		tree.Close()
	}
	// ENOTBLK: a kernel before 6.12 wants a block device. EINVAL: one before
	// 6.15 does not clone a detached mount.
	if !errors.Is(err, unix.ENOTBLK) && !errors.Is(err, unix.EINVAL) {
		return nil, err
	}
	device, err := loop.Attach(path, true)
	if err != nil {
		return nil, fmt.Errorf("attach an image to a loop device: %w", err)
	}
	return &mounted{loop: device}, nil
}

func (m *mounted) another() (*os.File, error) {
	if m.loop != nil {
		return mountErofs(m.loop.Name())
	}
	return cloneTree(m.tree)
}

// mountErofs mounts a file or block device by the new mount API, fsopen(2).
func mountErofs(source string) (*os.File, error) {
	fs, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen erofs (does this kernel have EROFS?): %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", source); err != nil {
		return nil, fmt.Errorf("fsconfig source: %w", err)
	}
	if err := unix.FsconfigSetFlag(fs, "ro"); err != nil {
		return nil, fmt.Errorf("fsconfig ro: %w", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		if errors.Is(err, unix.EBADMSG) || errors.Is(err, unix.EUCLEAN) {
			err = fmt.Errorf("%w: the kernel finds it damaged: %w", ErrImage, err)
		}
		return nil, fmt.Errorf("create EROFS superblock of %s: %w", source, err)
	}
	const attrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, fmt.Errorf("fsmount: %w", err)
	}
	return os.NewFile(uintptr(fd), source), nil
}

func cloneTree(tree *os.File) (*os.File, error) {
	fd, err := unix.OpenTree(int(tree.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("clone mount: %w", err)
	}
	return os.NewFile(uintptr(fd), tree.Name()), nil
}

// checkImage looks at the superblock, so that a file that is no image, or
// was cut short, is named as such instead of by the kernel's EINVAL. Layout:
// Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h; the superblock is
// at 1024, magic at 0, block size (log2) at 12, number of blocks at 36.
func checkImage(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	var super [128]byte
	if _, err := file.ReadAt(super[:], 1024); err != nil {
		return fmt.Errorf("%w: %d bytes are too few", ErrImage, info.Size())
	}
	if binary.LittleEndian.Uint32(super[0:]) != unix.EROFS_SUPER_MAGIC_V1 {
		return fmt.Errorf("%w: it has no EROFS superblock", ErrImage)
	}
	bits := super[12]
	if bits < 9 || bits > 16 {
		return fmt.Errorf("%w: block size 2^%d", ErrImage, bits)
	}
	if want := int64(binary.LittleEndian.Uint32(super[36:])) << bits; info.Size() < want {
		return fmt.Errorf("%w: it is cut short, %d of %d bytes", ErrImage, info.Size(), want)
	}
	return nil
}
