package platform

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// answer is what a handler gives: a value to show as JSON.
type answer struct {
	status int
	value  any
	header http.Header
}

func ok(v any) (answer, error)      { return answer{status: http.StatusOK, value: v}, nil }
func created(v any) (answer, error) { return answer{status: http.StatusCreated, value: v}, nil }

// accepted says that what was asked for has begun.
func accepted() (answer, error) {
	return answer{status: http.StatusAccepted, value: struct{}{}}, nil
}

// encode gives the answer's body and its ETag, which is made of the body's
// bytes.
func (a answer) encode() (body []byte, etag string, err error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ") // people read it with curl
	if err := enc.Encode(a.value); err != nil {
		return nil, "", fmt.Errorf("encode the answer: %w", err)
	}
	sum := sha256.Sum256(text.Bytes())
	return text.Bytes(), `"` + base64.RawURLEncoding.EncodeToString(sum[:18]) + `"`, nil
}

// write sends the answer. A GET that names its ETag in If-None-Match gets 304
// and no body.
func (a answer) write(w http.ResponseWriter, r *http.Request) {
	body, etag, err := a.encode()
	if err != nil {
		// Only values of shapes.go come here, and all of them encode.
		http.Error(w, `{"id":"internal_server_error","message":"The answer could not be encoded."}`, http.StatusInternalServerError)
		return
	}
	h := w.Header()
	for k, v := range a.header {
		h[k] = v
	}
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "private, no-cache")
	h.Set("ETag", etag)
	h.Set("Vary", "Accept, Authorization, Range")
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	if reads && a.status/100 == 2 && matches(r.Header.Values("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(body) // a reader that left is no error of ours; net/http drops the body of HEAD
}

// matches is If-None-Match by RFC 9110, 13.1.2, which compares weakly.
func matches(values []string, etag string) bool {
	for _, v := range strings.Split(strings.Join(values, ","), ",") {
		if v = strings.TrimSpace(v); v == "*" || strings.TrimPrefix(v, "W/") == etag {
			return true
		}
	}
	return false
}
