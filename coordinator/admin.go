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
	"manifold/coordinator/store"
)

// The admin socket is for commands on this machine that need the running
// coordinator. Its mode, 0600, is all the authentication there is. A request
// that is refused gets a sentence as plain text.
//
//	POST /v1/join-tokens  {"life": nanoseconds}                ──▶  {"token": "…"}
//	GET  /v1/hosts                                             ──▶  [KnownHost]
//	GET  /v1/users                                             ──▶  [{"id": "…", "email": "…", "created_at": "…"}]
//	POST /v1/users        {"email": "…"}                       ──▶  {"id": "…", "email": "…", "created_at": "…", "token": "…"}
//	PUT  /v1/passwords    {"email": "…", "password": "…"}      ──▶  {}
//	DELETE /v1/users      RemoveUser                           ──▶  {"user": {…}, "apps": ["…"], "removed": true}

type joinTokenRequest struct {
	Life time.Duration `json:"life"`
}

type joinTokenReply struct {
	Token string `json:"token"`
}

type userRequest struct {
	Email string `json:"email"`
}

type passwordRequest struct {
	Email    string `json:"email"`
	Password string `json:"password"`
}

// NewUser is a user and their first API token.
type NewUser struct {
	manifold.User
	Token string `json:"token"`
}

func (r *rooms) admin() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /v1/join-tokens", adminCall(r, func(ctx context.Context, in joinTokenRequest) (any, error) {
		if in.Life <= 0 {
			return nil, &manifold.InvalidError{What: "life", Why: "must be a number of nanoseconds above 0"}
		}
		token, err := r.joinToken(ctx, in.Life)
		return joinTokenReply{token}, err
	}))
	mux.Handle("GET /v1/hosts", adminCall(r, func(ctx context.Context, _ struct{}) (any, error) {
		return r.knownHosts(ctx)
	}))
	mux.Handle("GET /v1/users", adminCall(r, func(ctx context.Context, _ struct{}) (any, error) {
		return r.store.Users(ctx)
	}))
	mux.Handle("POST /v1/users", adminCall(r, func(ctx context.Context, in userRequest) (any, error) {
		user, token, err := r.store.CreateUser(ctx, in.Email)
		return NewUser{user, token}, err
	}))
	mux.Handle("DELETE /v1/users", adminCall(r, r.removeUser))
	mux.Handle("PUT /v1/passwords", adminCall(r, func(ctx context.Context, in passwordRequest) (any, error) {
		return struct{}{}, r.store.SetPassword(ctx, in.Email, in.Password)
	}))
	return mux
}

// adminCall is one call of the admin socket: JSON in, JSON out.
func adminCall[In any](r *rooms, do func(context.Context, In) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var in In
		if req.Method != http.MethodGet {
			if err := json.NewDecoder(http.MaxBytesReader(w, req.Body, 4096)).Decode(&in); err != nil {
				http.Error(w, "the request is not the JSON this call takes", http.StatusUnprocessableEntity)
				return
			}
		}
		out, err := do(req.Context(), in)
		var invalid *manifold.InvalidError
		switch {
		case errors.As(err, &invalid), errors.Is(err, store.ErrTaken), errors.Is(err, store.ErrNotFound):
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		case err != nil:
			r.cfg.Log.Error("a call of the admin socket failed", "call", req.Pattern, "err", err)
			http.Error(w, "the coordinator failed; its log says why", http.StatusInternalServerError)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(out) // the caller may be gone
		}
	})
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
	var reply joinTokenReply
	if err := askAdmin(ctx, s, http.MethodPost, "/v1/join-tokens", joinTokenRequest{life}, &reply); err != nil {
		return "", fmt.Errorf("make a join token: %w", err)
	}
	return reply.Token, nil
}

// AddUser has the running coordinator of this instance make a user.
func AddUser(ctx context.Context, s manifold.Settings, email string) (NewUser, error) {
	var reply NewUser
	if err := askAdmin(ctx, s, http.MethodPost, "/v1/users", userRequest{email}, &reply); err != nil {
		return reply, fmt.Errorf("add the user: %w", err)
	}
	return reply, nil
}

// Users asks the running coordinator of this instance for all users, by email.
func Users(ctx context.Context, s manifold.Settings) ([]manifold.User, error) {
	var reply []manifold.User
	if err := askAdmin(ctx, s, http.MethodGet, "/v1/users", nil, &reply); err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	return reply, nil
}

// SetPassword has the running coordinator of this instance set a user's
// password.
func SetPassword(ctx context.Context, s manifold.Settings, email, password string) error {
	if err := askAdmin(ctx, s, http.MethodPut, "/v1/passwords", passwordRequest{email, password}, &struct{}{}); err != nil {
		return fmt.Errorf("set the password: %w", err)
	}
	return nil
}

// askAdmin makes one call of the admin socket.
func askAdmin(ctx context.Context, s manifold.Settings, method, path string, in, out any) error {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", adminSocket(s))
		},
	}}
	defer client.CloseIdleConnections()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://coordinator"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("is the coordinator running here, and are you root? %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", bytes.TrimSpace(text))
	}
	return json.Unmarshal(text, out)
}
