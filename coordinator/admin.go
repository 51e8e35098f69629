package coordinator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"manifold"
)

// The admin socket is for commands on this machine that need the running
// coordinator. Its mode, 0600, is all the authentication there is.
//
//	POST /v1/join-tokens  {"life": nanoseconds}  ──▶  {"token": "…"}

type joinTokenRequest struct {
	Life time.Duration `json:"life"`
}

type joinTokenReply struct {
	Token string `json:"token"`
}

func (r *rooms) admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/join-tokens", func(w http.ResponseWriter, req *http.Request) {
		var in joinTokenRequest
		err := json.NewDecoder(http.MaxBytesReader(w, req.Body, 4096)).Decode(&in)
		if err != nil || in.Life <= 0 {
			http.Error(w, "life must be a number of nanoseconds above 0", http.StatusUnprocessableEntity)
			return
		}
		token, err := r.joinToken(req.Context(), in.Life)
		if err != nil {
			r.cfg.Log.Error("could not make a join token", "err", err)
			http.Error(w, "the coordinator failed; its log says why", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(joinTokenReply{token}) // the caller may be gone
	})
	return mux
}

// listenAdmin opens the socket. The store's lock has made sure that no other
// coordinator of this instance lives, so a socket that is there is a dead
// one's.
func listenAdmin(s manifold.Settings) (net.Listener, error) {
	path := adminSocket(s)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open the admin socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("open the admin socket: %w", err), ln.Close())
	}
	return ln, nil
}

// NewJoinToken has the running coordinator of this instance make a join token
// that is good for life.
func NewJoinToken(ctx context.Context, s manifold.Settings, life time.Duration) (string, error) {
	fail := func(err error) (string, error) { return "", fmt.Errorf("make a join token: %w", err) }
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", adminSocket(s))
		},
	}}
	defer client.CloseIdleConnections()
	body, err := json.Marshal(joinTokenRequest{life})
	if err != nil {
		return fail(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://coordinator/v1/join-tokens", bytes.NewReader(body))
	if err != nil {
		return fail(err)
	}
	res, err := client.Do(req)
	if err != nil {
		return fail(fmt.Errorf("is the coordinator running here, and are you root? %w", err))
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err != nil {
		return fail(err)
	}
	var reply joinTokenReply
	if res.StatusCode != http.StatusOK {
		return fail(fmt.Errorf("%s", bytes.TrimSpace(text)))
	}
	if err := json.Unmarshal(text, &reply); err != nil {
		return fail(err)
	}
	return reply.Token, nil
}
