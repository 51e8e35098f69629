package git

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// stall is how long the pusher may leave the progress unread. The pipes and
// sockets on the way hold some hundred kilobytes before that clock starts.
const stall = time.Minute

// progress is what the pusher reads. Writes after the pusher is gone fail, and
// so do those of a builder that writes on after its build, where net/http
// would panic.
type progress struct {
	mu      sync.Mutex
	closed  bool
	w       io.Writer
	control *http.ResponseController
	lost    context.CancelFunc
}

func (p *progress) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, io.ErrClosedPipe
	}
	err := p.control.SetWriteDeadline(time.Now().Add(stall))
	n := 0
	if err == nil {
		n, err = p.w.Write(text)
	}
	if err == nil {
		err = p.control.Flush()
	}
	if err == nil {
		// A build may be silent for longer than that.
		err = p.control.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		p.lost()
	}
	return n, err
}

func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}

func (p *progress) raw(text string) { _, _ = io.WriteString(p, text) }

func (p *progress) say(lines ...string) {
	for _, l := range lines {
		p.raw(" !     " + l + "\n")
	}
}
