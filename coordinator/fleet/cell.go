package fleet

import (
	"bytes"
	"net/http"
	"sync"
	"time"
)

// cell holds the newest version of one message. Readers that are slow miss
// versions in between: only the newest matters, nothing is queued.
type cell struct {
	mu       sync.Mutex
	body     []byte // what revision was given for
	revision int64  // 0: nothing was set yet
	line     []byte // body and revision as they go over the wire, with newline
	changed  chan struct{}
}

func newCell() *cell { return &cell{changed: make(chan struct{})} }

// set makes body the newest version, under a revision drawn by next, and
// returns its revision. The same body again changes nothing.
func (c *cell) set(body []byte, next func() int64, encode func(revision int64) ([]byte, error)) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.revision != 0 && bytes.Equal(body, c.body) {
		return c.revision, nil
	}
	revision := next()
	line, err := encode(revision)
	if err != nil {
		return 0, err
	}
	c.body, c.revision, c.line = body, revision, append(line, '\n')
	close(c.changed)
	c.changed = make(chan struct{})
	return revision, nil
}

func (c *cell) get() (line []byte, revision int64, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.line, c.revision, c.changed
}

// stream writes every version there is time for, and an empty line in
// silence, until the reader or the server ends.
func (c *cell) stream(w http.ResponseWriter, r *http.Request, done <-chan struct{}) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	send := func(line []byte) bool {
		_ = out.SetWriteDeadline(time.Now().Add(writeTimeout)) // renewed by the heartbeat
		_, err := w.Write(line)
		return err == nil && out.Flush() == nil
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	if !send([]byte{'\n'}) { // the reader sees at once that it is connected
		return
	}
	for sent := int64(0); ; {
		line, revision, changed := c.get()
		if revision != sent {
			if !send(line) {
				return
			}
			sent = revision
			beat.Reset(heartbeat)
		}
		select {
		case <-changed:
		case <-beat.C:
			if !send([]byte{'\n'}) {
				return
			}
		case <-r.Context().Done():
			return
		case <-done:
			return
		}
	}
}
