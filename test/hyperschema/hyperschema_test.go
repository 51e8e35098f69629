package hyperschema

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// canned answers every request with one body.
type canned string

func (c canned) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(c))),
	}, nil
}

func TestAnswersAreHeldAgainstTheDescription(t *testing.T) {
	for body, want := range map[string]int{
		`{"id":"01234567-89ab-cdef-0123-456789abcdef","name":"cedar-10","state":"public","default":true,"created_at":"2012-01-01T12:00:00Z","updated_at":"2012-01-01T12:00:00Z"}`: 0,
		`{"id":"01234567-89ab-cdef-0123-456789abcdef","name":"cedar-10","default":true,"created_at":"2012-01-01T12:00:00Z","updated_at":"2012-01-01T12:00:00Z"}`:                  1, // no state
		`{"id":"x","name":"cedar-10","state":"public","default":true,"created_at":"2012-01-01T12:00:00Z","updated_at":"2012-01-01T12:00:00Z"}`:                                    1, // no UUID
		`{"id":"01234567-89ab-cdef-0123-456789abcdef","name":"cedar-10","state":"public","default":true,"created_at":"yesterday","updated_at":"2012-01-01T12:00:00Z"}`:            1,
		`[]`: 1, `{`: 1,
	} {
		s, err := Load(".")
		if err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequest("GET", "http://localhost/stacks/cedar-10", nil)
		req.Header.Set("Accept", "application/vnd.heroku+json; version=3")
		res, err := s.Watch(canned(body)).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if passed, _ := io.ReadAll(res.Body); string(passed) != body {
			t.Errorf("%s came out as %s", body, passed)
		}
		if got := s.Violations(); len(got) != want {
			t.Errorf("%s: %d violations, want %d: %q", body, len(got), want, got)
		}
		if want == 0 && (len(s.Answered()) != 1 || !strings.HasPrefix(s.Report(), "1 of 290 links")) {
			t.Errorf("%q, %s", s.Answered(), s.Report())
		}
	}
}
