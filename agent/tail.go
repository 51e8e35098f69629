package agent

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// tail tells which watched directories were written to, by inotify(7): a dyno
// that logs nothing costs nothing.
type tail struct {
	fd    *os.File
	touch func(key string)
	lost  func() // events were dropped: anything may have been written

	mu   sync.Mutex
	keys map[int32]string // by watch descriptor
}

// tailPause lets the kernel merge the events of a busy writer. It is part of
// the latency of a followed log line.
const tailPause = 20 * time.Millisecond

func newTail(touch func(key string), lost func()) (*tail, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch the dynos' logs: inotify_init1: %w", err)
	}
	return &tail{fd: os.NewFile(uintptr(fd), "inotify"), touch: touch, lost: lost, keys: map[int32]string{}}, nil
}

// watch reports writes in dir as key from now on. Its end comes with the
// directory's.
func (t *tail) watch(dir, key string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	raw, err := t.fd.SyscallConn()
	if err != nil {
		return err
	}
	var wd int
	ctlErr := raw.Control(func(fd uintptr) {
		wd, err = unix.InotifyAddWatch(int(fd), dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR)
	})
	if ctlErr != nil {
		return ctlErr
	}
	if err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	t.keys[int32(wd)] = key
	return nil
}

// run reads events until ctx ends.
func (t *tail) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { t.fd.Close() })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, err := t.fd.Read(buf)
		if err != nil {
			return // closed
		}
		t.take(buf[:n])
		if !sleep(ctx, tailPause) {
			return
		}
	}
}

func (t *tail) take(events []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(events) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(events))
		mask := binary.NativeEndian.Uint32(events[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			t.lost()
		case mask&unix.IN_IGNORED != 0:
			delete(t.keys, wd)
		default:
			if key, ok := t.keys[wd]; ok {
				t.touch(key)
			}
		}
		events = events[min(size, len(events)):]
	}
}
