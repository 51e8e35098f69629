package test

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"manifold/test/platform"
)

// steady sends requests at a fixed rate, whatever becomes of those before, and
// keeps how each went.
type steady struct {
	mu     sync.Mutex
	took   []time.Duration
	failed []string
	why    []string // what the app's log said at the first of them
	late   int      // not sent in time, since as many as may be were open
	stop   func()
}

// mostOpen is well below what a router has in progress for one web dyno (200;
// more are answered with H11 at once) and what the dyno may have of threads
// (256). A machine that stands still for a moment reaches any bound at 300
// requests a second, and what it met then would be that bound, not a deploy.
const mostOpen = 128

func steadily(t *testing.T, p *platform.Instance, app string, perSecond int, right func(body string) bool) *steady {
	s := &steady{}
	done := make(chan struct{})
	var open sync.WaitGroup
	places := make(chan struct{}, mostOpen)
	one := func() {
		defer func() { <-places }()
		began := time.Now()
		status, body, err := p.Visit(app, "/")
		took := time.Since(began)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.took = append(s.took, took)
		if err != nil || status != 200 || !right(body) {
			s.failed = append(s.failed, fmt.Sprintf("at %s after %s: %d %.60q %v", began.Format(time.TimeOnly), took, status, body, err))
			if len(s.failed) == 1 {
				open.Go(func() { s.explain(p.Log(t, app)) })
			}
		}
	}
	open.Go(func() {
		tick := time.NewTicker(time.Second / 100)
		defer tick.Stop()
		began, sent := time.Now(), 0
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			for due := int(time.Since(began).Seconds() * float64(perSecond)); sent < due; sent++ {
				select {
				case places <- struct{}{}:
					open.Go(one)
				default:
					s.mu.Lock()
					s.late++
					s.mu.Unlock()
				}
			}
		}
	})
	s.stop = sync.OnceFunc(func() { close(done); open.Wait() })
	return s
}

// explain keeps what is unusual in an app's log.
func (s *steady) explain(log []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range log {
		if !strings.Contains(line, "at=info") {
			s.why = append(s.why, line)
		}
	}
	s.why = s.why[max(0, len(s.why)-40):]
}

func (s *steady) at(quantile float64) time.Duration {
	slices.Sort(s.took)
	return s.took[min(len(s.took)-1, int(quantile*float64(len(s.took))))]
}

// Deploys one after the other under 300 requests a second: none fails. Three
// of them here; make test-deploys makes 50 (MANIFOLD_TEST_DEPLOYS).
func TestDeploysUnderLoad(t *testing.T) {
	const rate = 300
	deploys, err := strconv.Atoi(cmp.Or(os.Getenv("MANIFOLD_TEST_DEPLOYS"), "3"))
	if err != nil {
		t.Fatal(err)
	}
	p := running(t)
	app := p.CreateApp(t)
	dir := platform.Repository(t, map[string]string{
		"Procfile": "web: exec python3 app.py\n", "requirements.txt": "", "answer": "deploy 0",
		"app.py": `import os, socketserver, http.server
answer = open("answer").read().encode()
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", str(len(answer))); self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *_): pass
class S(http.server.ThreadingHTTPServer):
    request_queue_size = 128
S(("", int(os.environ["PORT"])), H).serve_forever()
`,
	})
	p.Push(t, dir, app)
	p.Answers(t, app, "/", "deploy 0")

	s := steadily(t, p, app, rate, func(body string) bool { return strings.HasPrefix(body, "deploy ") })
	defer s.stop()
	began := time.Now()
	for n := 1; n <= deploys; n++ {
		answer := fmt.Sprintf("deploy %d", n)
		change(t, dir, answer)
		p.Push(t, dir, app)
		p.Answers(t, app, "/", answer)
		platform.Eventually(t, 90*time.Second, func() error { return oneDyno(t, p, app, n+3) })
	}
	took := time.Since(began)
	s.stop()
	t.Logf("measured: %d deploys in %s under %.0f requests/s (%d, %d not sent in time): %d failed, median %s, 99 of 100 within %s, longest %s",
		deploys, took.Round(time.Second), float64(len(s.took))/took.Seconds(), len(s.took), s.late, len(s.failed), s.at(0.5), s.at(0.99), s.at(1))
	for i, f := range s.failed {
		if i < 10 {
			t.Errorf("failed: %s", f)
		}
	}
	if len(s.why) > 0 {
		t.Logf("the app's log at the first of them:\n%s", strings.Join(s.why, "\n"))
	}
	if s.late > len(s.took) { // not 2 in 100: a machine that stands still for some seconds sends nothing in them
		t.Errorf("%d requests were not sent: it was no %d requests/s", s.late, rate)
	}
}

// oneDyno says whether web.1 of this release is up and nothing else is there.
func oneDyno(t *testing.T, p *platform.Instance, app string, release int) error {
	t.Helper()
	var dynos []struct {
		Name, State string
		Release     struct{ Version int }
	}
	p.Call(t, "GET", "/apps/"+app+"/dynos", nil, &dynos)
	if len(dynos) != 1 || dynos[0].State != "up" || dynos[0].Release.Version != release {
		return fmt.Errorf("dynos %v, want one of v%d up", dynos, release)
	}
	return nil
}
