package platform

import (
	"bytes"
	"hash/crc32"
	"io"
	"net/http"
	"strings"
	"sync"
)

// conditions are held while a change that depends on If-Match is made, so that
// of two writers who read the same only one changes it. An app is always
// behind the same of them.
type conditions [64]sync.Mutex

func (m *conditions) of(app string) *sync.Mutex {
	return &m[crc32.ChecksumIEEE([]byte(app))%uint32(len(m))]
}

// perform calls the endpoint if what the caller says in If-Match holds of what
// a GET of the same path shows (RFC 9110, 13.1.1), else it fails with 412. It
// keeps out others who send If-Match, not those who do not care.
func (c *call) perform(h handler) (answer, error) {
	tags := c.Header.Values("If-Match")
	if len(tags) == 0 {
		return h(c)
	}
	_, path, _ := strings.Cut(c.Pattern, " ")
	if c.Method == http.MethodGet || c.Method == http.MethodHead {
		ans, err := h(c)
		if err == nil {
			err = stillIs(ans, tags)
		}
		return ans, err
	}
	text, err := c.text() // before the lock: it comes as slowly as its sender likes
	if err != nil {
		return answer{}, err
	}
	c.Body = io.NopCloser(bytes.NewReader(text))
	app := c.api.conditions.of(c.PathValue("app"))
	app.Lock()
	defer app.Unlock()
	show := c.api.shows[path]
	if show == nil {
		return answer{}, notTheSame
	}
	now := *c
	now.Request = c.Clone(c.Context())
	now.Method, now.Body = http.MethodGet, http.NoBody
	now.Header.Del("Range")
	ans, err := show(&now)
	if err == nil {
		err = stillIs(ans, tags)
	}
	if err != nil {
		return answer{}, err
	}
	return h(c)
}

// stillIs compares strongly, as RFC 9110, 13.1.1 demands.
func stillIs(ans answer, tags []string) error {
	_, etag, err := ans.encode()
	if err != nil {
		return err
	}
	for tag := range strings.SplitSeq(strings.Join(tags, ","), ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || tag == etag {
			return nil
		}
	}
	return notTheSame
}

var notTheSame = &fault{
	Status: http.StatusPreconditionFailed, ID: "precondition_failed",
	Message: "It is not (any more) what If-Match says. Read it again, and send the ETag that comes with it.",
}
