package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"manifold/supervisor"
)

// A web dyno whose app wants it is asked whether it works, over its own
// address, so that it needs neither router nor coordinator:
//
//	up ──every 10 s──▶ GET $MANIFOLD_HEALTH_CHECK ──2xx, 3xx──▶ the count begins anew
//	                           │ anything else, or nothing in 5 s
//	                           ▼ 3 in a row, 6, 9 …
//	                       Unhealthy ──▶ the supervisor: restart, or bear it
//
// Of one app's dynos of one release on this host one is restarted at a time,
// and only while all others are up: what they wait for may be down for all.

// startCheck asks again and again until the dyno is no longer up.
func (d *driver) startCheck(ctx context.Context) {
	if d.box == nil || d.check != nil {
		return
	}
	checkCtx, cancel := context.WithCancel(ctx)
	d.check = cancel
	dyno := d.rec.Dyno
	url := "http://" + addrPort(d.box.Addr(), dyno.Port) + dyno.Plan.Health
	// Frameworks refuse names that are not the app's.
	host := strings.ToLower(d.assignment.AppName) + "." + d.a.cfg.AppDomain
	d.group.Go(func() {
		defer cancel()
		p := d.a.policy
		failed, since := 0, time.Time{}
		for sleep(checkCtx, p.HealthEvery) {
			err := d.a.works(checkCtx, url, host, p.HealthTimeout)
			if err == nil || !d.frozen().IsZero() {
				failed = 0
				continue
			}
			if failed++; failed == 1 {
				since = time.Now().Round(0)
			}
			if failed%p.HealthFailures != 0 {
				continue
			}
			d.post(checkCtx, message{event: supervisor.Event{
				Kind: supervisor.Unhealthy, Run: dyno.Run, Failing: since,
				Detail: fmt.Sprintf("%d times in a row GET %s: %v", failed, dyno.Plan.Health, err),
			}})
		}
	})
}

// checker asks dynos, which are strangers: a connection for each question, no
// proxy, no redirect followed, no body read, heads of a bounded size.
var checker = &http.Client{
	Transport: &http.Transport{
		DialContext:       (&net.Dialer{KeepAlive: -1}).DialContext,
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// works is nil where a dyno says that it works. Errors are in our own words:
// they go into the app's log.
func works(ctx context.Context, url, host string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return errors.New("not a path")
	}
	req.Host = host
	req.Header.Set("X-Forwarded-Proto", "https") // else some send us there
	req.Header.Set("User-Agent", "manifold-health-check")
	res, err := checker.Do(req)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("no answer in %v", timeout)
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	case ownFault(err):
		return nil // nothing was asked, so nothing is known
	case err != nil:
		return errors.New("no HTTP answer")
	}
	res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 399 {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}

// ownFault tells a question that could not be asked from one that was not
// answered: this host is short of descriptors, memory or ports (socket(2),
// connect(2)), and to restart its dynos would make that worse.
func ownFault(err error) bool {
	return slices.ContainsFunc([]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL},
		func(short error) bool { return errors.Is(err, short) })
}

// mustBear says whether a dyno that would be restarted for its health has to
// wait for others. If not, it is the app's one for a while.
func (d *driver) mustBear(e supervisor.Event) bool {
	a, as := d.a, d.assignment
	e.At = time.Now().Round(0)
	if !a.policy.Restarts(d.rec.Dyno, e) {
		return false // it bears it anyway
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, other := range a.drivers {
		o := other.assignment
		if other == d || o.App != as.App || o.Release != as.Release || other.withdrawn() || supervisor.PlanOf(o).Health == "" {
			continue
		}
		if _, _, state := other.held(); state != supervisor.Up {
			return true
		}
	}
	now := time.Now() // what is decided here shows in state only a step later
	maps.DeleteFunc(a.healed, func(_ string, at time.Time) bool { return now.Sub(at) >= a.policy.HealthEvery })
	if _, lately := a.healed[as.App]; lately {
		return true
	}
	a.healed[as.App] = now
	return false
}
