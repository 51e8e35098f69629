package platform

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// rates counts what each user spends: a pool of an hour's calls, refilled
// evenly. It is kept in memory, one small entry a user, and full again when
// the coordinator starts.
type rates struct {
	perHour int
	mu      sync.Mutex
	users   map[string]*rate.Limiter
}

func newRates(perHour int) *rates {
	return &rates{perHour: perHour, users: map[string]*rate.Limiter{}}
}

func (r *rates) of(user string) *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.users[user]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(r.perHour)/rate.Limit(time.Hour/time.Second), r.perHour)
		r.users[user] = l
	}
	return l
}

const rateEndpoint = "GET /account/rate-limits"

func rateRoutes(a *api) routes { return routes{rateEndpoint: a.rateLimits} }

func (a *api) rateLimits(c *call) (answer, error) {
	return ok(object{"remaining": int(a.rates.of(c.user.ID).Tokens())})
}

// spend takes one call from the caller's pool and says in the header what is
// left. To ask how much that is costs nothing.
func (c *call) spend(header http.Header) error {
	pool := c.api.rates.of(c.user.ID)
	allowed := c.Pattern == rateEndpoint || pool.Allow()
	header.Set("RateLimit-Remaining", strconv.Itoa(max(0, int(pool.Tokens()))))
	if allowed {
		return nil
	}
	wait := time.Duration(float64(time.Second) / float64(pool.Limit())).Round(time.Second)
	header.Set("Retry-After", strconv.Itoa(max(1, int(wait.Seconds()))))
	return &fault{
		Status: http.StatusTooManyRequests, ID: "rate_limit",
		Message: "You made more than " + strconv.Itoa(c.api.rates.perHour) + " calls in an hour. Wait a moment; the pool refills all the time.",
	}
}
