package survive

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"manifold/test/platform"
)

// ledger counts the numbered lines of every run as `heroku logs --tail` of
// their apps gets them.
type ledger struct {
	t    *testing.T
	mu   sync.Mutex
	runs map[string]*account
	said []string // by the log system about what it dropped
	all  int
	// cycled counts the dynos that were cycled, as the log says.
	cycled int
}

// account is one run's lines.
type account struct {
	dyno          string
	last          int // the highest number seen
	lost, doubled int // lines that were left out, or came when a higher one had
	end           int // how many there are, as the run itself said; -1 as long as it has not
}

func newLedger(t *testing.T) *ledger { return &ledger{t: t, runs: map[string]*account{}} }

// follow counts an app's lines from now on, over the coordinator's deaths, with
// which log sessions end: the next one goes on behind the last line seen.
func (l *ledger) follow(p *platform.Instance, app string) {
	l.t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	first, err := session(client, p, app)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		defer client.CloseIdleConnections()
		for last, url := "", first; ctx.Err() == nil; url, err = session(client, p, app) {
			if err == nil {
				last = l.stream(ctx, client, url, last)
				continue
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	l.t.Cleanup(func() { cancel(); work.Wait() })
}

// session makes a log session and returns its address.
func session(client *http.Client, p *platform.Instance, app string) (string, error) {
	req, err := http.NewRequest("POST", "http://"+p.API+"/apps/"+app+"/log-sessions", strings.NewReader(`{"tail":true,"lines":1500}`))
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", "application/vnd.heroku+json; version=3")
	req.Header.Set("Authorization", "Bearer "+p.Token)
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var made struct {
		URL string `json:"logplex_url"`
	}
	if err := json.NewDecoder(res.Body).Decode(&made); err != nil {
		return "", err
	}
	if res.StatusCode/100 != 2 {
		return "", fmt.Errorf("a log session of %s: %s", app, res.Status)
	}
	return made.URL, nil
}

// stream reads server-sent events until they end, and returns the last one's id.
// One that was cut off is none: a blank line ends each (WHATWG HTML, 9.2.6).
func (l *ledger) stream(ctx context.Context, client *http.Client, url, last string) string {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return last
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	res, err := client.Do(req)
	if err != nil {
		return last
	}
	defer res.Body.Close()
	in := bufio.NewScanner(res.Body)
	in.Buffer(make([]byte, 256<<10), 1<<20)
	for id, data := "", ""; in.Scan(); {
		if value, ok := strings.CutPrefix(in.Text(), "id: "); ok {
			id = value
		} else if value, ok := strings.CutPrefix(in.Text(), "data: "); ok {
			data = value
		} else if in.Text() == "" && data != "" {
			l.enter(data)
			last, data = id, ""
		}
	}
	return last
}

// enter reads "TIME app[web.1]: line 7 of RUN, …" or "… end 7 of RUN".
func (l *ledger) enter(line string) {
	_, line, _ = strings.Cut(line, " ")
	source, text, _ := strings.Cut(line, ": ")
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case strings.HasPrefix(source, "heroku[logplex]"):
		l.said = append(l.said, text)
	case strings.HasPrefix(source, "heroku[web.") && text == "Cycling":
		l.cycled++
	}
	var kind, run string
	var n int
	if _, err := fmt.Sscanf(text, "%s %d of %s", &kind, &n, &run); err != nil || !strings.HasPrefix(source, "app[") {
		return
	}
	run = strings.TrimSuffix(run, ",")
	a := l.runs[run]
	if a == nil {
		a = &account{dyno: source, end: -1}
		l.runs[run] = a
	}
	switch {
	case kind == "end":
		a.end = n
		a.lost += n - a.last
	case n <= a.last:
		a.doubled++
	default:
		l.all++
		a.lost += n - a.last - 1
		a.last = n
	}
}

// close waits until every run has said how many lines it wrote, and judges
// them: a row of the table.
func (l *ledger) close() string {
	l.t.Helper()
	platform.Eventually(l.t, time.Minute, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for run, a := range l.runs {
			if a.end < 0 {
				return fmt.Errorf("%s, run %s, has not said how many lines it wrote", a.dyno, run)
			}
		}
		return nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	lost, doubled := 0, 0
	for run, a := range l.runs {
		lost += a.lost
		doubled += a.doubled
		if a.lost != 0 || a.doubled != 0 {
			l.t.Errorf("%s, run %s: of %d lines %d were lost, %d doubled or late", a.dyno, run, a.end, a.lost, a.doubled)
		}
	}
	if len(l.said) > 0 {
		l.t.Errorf("the log system dropped lines: %q", l.said[:min(len(l.said), 5)])
	}
	return fmt.Sprintf("%d lines of %d runs, lost %d, doubled or out of order %d", l.all, len(l.runs), lost, doubled)
}
