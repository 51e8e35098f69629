package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/store"
)

// join trades a join token for a certificate. It is the one path without a
// client certificate; whoever comes here knows our CA by the token alone.
func (s *Server) join(w http.ResponseWriter, r *http.Request) error {
	var req manifold.JoinRequest
	if err := readJSON(w, r, maxJoinBody, &req); err != nil {
		return err
	}
	if req.Role != manifold.RoleAgent && req.Role != manifold.RoleRouter {
		return refuse(http.StatusUnprocessableEntity, "invalid_params", "the role must be %s or %s", manifold.RoleAgent, manifold.RoleRouter)
	}
	if len(req.Name) > 253 || strings.ContainsFunc(req.Name, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return refuse(http.StatusUnprocessableEntity, "invalid_params", "the name must be at most 253 printable characters")
	}
	secret, _, _ := strings.Cut(req.Token, ".")
	if err := s.cfg.Store.RedeemJoinToken(r.Context(), secret); err != nil {
		if !errors.Is(err, store.ErrUnauthorized) {
			return s.failed("redeem a join token", err)
		}
		s.cfg.Log.Warn("refused to let someone join: wrong or expired token", "from", r.RemoteAddr, "role", req.Role, "name", req.Name)
		return refuse(http.StatusUnauthorized, "unauthorized", "the join token is wrong or has expired; print a new one with: manifold-coordinator join-token")
	}
	id := uuid.NewString()
	cert, err := s.cfg.CA.Sign([]byte(req.CSR), id, req.Role)
	if err != nil {
		return refuse(http.StatusUnprocessableEntity, "invalid_params", "the certificate request was refused: %v", err)
	}
	if req.Role == manifold.RoleAgent {
		if err := s.cfg.Store.AddHost(r.Context(), manifold.Host{ID: id, Name: req.Name, JoinedAt: time.Now().UTC()}); err != nil {
			return s.failed("keep a new host", err)
		}
	}
	s.cfg.Log.Info("joined", "role", req.Role, "id", id, "name", req.Name, "from", r.RemoteAddr)
	w.Header().Set("Content-Type", "application/json")
	reply := manifold.JoinReply{ID: id, Cluster: s.cfg.Cluster, Cert: string(cert), CA: string(s.cfg.CA.PEM())}
	if err := json.NewEncoder(w).Encode(reply); err != nil {
		s.cfg.Log.Debug("join reply did not arrive", "id", id, "err", err) // it joins again, under a new id
	}
	return nil
}

// failed logs an error that is ours and returns it for a plain 500.
func (s *Server) failed(doing string, err error) error {
	s.cfg.Log.Error("could not "+doing, "err", err)
	return fmt.Errorf("%s: %w", doing, err)
}
