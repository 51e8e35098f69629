package coordinator

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// load is what the clients of BenchmarkAPI are told.
type load struct {
	URL            string
	Tokens, Apps   []string // an app each, called with that token
	Clients, Calls int
}

// results are how long calls took, in order.
type results struct {
	Reads, Writes times
	Errors        []string // the first ten
}

type times []time.Duration

// at is a percentile.
func (t times) at(percent int) time.Duration {
	if len(t) == 0 {
		return 0
	}
	d := t[min(len(t)-1, len(t)*percent/100)]
	if d > 10*time.Millisecond {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}

// callTheAPI is the process of the clients.
func callTheAPI(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var l load
	if err := json.Unmarshal(text, &l); err != nil {
		return err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: l.Clients}
	return json.NewEncoder(os.Stdout).Encode(together(l.Clients, l.Calls, func(client, n int) (bool, error) {
		i := client % len(l.Apps)
		c := like(l.Apps[i], client+n)
		return c.method != "GET", c.make(transport, l.URL, l.Tokens[i])
	}))
}

// together makes calls from so many goroutines at once, one after the other in
// each, and sorts how long they took.
func together(clients, calls int, call func(client, n int) (writes bool, err error)) (res results) {
	var mu sync.Mutex
	var group sync.WaitGroup
	for client := range clients {
		group.Go(func() {
			for n := range calls {
				began := time.Now()
				writes, err := call(client, n)
				took := time.Since(began)
				mu.Lock()
				if writes {
					res.Writes = append(res.Writes, took)
				} else {
					res.Reads = append(res.Reads, took)
				}
				if err != nil && len(res.Errors) < 10 {
					res.Errors = append(res.Errors, err.Error())
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	slices.Sort(res.Reads)
	slices.Sort(res.Writes)
	return res
}

type call struct{ method, path, span, body string }

// like is one of ten calls, as the CLI makes them for: apps, info, ps (two),
// releases, config, config:set, info, ps:scale, releases.
func like(app string, n int) call {
	at := "/apps/" + app
	newest := "version ..; max=15, order=desc"
	switch n % 10 {
	case 0:
		return call{"GET", "/users/~/apps", "", ""}
	case 2:
		return call{"GET", at + "/dynos", "", ""}
	case 3:
		return call{"GET", at + "/formation", "", ""}
	case 4, 9:
		return call{"GET", at + "/releases", newest, ""}
	case 5:
		return call{"GET", at + "/config-vars", "", ""}
	case 6:
		return call{"PATCH", at + "/config-vars", "", fmt.Sprintf(`{"N":"%d"}`, time.Now().UnixNano())}
	case 8:
		return call{"PATCH", at + "/formation", "", fmt.Sprintf(`{"updates":[{"type":"web","quantity":%d}]}`, n%7)}
	}
	return call{"GET", at, "", ""}
}

func (c call) make(transport http.RoundTripper, url, token string) error {
	req, err := http.NewRequest(c.method, url+c.path, strings.NewReader(c.body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/vnd.heroku+json; version=3")
	if c.span != "" {
		req.Header.Set("Range", c.span)
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != 200 && res.StatusCode != 206 {
		err = fmt.Errorf("%s %s: %d %s", c.method, c.path, res.StatusCode, text)
	}
	return err
}
