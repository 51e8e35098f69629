package fleet

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/attach"
	"manifold/coordinator/logs"
	"manifold/coordinator/pki"
	"manifold/coordinator/store"
	"manifold/slugfs"
)

// patience is how long a test waits for what must happen: a machine may be busy
// with others' tests.
const patience = time.Minute

// rig is a real door on loopback, with a real store and CA behind it.
type rig struct {
	*Server
	t      *testing.T
	dir    string
	addr   string
	store  *store.Store
	ca     *pki.CA
	logs   *logs.Hub
	images *slugfs.Store
	attach *attach.Room
	stop   func() // ends Serve
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	var err error
	r.store, err = store.Open(t.Context(), filepath.Join(r.dir, "store"), slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { must(t, r.store.Close()) })
	r.ca, err = pki.Open(func(key string, make func() ([]byte, error)) ([]byte, error) {
		return r.store.Once(t.Context(), key, make)
	})
	must(t, err)
	r.logs, err = logs.Open(filepath.Join(r.dir, "logs"))
	must(t, err)
	t.Cleanup(func() { must(t, r.logs.Close()) })
	r.images, err = slugfs.Open(filepath.Join(r.dir, "images"))
	must(t, err)
	t.Cleanup(func() { must(t, r.images.Close()) })
	r.attach = attach.New(attach.Config{TLS: &tls.Config{}, Come: 3 * time.Second, Log: slog.New(slog.DiscardHandler)})
	r.serve()
	return r
}

// serve opens the door, once more after stop.
func (r *rig) serve() {
	r.t.Helper()
	s, err := Open(Config{
		Cluster: r.store.Cluster(), Store: r.store, CA: r.ca, Names: []string{"localhost", "127.0.0.1"},
		Logs: r.logs, Images: r.images, Attach: r.attach, Dir: filepath.Join(r.dir, "fleet"), JobsDir: filepath.Join(r.dir, "jobs"),
		Log: slog.New(slog.DiscardHandler),
	})
	must(r.t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(r.t, err)
	r.Server, r.addr = s, ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, ln) }()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		must(r.t, <-served)
		must(r.t, s.Close())
	}
	r.t.Cleanup(r.stop)
}

// token makes a join token.
func (r *rig) token(life time.Duration) string {
	r.t.Helper()
	secret, err := r.store.CreateJoinToken(r.t.Context(), life)
	must(r.t, err)
	return secret + "." + r.ca.Fingerprint()
}

// peer is someone who joined.
type peer struct {
	*manifold.Link
	id string
}

func (r *rig) join(role string) peer {
	r.t.Helper()
	id, err := manifold.Join(r.t.Context(), r.addr, r.token(time.Hour), role, "test-"+role)
	must(r.t, err)
	return r.link(id)
}

func (r *rig) link(id manifold.Identity) peer {
	r.t.Helper()
	link, err := manifold.NewLink(r.addr, id)
	must(r.t, err)
	return peer{link, id.ID}
}

// stream follows a path in the background; every line comes out of the channel.
func (p peer) stream(t *testing.T, path string) <-chan string {
	t.Helper()
	lines := make(chan string, 100)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(done)
		_ = p.Stream(ctx, path, func(line []byte) error {
			lines <- string(line)
			return nil
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return lines
}

// get returns status and body; 0 where there was no whole answer.
func (p peer) get(t *testing.T, path string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	res, err := p.Do(ctx, "GET", path, nil, nil)
	if err != nil {
		return status(err), err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(body)
}

func status(err error) int {
	if e, ok := err.(*manifold.StatusError); ok {
		return e.Status
	}
	return 0
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// next waits for what a channel brings.
func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("nothing came in %s", patience)
		panic("not reached")
	}
}

// eventually polls until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}
