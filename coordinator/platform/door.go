package platform

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/store"
)

// maxBody bounds a request's JSON. encoding/json itself refuses to nest
// deeper than 10,000.
const maxBody = 1 << 20

// maxTime is how long a call may take, its body's arrival and its answer's
// departure included, so that no slow peer holds us up. The CLI gives up after
// as long.
const maxTime = time.Minute

// call is one authenticated request on its way through a handler.
type call struct {
	*http.Request
	api   *api
	id    string // Request-Id of our answer
	user  manifold.User
	token store.Authorization

	author *store.Author
}

// handler answers one endpoint. It writes nothing itself.
type handler func(*call) (answer, error)

// door is what every request passes: it gets a Request-Id, must ask for a
// version we speak, must carry a token, and is counted.
func (a *api) door(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		end := time.Now().Add(a.maxTime)
		conn := http.NewResponseController(w)
		// No error: a ResponseWriter without deadlines is a test's.
		_, _ = conn.SetReadDeadline(end), conn.SetWriteDeadline(end)
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		c := &call{Request: r, api: a, id: uuid.NewString()}
		w.Header().Set("Request-Id", c.id)
		ans, err := c.admit(h, w.Header())
		if err != nil {
			ans = c.explain(err)
		}
		ans.write(w, r)
		_ = conn.Flush()
		_ = conn.SetWriteDeadline(time.Time{}) // the connection may serve others next
	})
}

func (c *call) admit(h handler, header http.Header) (answer, error) {
	if err := checkAccept(c.Header.Values("Accept")); err != nil {
		return answer{}, err
	}
	if err := c.authenticate(); err != nil {
		return answer{}, err
	}
	c.sign("")
	if err := c.spend(header); err != nil {
		return answer{}, err
	}
	if err := c.checkScope(); err != nil {
		return answer{}, err
	}
	return c.perform(h)
}

// vendorType finds the version in the API's own media type. Variants such as
// "3.sdk" are what the CLI asks for; they differ from 3 in nothing we serve.
var vendorType = regexp.MustCompile(`(?i)^\s*application/vnd\.heroku\+json\s*(?:;\s*version\s*=\s*"?([^";\s]*)"?)?`)

// checkAccept refuses a version other than 3. Clients that name no version,
// such as a bare curl, get 3.
func checkAccept(values []string) error {
	for _, part := range strings.Split(strings.Join(values, ","), ",") {
		m := vendorType.FindStringSubmatch(part)
		if m == nil || m[1] == "" || m[1] == "3" || strings.HasPrefix(m[1], "3.") {
			continue
		}
		return &fault{
			Status: http.StatusNotAcceptable, ID: "not_acceptable",
			Message: fmt.Sprintf("This API has no version %q. Send the header: Accept: application/vnd.heroku+json; version=3", clip(m[1])),
		}
	}
	return nil
}

// bearer finds the API token: a Bearer token, or the password of Basic
// authentication with any user name. The CLI sends "Bearer undefined" when
// nobody is logged in; that is a wrong token like any other.
func bearer(r *http.Request) string {
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(value)
	}
	_, password, _ := r.BasicAuth()
	return password
}

// text reads the request's body.
func (c *call) text() ([]byte, error) {
	text, err := io.ReadAll(c.Body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, badRequest(http.StatusRequestEntityTooLarge, "The request's body is larger than %d KB.", tooLarge.Limit>>10)
	case err != nil:
		return nil, badRequest(http.StatusBadRequest, "The request's body could not be read to its end.")
	}
	return text, nil
}

func badRequest(status int, format string, args ...any) error {
	return &fault{Status: status, ID: "bad_request", Message: fmt.Sprintf(format, args...)}
}

// body reads the request's JSON into v, whose unknown fields it ignores. No
// body at all is an empty object.
func (c *call) body(v any) error {
	bad := func(format string, args ...any) error { return badRequest(http.StatusBadRequest, format, args...) }
	text, err := c.text()
	switch {
	case err != nil:
		return err
	case !utf8.Valid(text):
		return bad("The request's body is not valid UTF-8.")
	case len(strings.TrimSpace(string(text))) == 0:
		return nil
	}
	err = json.Unmarshal(text, v)
	var wrongType *json.UnmarshalTypeError
	var invalid *manifold.InvalidError
	switch {
	case errors.As(err, &invalid):
		return invalid
	case errors.As(err, &wrongType):
		return bad("The request's JSON has a %s where %q must be something else.", wrongType.Value, clip(strings.ToLower(wrongType.Field)))
	case err != nil:
		return bad("The request's body is not the JSON this endpoint takes: %s.", clip(err.Error()))
	}
	return nil
}

// onApp wraps a handler of a path below /apps/{app}. It is the one place that
// decides whether the caller may touch the app: someone else's does not exist
// for them.
func onApp(h func(*call, manifold.App) (answer, error)) handler {
	return func(c *call) (answer, error) {
		name := c.PathValue("app")
		if uuid.Validate(name) != nil && manifold.CheckAppName(name) != nil {
			return answer{}, noApp
		}
		app, err := c.api.Store.App(c.Context(), name)
		if errors.Is(err, store.ErrNotFound) || err == nil && !app.Lets(c.user.ID) {
			return answer{}, noApp
		}
		if err != nil {
			return answer{}, err
		}
		ans, err := h(c, app)
		c.logChanges(app)
		return ans, err
	}
}

var noApp = notFound("app", "There is no app of yours by that name. List yours with: heroku apps")

// stringOr reads a JSON string into s, or an object into v.
func stringOr(text []byte, s *string, v any) error {
	if text[0] == '{' {
		return json.Unmarshal(text, v)
	}
	return json.Unmarshal(text, s)
}
