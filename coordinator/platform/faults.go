package platform

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"manifold"
	"manifold/coordinator/store"
)

// fault is an error as the API words it. Message is for the person at the
// other end and holds nothing secret.
type fault struct {
	Status   int    `json:"-"`
	Resource string `json:"resource,omitempty"` // what was not found, for the CLI
	ID       string `json:"id"`
	Message  string `json:"message"`
	URL      string `json:"url,omitempty"`
}

func (f *fault) Error() string { return f.Message }

func notFound(resource, message string) *fault {
	return &fault{Status: http.StatusNotFound, ID: "not_found", Resource: resource, Message: message}
}

func invalidParams(message string) *fault {
	return &fault{Status: http.StatusUnprocessableEntity, ID: "invalid_params", Message: message}
}

// explain makes the answer of any error. What no rule names is ours: the
// caller learns only the Request-Id, under which the log has the rest.
func (c *call) explain(err error) answer {
	f := asFault(err)
	if f == nil {
		c.api.Log.Error("API request failed", "request", c.id, "endpoint", c.Pattern, "user", c.user.Email, "err", err)
		f = &fault{
			Status: http.StatusInternalServerError, ID: "internal_server_error",
			Message: "The platform failed at this. Try again; if it stays, give its operator this request id: " + c.id,
		}
	}
	ans := answer{status: f.Status, value: f}
	if f.Status == http.StatusUnauthorized {
		ans.header = http.Header{"Www-Authenticate": {`Bearer realm="manifold"`}}
	}
	return ans
}

func asFault(err error) *fault {
	var f *fault
	var invalid *manifold.InvalidError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &invalid):
		return invalidParams(invalid.Error() + ".")
	case errors.Is(err, store.ErrUnauthorized):
		return &fault{
			Status: http.StatusUnauthorized, ID: "unauthorized",
			Message: "The API token is missing, wrong or expired. Put a valid one into HEROKU_API_KEY, or log in with: heroku login -i",
		}
	case errors.Is(err, store.ErrNotFound):
		return notFound("", "It is not there (any more).")
	case errors.Is(err, store.ErrTaken):
		return invalidParams("Name is already taken. Choose another.")
	case errors.Is(err, store.ErrConflict):
		return &fault{Status: http.StatusConflict, ID: "conflict", Message: "Others kept changing this at the same moment. Try again."}
	case errors.Is(err, store.ErrReleasing):
		return &fault{Status: http.StatusConflict, ID: "conflict", Message: "The command of another release is running, and what follows depends on how it ends. Wait for it (heroku releases:output), or stop it (heroku ps:stop release), then try again."}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &fault{Status: http.StatusServiceUnavailable, ID: "service_unavailable", Message: "This took too long. Try again."}
	}
	return nil
}

// clip keeps a stranger's text short in an error message.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}
