// Package loop binds image files to loop devices (loop(4)), for those who mount
// them: slugs on kernels that mount no EROFS file by itself, and the writable
// layers of dynos.
//
// A device it gives frees itself with its last user. It must never touch one
// that it did not bind itself.
package loop

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// tries bounds the search for a free device: another process, or goroutine,
// may take each first.
const tries = 100

// Attach binds image, which must not be a symbolic link, to a free device. The
// caller closes it; a mount made of it meanwhile keeps it.
func Attach(image string, readOnly bool) (*os.File, error) {
	mode, config := os.O_RDWR, unix.LoopConfig{Size: 4096}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if readOnly {
		mode, config.Size = os.O_RDONLY, 0 // blocks are whatever the image has
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	file, err := os.OpenFile(image, mode|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	config.Fd = uint32(file.Fd())
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range tries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		device, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), mode, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("configure %s: %w", device.Name(), err)
		}
	}
	return nil, errors.New("find a free loop device: others took every one first")
}
