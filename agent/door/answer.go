package door

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"manifold"
)

// handler answers a request, or returns why it did not before it wrote
// anything.
type handler func(w http.ResponseWriter, r *http.Request) error

// Refusal is an error with the status and the id it is answered by. Agents
// return it where a person asked for what cannot be.
type Refusal struct {
	Status  int    // of HTTP
	ID      string // "not_found", …
	Message string // for the person who asked: what is wrong, what to do
}

func (r *Refusal) Error() string { return r.Message }

func refuse(status int, id, message string, args ...any) error {
	return &Refusal{status, id, fmt.Sprintf(message, args...)}
}

// answering makes a handler's error the answer; one that is no Refusal is the
// agent's own fault.
func (d *Door) answering(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil {
			return
		}
		var refusal *Refusal
		if !errors.As(err, &refusal) {
			if r.Context().Err() == nil { // else the client left, or the agent ends: then it may still listen
				d.log.Error("a request on the socket failed", "request", r.Method+" "+r.URL.Path, "error", err)
			}
			refusal = &Refusal{http.StatusInternalServerError, "failed", err.Error()}
		}
		_ = answer(w, refusal.Status, manifold.ErrorBody{ID: refusal.ID, Message: refusal.Message})
	})
}

// answer writes v as JSON, with its length: what was flushed is all of it. A
// client that left is nobody to tell.
func answer(w http.ResponseWriter, status int, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
	return nil
}

func ok(w http.ResponseWriter, v any) error { return answer(w, http.StatusOK, v) }
