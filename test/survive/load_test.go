package survive

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"manifold/test/platform"
)

// load sends requests at a steady rate, whatever becomes of those before: one
// that waits holds up no other.
type load struct {
	t     *testing.T
	p     *platform.Instance
	stop  func()
	began time.Time

	mu     sync.Mutex
	took   []time.Duration // of those answered, from when they were due
	failed []string
	late   int // could not be sent in time: the generator's fault
}

// waiting is how many requests may be open at once.
const waiting = 500

func startLoad(t *testing.T, p *platform.Instance, apps []string, rate int) *load {
	l := &load{t: t, p: p, began: time.Now()}
	type request struct {
		app string
		due time.Time
	}
	due := make(chan request, waiting)
	done := make(chan struct{})
	var work sync.WaitGroup
	for n := range 64 {
		// Half of them keep their connections, as browsers do; the others
		// make a new one each time, where nothing is tried again in secret.
		client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: n%2 == 0}}
		work.Go(func() {
			defer client.CloseIdleConnections()
			for r := range due {
				l.note(r.due, r.app, visit(client, p, r.app))
			}
		})
	}
	work.Go(func() {
		defer close(due)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for sent := 0; ; {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			for want := int(time.Since(l.began).Seconds() * float64(rate)); sent < want; sent++ {
				select {
				case due <- request{apps[sent%len(apps)], time.Now()}:
				default:
					l.mu.Lock()
					l.late++
					l.mu.Unlock()
				}
			}
		}
	})
	l.stop = sync.OnceFunc(func() { close(done); work.Wait() })
	t.Cleanup(l.stop)
	return l
}

func visit(client *http.Client, p *platform.Instance, app string) error {
	req, err := http.NewRequest("GET", "http://"+p.Router+"/", nil)
	if err != nil {
		return err
	}
	req.Host = app + ".localhost"
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("in the body: %w", err)
	}
	if res.StatusCode != http.StatusOK || len(body) != 37 { // a run's id
		return fmt.Errorf("%s %.200q", res.Status, body)
	}
	return nil
}

func (l *load) note(at time.Time, app string, err error) {
	took := time.Since(at)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, took)
	if err != nil {
		l.failed = append(l.failed, fmt.Sprintf("%s, after %.3f s, to %s: %v", time.Now().UTC().Format(time.RFC3339Nano), took.Seconds(), app, err))
	}
}

// report ends the load and judges it: a row of the table.
func (l *load) report() string {
	l.t.Helper()
	l.stop()
	for _, f := range l.failed[:min(len(l.failed), 10)] {
		l.t.Errorf("a request failed: %s", f)
	}
	if l.late > len(l.took) {
		l.t.Errorf("%d of %d requests could not even be sent: the machine is too busy for this test", l.late, l.late+len(l.took))
	}
	slices.Sort(l.took)
	at := func(share float64) time.Duration {
		return l.took[int(share*float64(len(l.took)-1))].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("%d requests, %.0f a second, failed %d, %d not sent for want of CPU; p50 %s, p99 %s, longest %s",
		len(l.took), float64(len(l.took))/time.Since(l.began).Seconds(), len(l.failed), l.late, at(.5), at(.99), at(1))
}
