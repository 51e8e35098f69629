package agent

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"os"
	"time"

	"manifold"
	"manifold/isolation"
	"manifold/slugfs"
)

// What the agent needs of the rooms below it and of the coordinator, so that
// tests can make each of them fail.

// boxHost is *isolation.Host.
type boxHost interface {
	Start(ctx context.Context, spec isolation.Spec) (box, error)
	Boxes() ([]box, error)
	Close() error
	Teardown() error
}

// box is *isolation.Box.
type box interface {
	Run() string
	Addr() netip.Addr
	Dir() string
	LogDir() string
	Stop() error
	Kill() error
	Hangup() error
	Freeze(ctx context.Context) error
	Thaw() error
	Keep(dir string) error
	Attached() *isolation.Stream
	Exec(ctx context.Context, e isolation.Exec) (*isolation.Guest, error)
	Begun() bool
	Done() <-chan struct{}
	Exit() (isolation.Exit, error)
	Listening(port int) (bool, error)
	Memory() (isolation.Memory, error)
	Runnable() (int, error)
	Usage() (isolation.Usage, error)
	Inspect() isolation.Inspection
	Processes() []isolation.Process
	Listeners() []string
	Disk() (isolation.Disk, error)
	End() isolation.End
	Scratch(look func(dir *os.File) error) error
	Remove() error
}

// imageStore is *slugfs.Store.
type imageStore interface {
	Fetch(ctx context.Context, img manifold.Image, get func(ctx context.Context, offset int64) (io.ReadCloser, error)) error
	Mount(img manifold.Image) (*os.File, error)
	Path(img manifold.Image) (string, error)
	Pack(ctx context.Context, dir *os.File, o slugfs.PackOptions) (manifold.Image, error)
	Collect(keep func(digest string) bool) (int64, error)
	Unmount() error
}

// coordinator is *manifold.Link.
type coordinator interface {
	Do(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error)
	Post(ctx context.Context, path string, v any) error
	Stream(ctx context.Context, path string, each func(line []byte) error) error
	Attach(ctx context.Context, session string) (io.ReadWriteCloser, manifold.Attach, error)
}

// realHost gives *isolation.Host the interface's form.
type realHost struct{ *isolation.Host }

func (h realHost) Start(ctx context.Context, spec isolation.Spec) (box, error) {
	b, err := h.Host.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (h realHost) Boxes() ([]box, error) {
	list, err := h.Host.Boxes()
	boxes := make([]box, len(list))
	for i, b := range list {
		boxes[i] = b
	}
	return boxes, err
}

// backoff is the wait before the next try against something that is away.
type backoff struct{ first, last, next time.Duration }

// wait sleeps, longer each time; false when ctx ended.
func (b *backoff) wait(ctx context.Context) bool {
	b.next = min(max(b.next*2, b.first), b.last)
	return sleep(ctx, b.next)
}

func (b *backoff) reset() { b.next = 0 }

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
