package outputs

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	heartbeat = 20 * time.Second // node's fetch gives up after 300 s of silence
	stuck     = time.Minute      // a write that takes longer ends the stream
	starting  = 10 * time.Second // for an output that is about to be created
)

// ServeHTTP answers GET /outputs/{name} with the output as plain text, as it
// comes. While nothing comes a NUL byte is sent now and then, as Heroku does.
func (r *Room) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "An output can only be read.", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(req.URL.Path, "/outputs/")
	if !r.there(req.Context(), name) {
		http.Error(w, "There is no such output (yet).", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if req.Method == http.MethodHead {
		return
	}
	s := &stream{w: w, control: http.NewResponseController(w)}
	done := make(chan struct{})
	var beating sync.WaitGroup
	beating.Go(func() { s.beat(done) })
	_ = r.Copy(req.Context(), name, s) // its reader left, which is no error of ours
	close(done)
	beating.Wait()
}

// there waits a little for an output that its reader was told of before it
// began.
func (r *Room) there(ctx context.Context, name string) bool {
	if !valid(name) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, starting)
	defer cancel()
	for {
		if _, err := r.dir.Lstat(name); err == nil {
			return true
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return false
		}
	}
}

// stream sends every piece at once. It hides ReadFrom on purpose: a deadline
// is set for each piece.
type stream struct {
	mu      sync.Mutex
	w       io.Writer
	control *http.ResponseController
	last    time.Time
	failed  error
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return 0, s.failed
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(stuck)) // a ResponseWriter without deadlines is a test's
	n, err := s.w.Write(p)
	if err == nil {
		err = s.control.Flush()
	}
	if errors.Is(err, http.ErrNotSupported) {
		err = nil
	}
	s.last, s.failed = time.Now(), err
	return n, err
}

func (s *stream) beat(done <-chan struct{}) {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		quiet := time.Since(s.last) >= heartbeat
		s.mu.Unlock()
		if quiet {
			_, _ = s.Write([]byte{0})
		}
	}
}
