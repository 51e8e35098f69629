package door

import (
	"encoding/json"
	"net/http"
	"time"
)

// Bounds on answers that go on.
const (
	maxFollowers = 64
	signOfLife   = 5 * time.Second  // an empty line
	slowClient   = 10 * time.Second // one that takes nothing for so long is let go
)

// stream is an answer of JSON objects, one a line.
type stream struct {
	follow  bool
	r       *http.Request
	control *http.ResponseController
	w       http.ResponseWriter
	alive   *time.Ticker
}

// stream answers by lines for as long as send does, which with ?follow=true
// may be as long as the client stays.
func (d *Door) stream(w http.ResponseWriter, r *http.Request, send func(*stream) error) error {
	s := &stream{follow: r.URL.Query().Get("follow") == "true", r: r, w: w, control: http.NewResponseController(w)}
	if s.follow {
		select {
		case d.followers <- struct{}{}:
			defer func() { <-d.followers }()
		default:
			return refuse(http.StatusServiceUnavailable, "busy", "%d clients follow something already; ask without following", maxFollowers)
		}
	}
	s.alive = time.NewTicker(signOfLife)
	defer s.alive.Stop()
	w.Header().Set("Content-Type", "application/x-ndjson")
	if err := s.flush(); err != nil {
		return nil
	}
	if err := send(s); err != nil {
		d.log.Debug("a stream on the socket ended", "request", r.URL.Path, "error", err)
	}
	return nil
}

// send writes a line. An error means that the client is gone, or too slow.
func (s *stream) send(v any) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(slowClient)); err != nil {
		return err
	}
	return json.NewEncoder(s.w).Encode(v)
}

func (s *stream) flush() error {
	if err := s.control.SetWriteDeadline(time.Now().Add(slowClient)); err != nil {
		return err
	}
	return s.control.Flush()
}

// wait gives the client what there is, and waits for more; false when the
// client or the door is gone. Meanwhile an empty line shows that we are alive.
func (s *stream) wait(more <-chan struct{}) bool {
	for {
		if s.flush() != nil {
			return false
		}
		select {
		case <-more:
			return true
		case <-s.r.Context().Done():
			return false
		case <-s.alive.C:
			if _, err := s.w.Write([]byte("\n")); err != nil {
				return false
			}
		}
	}
}

// pause is wait for a time.
func (s *stream) pause(d time.Duration) bool {
	more := make(chan struct{})
	timer := time.AfterFunc(d, func() { close(more) })
	defer timer.Stop()
	return s.wait(more)
}
