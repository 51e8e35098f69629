package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/isolation"
	"manifold/slugfs"
)

// fakeHost is a kernel that does what a test says. It outlives agents.
type fakeHost struct {
	mu      sync.Mutex
	dir     string
	boxes   map[string]*fakeBox
	starts  int
	onStart func(*fakeBox) error // may end the box, or refuse it
}

type fakeBox struct {
	host *fakeHost
	spec isolation.Spec
	dir  string
	done chan struct{}

	onFreeze func() // before it stands still
	still    atomic.Bool

	mu        sync.Mutex
	exit      *isolation.Exit
	listening bool
	memory    isolation.Memory
	deaf      bool // PID 1 hangs: Stop does nothing
	stuck     int  // that many Removes fail
	unbegun   bool // PID 1 does not run the app yet
	hangups   int
	slow      time.Duration // it takes to heed Stop
}

func (h *fakeHost) Start(_ context.Context, spec isolation.Spec) (box, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.boxes[spec.Run] != nil {
		return nil, errors.New("that run exists")
	}
	dir, err := os.MkdirTemp(h.dir, "box")
	if err != nil {
		return nil, err
	}
	b := &fakeBox{host: h, spec: spec, dir: dir, done: make(chan struct{}), listening: true}
	if h.onStart != nil {
		if err := h.onStart(b); err != nil {
			return nil, err
		}
	}
	h.boxes[spec.Run] = b
	h.starts++
	return b, nil
}

func (h *fakeHost) Boxes() ([]box, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []box
	for b := range maps.Values(h.boxes) {
		list = append(list, b)
	}
	return list, nil
}

func (h *fakeHost) Close() error    { return nil }
func (h *fakeHost) Teardown() error { return nil }

func (h *fakeHost) only(t *testing.T) *fakeBox {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.boxes) != 1 {
		t.Fatalf("%d boxes, want one", len(h.boxes))
	}
	for b := range maps.Values(h.boxes) {
		return b
	}
	return nil
}

func (h *fakeHost) count() (boxes, starts int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.boxes), h.starts
}

// end is the end of everything in the box; nil leaves no record.
func (b *fakeBox) end(exit *isolation.Exit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.done:
	default:
		b.exit = exit
		close(b.done)
	}
}

func (b *fakeBox) Run() string           { return b.spec.Run }
func (b *fakeBox) Addr() netip.Addr      { return netip.MustParseAddr("192.0.2.1") }
func (b *fakeBox) Dir() string           { return b.dir }
func (b *fakeBox) Keep(string) error     { return nil }
func (b *fakeBox) LogDir() string        { return filepath.Join(b.dir, "log") }
func (b *fakeBox) Done() <-chan struct{} { return b.done }
func (b *fakeBox) Begun() bool           { return !b.unbegun }
func (b *fakeBox) Kill() error           { b.end(nil); return nil }

func (b *fakeBox) Freeze(context.Context) error {
	if b.onFreeze != nil {
		b.onFreeze()
	}
	b.still.Store(true)
	return nil
}

func (b *fakeBox) Thaw() error {
	b.still.Store(false)
	return nil
}

func (b *fakeBox) Attached() *isolation.Stream { return nil }

func (b *fakeBox) Exec(context.Context, isolation.Exec) (*isolation.Guest, error) {
	return nil, errors.New("not in a made-up box")
}

func (b *fakeBox) Hangup() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hangups++
	return nil
}

func (b *fakeBox) Stop() error {
	if !b.deaf {
		time.AfterFunc(b.slow, func() { b.end(&isolation.Exit{Status: 143, At: time.Now()}) })
	}
	return nil
}

func (b *fakeBox) Exit() (isolation.Exit, error) {
	if b.exit == nil {
		return isolation.Exit{}, isolation.ErrNoRecord
	}
	return *b.exit, nil
}

func (b *fakeBox) Runnable() (int, error) { return 2, nil }

func (b *fakeBox) Memory() (isolation.Memory, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.memory, nil
}

func (b *fakeBox) Usage() (isolation.Usage, error) {
	m, err := b.Memory()
	return isolation.Usage{Memory: m}, err
}

func (b *fakeBox) Inspect() isolation.Inspection  { return isolation.Inspection{} }
func (b *fakeBox) Processes() []isolation.Process { return nil }
func (b *fakeBox) Listeners() []string            { return nil }
func (b *fakeBox) Disk() (isolation.Disk, error)  { return isolation.Disk{}, nil }
func (b *fakeBox) End() isolation.End             { return isolation.End{} }

func (b *fakeBox) Listening(int) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.listening, nil
}

func (b *fakeBox) Scratch(look func(*os.File) error) error {
	dir, err := os.Open(b.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return look(dir)
}

func (b *fakeBox) Remove() error {
	b.mu.Lock()
	b.stuck--
	stuck := b.stuck >= 0
	b.mu.Unlock()
	if stuck {
		return errors.New("device or resource busy")
	}
	b.host.mu.Lock()
	delete(b.host.boxes, b.spec.Run)
	b.host.mu.Unlock()
	return os.RemoveAll(b.dir)
}

// fakeImages has every image, unless fetch says otherwise.
type fakeImages struct {
	fetch   func(ctx context.Context, img manifold.Image) error
	collect func(keep func(digest string) bool)
}

func (f *fakeImages) Fetch(ctx context.Context, img manifold.Image, _ func(context.Context, int64) (io.ReadCloser, error)) error {
	if f.fetch == nil {
		return nil
	}
	return f.fetch(ctx, img)
}
func (f *fakeImages) Mount(manifold.Image) (*os.File, error) { return os.Open(os.DevNull) }
func (f *fakeImages) Path(manifold.Image) (string, error)    { return os.DevNull, nil }
func (f *fakeImages) Unmount() error                         { return nil }
func (f *fakeImages) Collect(keep func(digest string) bool) (int64, error) {
	if f.collect != nil {
		f.collect(keep)
	}
	return 0, nil
}
func (f *fakeImages) Pack(context.Context, *os.File, slugfs.PackOptions) (manifold.Image, error) {
	return manifold.Image{Digest: "sha256:0"}, nil
}

// fakeUp is a coordinator in memory. It outlives agents.
type fakeUp struct {
	mu    sync.Mutex
	logs  map[string][]manifold.LogLine // by stream, doubles dropped
	fail  error                         // of every Post and Do
	slow  time.Duration                 // is how long a Post takes; set before the agent starts
	batch []manifold.LogBatch
	puts  int
}

func (u *fakeUp) Do(_ context.Context, method, _ string, _ io.Reader, _ http.Header) (*http.Response, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fail != nil {
		return nil, u.fail
	}
	if method == http.MethodPut {
		u.puts++
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("input"))}, nil
}

func (u *fakeUp) Attach(context.Context, string) (io.ReadWriteCloser, manifold.Attach, error) {
	return nil, manifold.Attach{}, &manifold.StatusError{Status: http.StatusGone}
}

func (u *fakeUp) Post(ctx context.Context, path string, v any) error {
	if u.slow > 0 && !sleep(ctx, u.slow) {
		return ctx.Err()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fail != nil {
		return u.fail
	}
	batch, ok := v.(manifold.LogBatch)
	if !ok {
		return nil
	}
	u.batch = append(u.batch, batch)
	for _, s := range batch.Streams {
		for _, line := range s.Lines {
			if had := u.logs[s.ID]; len(had) == 0 || had[len(had)-1].Seq < line.Seq {
				u.logs[s.ID] = append(had, line)
			}
		}
	}
	return nil
}

func (u *fakeUp) Stream(ctx context.Context, _ string, _ func([]byte) error) error {
	<-ctx.Done()
	return ctx.Err()
}

// batches are those that came since it was last asked.
func (u *fakeUp) batches() []manifold.LogBatch {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := u.batch
	u.batch = nil
	return list
}

// setFail has every Post and Do fail.
func (u *fakeUp) setFail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fail = err
}

// heroku is all the platform said, of all runs, by time.
func (u *fakeUp) heroku() (texts []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, lines := range u.logs {
		if strings.HasSuffix(id, "/heroku") {
			for _, line := range lines {
				texts = append(texts, line.Text)
			}
		}
	}
	return texts
}

// world is what agents come and go in.
type world struct {
	t      *testing.T
	home   home
	host   *fakeHost
	images *fakeImages
	up     *fakeUp
	boot   string
	log    *slog.Logger
	fault  func(point string)
	dead   func() bool            // of dieAt
	works  func(run string) error // a health check of the one box with it

	agent *agent
	stop  context.CancelFunc
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, home: home{t.TempDir()}, host: &fakeHost{dir: t.TempDir(), boxes: map[string]*fakeBox{}}, images: &fakeImages{},
		up: &fakeUp{logs: map[string][]manifold.LogLine{}}, boot: "boot-1",
		log: slog.New(slog.DiscardHandler),
	}
	images, err := w.home.open(t.TempDir())
	if err == nil {
		err = images.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// start lets an agent live. Its loops to the coordinator and its socket are
// left out: they are tested on the real thing.
func (w *world) start() *agent {
	w.t.Helper()
	a := newAgent(Config{Log: w.log}, w.home, w.boot)
	a.boxes, a.images, a.up, a.fault = w.host, w.images, w.up, w.fault
	a.works = func(_ context.Context, url, _ string, _ time.Duration) error { return w.sick(url) }
	a.id = manifold.Identity{ID: "host", Cluster: testCluster}
	ctx, cancel := context.WithCancel(context.Background())
	a.ctx = ctx
	a.ship = newShipper(a.shelf, a.up, a.log)
	w.agent = a
	w.stop = func() { cancel(); a.work.Wait() }
	if err := a.begin(); err != nil {
		w.t.Fatal(err)
	}
	a.work.Go(func() { a.ship.run(ctx) })
	a.work.Go(func() { a.every(ctx, "reconciliation", reconcileEvery, a.repair) })
	return a
}

// dieAt has the agent die when it reaches its nth point from now. The
// function it returns says whether it did.
func (w *world) dieAt(n int) func() bool {
	var mu sync.Mutex
	var dead bool
	w.fault = func(string) {
		mu.Lock()
		n--
		now := n == 0 || dead
		dead = dead || now
		mu.Unlock()
		if now {
			runtime.Goexit() // nothing after this point happens
		}
	}
	w.dead = func() bool {
		mu.Lock()
		defer mu.Unlock()
		return dead
	}
	return w.dead
}

func (w *world) want(assignments ...manifold.Assignment) {
	w.t.Helper()
	w.desire(manifold.Desired{Assignments: assignments})
}

func (w *world) desire(d manifold.Desired) {
	w.t.Helper()
	w.agent.mu.Lock()
	d.Cluster, d.Revision = testCluster, w.agent.desired.Revision+1
	w.agent.mu.Unlock()
	if err := w.agent.accept(d); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) dyno(a manifold.Assignment) manifold.Dyno {
	for _, d := range w.agent.observation().Dynos {
		if d.Assignment == a.ID {
			return d
		}
	}
	return manifold.Dyno{}
}

func fakeAssignment() manifold.Assignment {
	return manifold.Assignment{
		ID: uuid.NewString(), App: "app", AppName: "app", Dyno: "web.1", Kind: manifold.KindFormation, Web: true,
		Layers: []manifold.Image{{Digest: "sha256:1"}}, Command: "run", BootTimeout: time.Minute, Grace: 30 * time.Second,
	}
}

// setWorks has boxes answer their health checks by their run.
func (w *world) setWorks(works func(run string) error) {
	w.host.mu.Lock()
	defer w.host.mu.Unlock()
	w.works = works
}

// sick answers for the one box there is.
func (w *world) sick(string) error {
	w.host.mu.Lock()
	defer w.host.mu.Unlock()
	for run := range w.host.boxes {
		if w.works != nil {
			return w.works(run)
		}
	}
	return nil
}
