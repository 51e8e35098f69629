package test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"manifold/test/platform"
)

// chatter is an app whose workers write RATE lines a second for SECONDS: the
// line's number, when it was written, and padding to 100 bytes.
var chatter = map[string]string{
	"Procfile":         "web: python3 -m http.server $PORT\nworker: python3 chatter.py\n",
	"requirements.txt": "",
	"chatter.py": `
import os, sys, time
rate, seconds = int(os.environ["RATE"]), int(os.environ["SECONDS"])
began, n = time.time(), 0
while n < rate * seconds:
    due = min(int((time.time() - began) * rate), rate * seconds)
    lines = []
    while n < due:
        n += 1
        lines.append(f"{n} {time.time_ns()} ".ljust(99, "x") + "\n")
    sys.stdout.write("".join(lines))
    sys.stdout.flush()
    time.sleep(0.02)
time.sleep(1000)
`,
}

// Logs as their readers see them: the real CLI, a client of ours, a drain.
func TestLogs(t *testing.T) {
	p := own(t)
	p.Extra = append(p.Extra, "MANIFOLD_DRAIN_LOOPBACK=true")
	if err := p.WithoutSample(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	seconds, rate := 8, 1000 // of each of four dynos
	if s := os.Getenv("BENCH_LOGS_SECONDS"); s != "" {
		seconds, _ = strconv.Atoi(s)
		rate = 2500
	}
	r := runner{t, p, platform.Repository(t, chatter), p.CreateApp(t)}
	p.Call(t, "PATCH", "/apps/"+r.app+"/config-vars", map[string]string{"RATE": strconv.Itoa(rate), "SECONDS": strconv.Itoa(seconds)}, nil)
	p.Push(t, r.dir, r.app)
	p.Answers(t, r.app, "/Procfile", "chatter.py")
	t.Run("drains", func(t *testing.T) { r.on(t).drains() })
	t.Run("four dynos, two tails, one drain", func(t *testing.T) { r.on(t).logRate(uint64(rate * seconds)) })
}

// drains does what the CLI's commands do, and looks whether they did it.
func (r runner) drains() {
	claims(r.T, "drains", "the drain, with its token", "drains:add", "the receiver gets the app's lines, also after a kill -9 of the coordinator",
		"drains:remove", "the app has none any more")
	var mu sync.Mutex
	var got bytes.Buffer
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = io.Copy(&got, req.Body)
	}))
	defer receiver.Close()
	heroku := func(args ...string) string {
		r.Helper()
		out, err := r.p.Heroku(r, r.dir, append(args, "-a", r.app)...)
		if err != nil {
			r.Fatalf("heroku %v: %v\n%s", args, err, out)
		}
		return out
	}
	heroku("drains:add", receiver.URL+"/in")
	var drains []struct{ URL, Token string }
	r.p.Call(r, "GET", "/apps/"+r.app+"/log-drains", nil, &drains)
	if len(drains) != 1 || drains[0].URL != receiver.URL+"/in" {
		r.Fatalf("drains: %v", drains)
	}
	if out := heroku("drains"); !strings.Contains(out, receiver.URL+"/in") || !strings.Contains(out, drains[0].Token) {
		r.Errorf("heroku drains: %s", out)
	}
	arrives := func(text string) {
		r.Helper()
		platform.Eventually(r, time.Minute, func() error {
			_, _, _ = r.p.Visit(r.app, "/"+text)
			mu.Lock()
			defer mu.Unlock()
			if !strings.Contains(got.String(), text) {
				return fmt.Errorf("the receiver has no %q but:\n%s", text, got.String())
			}
			return nil
		})
	}
	arrives("drained")
	kill9(r.T, r.p, "manifold-coordinator")
	arrives("after-the-kill")
	path := "/apps/" + r.app + "/log-drains"
	for to, words := range map[string]string{"": "missing", "ftp://h/": "must begin with", receiver.URL + "/in": "already been taken"} {
		r.p.Refused(r, 422, "POST", path, map[string]string{"url": to}, words)
	}
	door := "http://" + r.p.API + "/apps"
	r.p.Call(r, "POST", path, map[string]string{"url": door}, nil)
	r.logged("is not served: it leads to port")
	r.p.Call(r, "DELETE", path+"/"+url.QueryEscape(door), nil, nil)
	heroku("drains:remove", receiver.URL+"/in")
	r.p.Refused(r, 404, "DELETE", path+"/"+drains[0].Token, nil, "heroku drains")
	r.logged("app[api]: Remove log drain " + drains[0].Token)
}

// reader counts what comes of the chatter.
type reader struct {
	name string

	mu      sync.Mutex
	next    map[string]uint64 // by dyno: the number of its next line
	any     bool              // line of whatever
	lines   uint64
	notes   []string // lines that should not be
	delays  []time.Duration
	ended   error
	working sync.WaitGroup
}

// take reads one log line, "… app[worker.1]: 17 1763763763763763763 xxx" or as
// a syslog message.
func (d *reader) take(dyno, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.any = true
	var n uint64
	var written int64
	if _, err := fmt.Sscanf(text, "%d %d", &n, &written); err != nil {
		return
	}
	if want := d.next[dyno] + 1; n != want {
		d.notes = append(d.notes, fmt.Sprintf("%s: line %d where %d should be", dyno, n, want))
	}
	d.next[dyno] = n
	if d.lines++; d.lines%50 == 0 {
		d.delays = append(d.delays, time.Since(time.Unix(0, written)))
	}
}

func (d *reader) shown(line string) {
	d.mu.Lock()
	d.any = true
	d.mu.Unlock()
	if strings.Contains(line, "Error L1") {
		d.mu.Lock()
		d.notes = append(d.notes, line)
		d.mu.Unlock()
	}
	if _, rest, ok := strings.Cut(line, " app["); ok {
		if dyno, text, ok := strings.Cut(rest, "]: "); ok {
			d.take(dyno, text)
		}
	}
}

func (d *reader) scan(from io.Reader) {
	d.working.Go(func() {
		lines := bufio.NewScanner(from)
		for lines.Scan() {
			d.shown(lines.Text())
		}
		d.mu.Lock()
		d.ended = lines.Err()
		d.mu.Unlock()
	})
}

func (d *reader) sees() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.any
}

func (d *reader) has(each uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range 4 {
		if d.next[fmt.Sprint("worker.", i+1)] < each {
			return false
		}
	}
	return true
}

// logRate has four dynos write as fast as RATE says, to a tail of the real CLI,
// a tail of ours and a drain.
func (r runner) logRate(each uint64) {
	cli, tail, drain := &reader{name: "heroku logs --tail", next: map[string]uint64{}}, &reader{name: "a tail", next: map[string]uint64{}}, &reader{name: "a drain", next: map[string]uint64{}}
	ctx, cancel := context.WithCancel(r.Context())
	defer func() {
		cancel()
		cli.working.Wait()
		tail.working.Wait()
	}()
	cmd := r.p.HerokuCommand(ctx, r, r.dir, "logs", "--tail", "-n", "1", "-a", r.app)
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	defer cmd.Wait()
	defer cancel()
	cli.scan(out)
	r.followTail(ctx, tail)
	r.p.Call(r, "POST", "/apps/"+r.app+"/log-drains", map[string]string{"url": r.drainTo(drain)}, nil)
	platform.Eventually(r, time.Minute, func() error { // until all three are there
		_, _, _ = r.p.Visit(r.app, "/")
		for _, d := range []*reader{cli, tail, drain} {
			if !d.sees() {
				return fmt.Errorf("%s shows no line", d.name)
			}
		}
		return nil
	})
	before := r.cpu()
	began := time.Now()
	r.p.Call(r, "PATCH", "/apps/"+r.app+"/formation", map[string]any{"updates": []any{map[string]any{"type": "worker", "quantity": 4}}}, nil)
	all := []*reader{cli, tail, drain}
	platform.Eventually(r, time.Duration(each/20)*time.Millisecond+90*time.Second, func() error {
		for _, d := range all {
			if !d.has(each) {
				d.mu.Lock()
				defer d.mu.Unlock()
				return fmt.Errorf("%s has %v of %d lines each; %v %v", d.name, d.next, each, d.notes[:min(len(d.notes), 5)], d.ended)
			}
		}
		return nil
	})
	took := time.Since(began)
	after := r.cpu()
	million := float64(4*each) / 1e6
	for _, d := range all {
		d.mu.Lock()
		if d.lines != 4*each || len(d.notes) > 0 {
			r.Errorf("%s got %d lines of %d; %d notes: %.500q", d.name, d.lines, 4*each, len(d.notes), d.notes[:min(len(d.notes), 5)])
		}
		slices.Sort(d.delays)
		n := len(d.delays)
		r.Logf("measured: %s: %d lines of 4 dynos, none lost; written to read p50 %d ms, p95 %d ms, p99 %d ms", d.name, d.lines,
			d.delays[n/2].Milliseconds(), d.delays[n*95/100].Milliseconds(), d.delays[n*99/100].Milliseconds())
		d.mu.Unlock()
	}
	r.Logf("measured: %d lines to two tails and a drain in %.1f s, %.0f lines/s with the dynos' start; CPU a million lines: coordinator %.1f s, agent %.1f s",
		4*each, took.Seconds(), float64(4*each)/took.Seconds(), (after[0]-before[0]).Seconds()/million, (after[1]-before[1]).Seconds()/million)
	r.p.Call(r, "PATCH", "/apps/"+r.app+"/formation", map[string]any{"updates": []any{map[string]any{"type": "worker", "quantity": 0}}}, nil)
}

// followTail reads a log session as the CLI would.
func (r runner) followTail(ctx context.Context, d *reader) {
	r.Helper()
	var session struct {
		URL string `json:"logplex_url"`
	}
	r.p.Call(r, "POST", "/apps/"+r.app+"/log-sessions", map[string]any{"lines": 1, "tail": true}, &session)
	req, err := http.NewRequestWithContext(ctx, "GET", session.URL, nil)
	if err != nil {
		r.Fatal(err)
	}
	res, err := (&http.Client{Transport: &http.Transport{Proxy: nil}}).Do(req)
	if err != nil {
		r.Fatal(err)
	}
	d.scan(res.Body)
	context.AfterFunc(ctx, func() { res.Body.Close() })
}

// drainTo is a syslog server that counts; it returns its URL.
func (r runner) drainTo(d *reader) string {
	r.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			r.Cleanup(func() { conn.Close() })
			go takeFrames(conn, d)
		}
	}()
	return "syslog://" + ln.Addr().String()
}

// takeFrames reads octet-counted messages.
func takeFrames(conn net.Conn, d *reader) {
	from := bufio.NewReaderSize(conn, 64<<10)
	for {
		length, err := from.ReadString(' ')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSuffix(length, " "))
		if err != nil || n > 20_000 {
			d.mu.Lock()
			d.notes = append(d.notes, "a frame of length "+length)
			d.mu.Unlock()
			return
		}
		message := make([]byte, n)
		if _, err := io.ReadFull(from, message); err != nil {
			return
		}
		// <190>1 time token app worker.1 - - text
		fields := strings.SplitN(string(message), " ", 8)
		switch {
		case len(fields) == 8 && fields[3] == "app":
			d.take(fields[4], fields[7])
		case strings.Contains(string(message), "Error L1"):
			d.mu.Lock()
			d.notes = append(d.notes, string(message))
			d.mu.Unlock()
		}
	}
}

// cpu is what coordinator and agent have used (proc_pid_stat(5)).
func (r runner) cpu() (used [2]time.Duration) {
	r.Helper()
	for i, args := range [][]string{{"manifold-coordinator"}, {"manifold-agent"}} {
		pid, err := r.p.PID(args...)
		if err != nil {
			r.Fatal(err)
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			r.Fatal(err)
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		user, _ := strconv.Atoi(fields[11])
		system, _ := strconv.Atoi(fields[12])
		used[i] = time.Duration(user+system) * 10 * time.Millisecond // 100 ticks a second, on every amd64
	}
	return used
}
