package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"manifold"
	"manifold/coordinator/attach"
)

// attach lets a host's agent into a session (manifold.AttachProtocol). The
// answer waits for the session's client; then the connection is the room's.
func (s *Server) attach(w http.ResponseWriter, r *http.Request, host string) error {
	if r.ProtoMajor != 1 || !strings.EqualFold(r.Header.Get("Upgrade"), manifold.AttachProtocol) {
		return refuse(http.StatusUpgradeRequired, "upgrade_required", "this path is for connections over HTTP/1.1 that upgrade to %s", manifold.AttachProtocol)
	}
	s.sessions.Add(1)
	defer s.sessions.Done()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	s.sessions.Go(func() {
		select {
		case <-s.done:
			cancel()
		case <-ended:
		}
	})
	line, err := s.cfg.Attach.Wait(ctx, r.PathValue("session"), host)
	switch {
	case errors.Is(err, attach.ErrNoSession):
		return refuse(http.StatusNotFound, "not_found", "this host has no such session")
	case errors.Is(err, attach.ErrNoClient):
		return refuse(http.StatusGone, "no_client", "the session's client did not come")
	case err != nil:
		return refuse(http.StatusServiceUnavailable, "service_unavailable", "the coordinator ends")
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		line.Drop()
		return s.failed("take over a session's connection", err)
	}
	defer context.AfterFunc(ctx, line.Drop)()
	_ = conn.SetDeadline(time.Time{})
	is, err := json.Marshal(line.Attach())
	if err != nil {
		line.Drop()
		return s.failed("say what a client is", err)
	}
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %s\r\n\r\n",
		manifold.AttachProtocol, manifold.AttachHeader, is); err != nil {
		line.Drop()
		return nil // the agent is gone; there is nobody to answer
	}
	line.Carry(conn, buffered.Reader)
	return nil
}
