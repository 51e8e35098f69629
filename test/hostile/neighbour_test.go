package hostile

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// pace is the time between two requests of a neighbour's visitors. They come
// by the clock, whether the one before was answered or not, and are timed from
// the moment they should have come.
const pace = 10 * time.Millisecond

// latency is how a neighbour served.
type latency struct {
	p50, p99 time.Duration
	served   int
	failed   []string
}

func (l latency) String() string {
	return fmt.Sprintf("%s %s", milliseconds(l.p50), milliseconds(l.p99))
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }

// visitors visit an app through the router until stop is called.
type visitors struct {
	url, host string
	client    *http.Client
	done      chan struct{}
	loop      sync.WaitGroup
	requests  sync.WaitGroup

	mu     sync.Mutex
	times  []time.Duration
	failed []string
}

func visit(router, app string) *visitors {
	v := &visitors{
		url: "http://" + router + "/", host: app + ".localhost", done: make(chan struct{}),
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{Proxy: nil, MaxIdleConnsPerHost: 256}},
	}
	v.loop.Go(func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for {
			select {
			case <-v.done:
				return
			case due := <-tick.C:
				v.requests.Go(func() { v.one(due) })
			}
		}
	})
	return v
}

func (v *visitors) one(due time.Time) {
	err := v.get()
	took := time.Since(due)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.times = append(v.times, took)
	if err != nil {
		v.failed = append(v.failed, err.Error())
	}
}

func (v *visitors) get() error {
	req, err := http.NewRequest("GET", v.url, nil)
	if err != nil {
		return err
	}
	req.Host = v.host
	res, err := v.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d: %.100s", res.StatusCode, body)
	}
	return nil
}

// stop ends the visits and says how they went.
func (v *visitors) stop() latency {
	close(v.done)
	v.loop.Wait()
	v.requests.Wait()
	v.client.CloseIdleConnections()
	slices.Sort(v.times)
	n := len(v.times)
	if n == 0 {
		return latency{failed: []string{"nobody came"}}
	}
	return latency{p50: v.times[n/2], p99: v.times[n*99/100], served: n, failed: v.failed}
}
