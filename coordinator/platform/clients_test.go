package platform

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// 200 clients at one time: every call is answered, and none waits long.
func TestTwoHundredClients(t *testing.T) {
	r := newRig(t, func(c *Config) { c.CallsPerHour = 1 << 20 })
	const clients, apps, calls = 200, 20, 20
	for i := range apps {
		app := r.app(fmt.Sprintf("busy-%d", i))
		r.deploy(app, map[string]string{"web": "bin/web"})
	}
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	call := func(method, path, body string) (time.Duration, error) {
		req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(body))
		if err != nil {
			return 0, err
		}
		req.Header.Set("Authorization", "Bearer "+r.token)
		began := time.Now()
		res, err := transport.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode != 200 {
			err = fmt.Errorf("%s %s: %d %s", method, path, res.StatusCode, text)
		}
		return time.Since(began), err
	}
	var mu sync.Mutex
	var reads, writes []time.Duration
	var group sync.WaitGroup
	for i := range clients {
		group.Go(func() {
			app := fmt.Sprintf("/apps/busy-%d", i%apps)
			for n := range calls {
				kind, method, path, body := &reads, "GET", app+"/releases", ""
				switch {
				case n%5 == 0:
					kind, method, path, body = &writes, "PATCH", app+"/formation", fmt.Sprintf(`{"updates":[{"type":"web","quantity":%d}]}`, n)
				case n%2 == 0:
					path = app
				}
				took, err := call(method, path, body)
				mu.Lock()
				*kind = append(*kind, took)
				mu.Unlock()
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	for what, all := range map[string][]time.Duration{"reads": reads, "writes": writes} {
		slices.Sort(all)
		p99 := all[len(all)*99/100]
		t.Logf("measured: %d %s by %d clients at once: median %v, p99 %v", len(all), what, clients, all[len(all)/2].Round(time.Millisecond), p99.Round(time.Millisecond))
		if p99 > 20*time.Second {
			t.Errorf("p99 of %s is %v", what, p99)
		}
	}
}
