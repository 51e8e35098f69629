package platform

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestToken(t *testing.T) {
	r := newRig(t)
	short, err := r.store.CreateToken(t.Context(), r.user, "short", time.Nanosecond)
	if err != nil {
		t.Fatal(err)
	}
	basic := func(user, password string) string {
		req := &http.Request{Header: http.Header{}}
		req.SetBasicAuth(user, password)
		return req.Header.Get("Authorization")
	}
	for _, tc := range []struct {
		name, auth string
		status     int
	}{
		{"bearer", "Bearer " + r.token, 200},
		{"bearer in another case", "bearer " + r.token, 200},
		{"basic, no user", basic("", r.token), 200},
		{"basic, any user", basic("ada@example.com", r.token), 200},
		{"missing", "", 401},
		{"the CLI's, not logged in", "Bearer undefined", 401},
		{"wrong", "Bearer " + r.token + "x", 401},
		{"a part of it", "Bearer " + r.token[:20], 401},
		{"expired", "Bearer " + short, 401},
		{"as basic user", basic(r.token, ""), 401},
		{"broken base64", "Basic !!!", 401},
		{"scheme only", "Bearer", 401},
		{"a path", "Bearer ../../tokens/x", 401},
		{"huge", "Bearer " + strings.Repeat("x", 64<<10), 401},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := r.on(t)
			for _, path := range []string{"/account", "/apps", "/no/such/path"} {
				got := r.send("GET", path, "", "Authorization", tc.auth)
				if tc.status == 401 {
					got.fails(401, "unauthorized", "HEROKU_API_KEY")
					if got.header.Get("WWW-Authenticate") == "" {
						t.Error("a 401 without WWW-Authenticate (RFC 9110, 15.5.2)")
					}
				} else if got.status == 401 {
					t.Errorf("%s: 401 with a good token", path)
				}
			}
		})
	}
}

func TestAccept(t *testing.T) {
	r := newRig(t)
	for accept, status := range map[string]int{
		"application/vnd.heroku+json; version=3":            200,
		"application/vnd.heroku+json;version=3":             200,
		"application/vnd.heroku+json; version=3.sdk":        200,
		"application/vnd.heroku+json; version=3.run-inside": 200,
		"application/json":                                  200,
		"*/*":                                               200,
		"":                                                  200,
		"text/html, application/vnd.heroku+json; version=3":   200,
		"application/vnd.heroku+json; version=2":              406,
		"application/vnd.heroku+json; version=30":             406,
		"application/vnd.heroku+json; version=edge":           406,
		"text/html, application/vnd.heroku+json; version=4":   406,
		"APPLICATION/VND.HEROKU+JSON; VERSION=2":              406,
		"application/vnd.heroku+json; version=\"1\"; q=0.5":   406,
		"application/vnd.heroku+json; version=" + "9\t<\"&'>": 406,
	} {
		got := r.send("GET", "/account", "", "Accept", accept)
		if got.status != status {
			t.Errorf("Accept %q: status %d, want %d", accept, got.status, status)
		}
		if status == 406 {
			got.fails(406, "not_acceptable", "version=3")
		}
	}
}

func TestBodies(t *testing.T) {
	r := newRig(t)
	app := r.app("bodies")
	for _, tc := range []struct {
		name, body string
		status     int
	}{
		{"none", "", 200},
		{"blanks", " \n\t ", 200},
		{"empty object", "{}", 200},
		{"null", "null", 200},
		{"unknown fields", `{"docker_image":1,"x":{"y":[1,2]}}`, 200},
		{"not JSON", `name=foo`, 400},
		{"cut short", `{"name":"fo`, 400},
		{"two values", `{}{}`, 400},
		{"an array", `[]`, 400},
		{"wrong type", `{"name":{"a":1}}`, 400},
		{"wrong type", `{"maintenance":"yes"}`, 400},
		{"invalid UTF-8", "{\"name\":\"a\xffb\"}", 400},
		{"deep nesting", `{"x":` + strings.Repeat("[", 500_000) + strings.Repeat("]", 500_000) + `}`, 400},
		{"deep nesting without end", strings.Repeat(`{"x":`, 200_000), 400},
		{"over 1 MB", `{"name":"` + strings.Repeat("x", 1<<20) + `"}`, 413},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := r.on(t)
			got := r.send("PATCH", "/apps/"+app.Name, tc.body).want(tc.status)
			if tc.status != 200 {
				got.fails(tc.status, "bad_request")
			}
		})
	}
}

func TestEveryAnswerHasItsHeaders(t *testing.T) {
	r := newRig(t)
	seen := map[string]bool{}
	for _, path := range []string{"/account", "/apps/none", "/nothing"} {
		got := r.send("GET", path, "", "Request-Id", "a,b,c")
		id := got.header.Get("Request-Id")
		if len(id) != 36 || seen[id] {
			t.Errorf("%s: Request-Id %q", path, id)
		}
		seen[id] = true
		if got.header.Get("Content-Type") != "application/json" || got.header.Get("ETag") == "" {
			t.Errorf("%s: headers %v", path, got.header)
		}
	}
}

func TestETag(t *testing.T) {
	r := newRig(t)
	app := r.app("tagged")
	get := func(tag string) reply { return r.send("GET", "/apps/"+app.Name, "", "If-None-Match", tag) }
	tag := get("").want(200).header.Get("ETag")
	for _, match := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
		if got := get(match).want(304); got.text != "" {
			t.Errorf("304 with a body: %s", got.text)
		}
	}
	get(`"other"`).want(200)
	r.send("PATCH", "/apps/"+app.Name, `{"maintenance":true}`, "If-None-Match", "*").want(200)
	get(tag).want(200)
	r.send("GET", "/apps/none", "", "If-None-Match", "*").want(404)
}

// A change that names what its author last read is made only if that is still
// so: of many who read the same, one succeeds.
func TestIfMatch(t *testing.T) {
	r := newRig(t)
	app := r.app("matched")
	r.deploy(app, map[string]string{"web": "bin/web"})
	const path = "/apps/matched/formation/web"
	old := r.send("GET", path, "").want(200).header.Get("ETag")
	r.send("PATCH", path, `{"quantity":2}`, "If-Match", `"x", `+old).want(200)
	r.send("PATCH", path, `{"quantity":3}`, "If-Match", old).fails(412, "precondition_failed", "ETag")
	r.send("PATCH", path, `{"quantity":3}`, "If-Match", "*", "Range", "id ..; max=1").want(200)
	now := r.send("GET", path, "").want(200).header.Get("ETag")
	r.send("GET", path, "", "If-Match", now).want(200)
	r.send("GET", path, "", "If-Match", old).fails(412, "precondition_failed")
	r.send("PATCH", path, `{"quantity":4}`, "If-Match", "W/"+now).fails(412, "precondition_failed") // weak tags never match
	r.send("PATCH", "/apps/matched/formation/none", "{}", "If-Match", "*").fails(404, "not_found")
	r.send("DELETE", "/apps/matched/build-cache", "", "If-Match", "*").fails(412, "precondition_failed") // nothing can be read there
	r.send("PATCH", path, `{"x":"`+strings.Repeat("x", 1<<20)+`"}`, "If-Match", now).fails(413, "bad_request")

	var done sync.WaitGroup
	statuses := make(chan int, 10)
	for range cap(statuses) {
		done.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), "PATCH", r.url+path, strings.NewReader(`{"quantity":"+1"}`))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header = http.Header{"Authorization": {"Bearer " + r.token}, "If-Match": {now}}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
			statuses <- res.StatusCode
		})
	}
	done.Wait()
	close(statuses)
	won := 0
	for status := range statuses {
		if status == 200 {
			won++
		} else if status != 412 {
			t.Errorf("status %d", status)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d writers who had read the same changed it", won, cap(statuses))
	}
}

func TestHead(t *testing.T) {
	r := newRig(t)
	get, head := r.send("GET", "/account", "").want(200), r.send("HEAD", "/account", "").want(200)
	if head.text != "" || head.header.Get("ETag") != get.header.Get("ETag") || head.header.Get("Content-Length") == "" {
		t.Errorf("HEAD differs from GET: %v %q", head.header, head.text)
	}
}

func TestUnknownEndpoint(t *testing.T) {
	r := newRig(t)
	for _, req := range [][2]string{{"GET", "/nothing"}, {"PUT", "/apps"}, {"DELETE", "/account"}, {"POST", "/apps/x/dynos/y/z/w"}, {"GET", "/"}} {
		r.send(req[0], req[1], "").fails(404, "not_found", req[0], req[1])
	}
}

func TestAppNamesThatArePathsOrHosts(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"..%2f..%2fetc", "%2e%2e", "localhost:5000", "a%00b", "%ff%fe", "app%0d%0aX: y", strings.Repeat("x", 4000)} {
		r.send("GET", "/apps/"+name, "").fails(404, "not_found")
	}
}

// A failure of ours shows the caller a request id and nothing of its insides.
func TestOurOwnFailure(t *testing.T) {
	r := newRig(t)
	app := r.app("failing")
	r.dynos.err = errBroken
	got := r.send("DELETE", "/apps/"+app.Name+"/dynos", "")
	got.fails(500, "internal_server_error", got.header.Get("Request-Id"))
	if strings.Contains(got.text, "secret path") {
		t.Errorf("the answer shows our insides: %s", got.text)
	}
}

// A body that does not come and an answer that is not read both end.
func TestSlowPeers(t *testing.T) {
	r := newRig(t)
	app := r.app("slow")
	server := r.impatient(300 * time.Millisecond)
	for name, request := range map[string]string{
		"a body that stops":            "PATCH /apps/" + app.Name + " HTTP/1.1\r\nContent-Length: 100\r\nHost: x\r\nAuthorization: TOKEN\r\n\r\n{\"name\":",
		"a body nobody waits for":      "DELETE /apps/" + app.Name + "/dynos HTTP/1.1\r\nContent-Length: 100\r\nHost: x\r\nAuthorization: TOKEN\r\n\r\n{",
		"a body that stops, no token":  "POST /apps HTTP/1.1\r\nContent-Length: 100\r\nHost: x\r\n\r\n{",
		"a body in pieces without end": "PATCH /apps/" + app.Name + " HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: x\r\nAuthorization: TOKEN\r\n\r\n5\r\n{\"a\":\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, strings.Replace(request, "TOKEN", "Bearer "+r.token, 1)); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("the connection was not ended: %v", err)
			}
		})
	}
}
