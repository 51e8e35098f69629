package fleet

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"

	"manifold"
)

// tlsConfig asks every peer for a certificate and lets one without through,
// since joining is how a peer gets its first. Each path checks the role.
func (s *Server) tlsConfig() (*tls.Config, error) {
	cert, err := s.cfg.CA.Server(s.cfg.Names...)
	if err != nil {
		return nil, fmt.Errorf("make the fleet's certificate: %w", err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		ClientAuth:   tls.VerifyClientCertIfGiven,
		ClientCAs:    s.cfg.CA.Pool(),
	}, nil
}

// handler is the table of wire.go's paths and who may use them.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /fleet/v1/join", answer(s.join))
	for pattern, h := range map[string]peerHandler{
		"GET /fleet/v1/desired":                          s.streamDesired,
		"POST /fleet/v1/observed":                        s.takeObserved,
		"GET /fleet/v1/images/{digest}":                  s.serveImage,
		"GET /fleet/v1/jobs/{assignment}/input":          s.serveInput,
		"PUT /fleet/v1/jobs/{assignment}/outputs/{name}": s.takeOutput,
		"POST /fleet/v1/attach/{session}":                s.attach,
		"GET /fleet/v1/routes":                           s.streamRoutes,
		"POST /fleet/v1/routes/ack":                      s.takeAck,
		"POST /fleet/v1/logs":                            s.takeLogs,
	} {
		roles := []string{manifold.RoleAgent}
		switch pattern {
		case "GET /fleet/v1/routes", "POST /fleet/v1/routes/ack":
			roles = []string{manifold.RoleRouter}
		case "POST /fleet/v1/logs":
			roles = []string{manifold.RoleAgent, manifold.RoleRouter}
		}
		mux.Handle(pattern, peersOnly(roles, h))
	}
	return mux
}

// peerHandler answers a peer whose id was read from its certificate.
type peerHandler func(w http.ResponseWriter, r *http.Request, peer string) error

// refusal is an error with the status and text the peer shall see. Any other
// error is answered with 500 and not shown.
type refusal struct {
	status int
	id     string
	text   string
}

func (e *refusal) Error() string { return e.text }

func refuse(status int, id, text string, args ...any) error {
	return &refusal{status, id, fmt.Sprintf(text, args...)}
}

// peersOnly lets peers of the given roles through. The role is the
// certificate's only OrganizationalUnit, the id its CommonName; crypto/tls has
// verified the chain.
func peersOnly(roles []string, h peerHandler) http.Handler {
	return answer(func(w http.ResponseWriter, r *http.Request) error {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			return refuse(http.StatusUnauthorized, "unauthorized", "no client certificate: join first")
		}
		subject := r.TLS.PeerCertificates[0].Subject
		for _, role := range roles {
			if len(subject.OrganizationalUnit) == 1 && subject.OrganizationalUnit[0] == role && uuid.Validate(subject.CommonName) == nil {
				return h(w, r, subject.CommonName)
			}
		}
		return refuse(http.StatusForbidden, "forbidden", "this path is not for the role of this certificate")
	})
}

// answer turns a handler's error into an ErrorBody.
type answer func(w http.ResponseWriter, r *http.Request) error

func (h answer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = &patientBody{ReadCloser: r.Body, in: http.NewResponseController(w)}
	err := h(w, r)
	if err == nil {
		return
	}
	var no *refusal
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &no):
	case errors.As(err, &tooLarge):
		no = &refusal{http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body may be at most %d bytes", tooLarge.Limit)}
	default:
		no = &refusal{http.StatusInternalServerError, "internal_server_error", "the coordinator failed; its log says why"}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(no.status)
	_ = json.NewEncoder(w).Encode(manifold.ErrorBody{ID: no.id, Message: no.text}) // the peer may be gone
}

// patientBody gives up a body that brings no byte for readTimeout.
type patientBody struct {
	io.ReadCloser
	in *http.ResponseController
}

func (b *patientBody) Read(p []byte) (int, error) {
	_ = b.in.SetReadDeadline(time.Now().Add(readTimeout)) // where it cannot be set, the connection's pings remain
	return b.ReadCloser.Read(p)
}

// readJSON reads a bounded body into v.
func readJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return refuse(http.StatusBadRequest, "bad_request", "the body is not the JSON this path takes: %v", err)
	}
	return nil
}
