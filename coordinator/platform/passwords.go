package platform

import (
	"context"
	"errors"
	"hash/maphash"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"manifold"
	"manifold/coordinator/store"
)

// loginEndpoint is the one that takes an account's password in place of a token.
const loginEndpoint = "POST /oauth/authorizations"

// guesses bounds how often passwords can be tried: of one address ten at once,
// then one every ten seconds. Addresses share a fixed number of counters, so
// that those nobody has cost no memory and are answered like others.
type guesses struct {
	seed     maphash.Seed
	counters [4096]*counter
}

// counter is held while a password is compared, so that those who try at the
// same time are counted too.
type counter struct {
	sync.Mutex
	*rate.Limiter
}

func newGuesses() *guesses {
	g := &guesses{seed: maphash.MakeSeed()}
	for i := range g.counters {
		g.counters[i] = &counter{Limiter: rate.NewLimiter(rate.Every(10*time.Second), 10)}
	}
	return g
}

func (g *guesses) of(email string) *counter {
	return g.counters[maphash.String(g.seed, strings.ToLower(email))%uint64(len(g.counters))]
}

// login finds the user with an address and a password. A good one costs no
// guess.
func (a *api) login(ctx context.Context, email, password string) (manifold.User, error) {
	counter := a.guesses.of(email)
	counter.Lock()
	defer counter.Unlock()
	if counter.Tokens() < 1 {
		return manifold.User{}, &fault{
			Status: http.StatusTooManyRequests, ID: "rate_limit",
			Message: "Too many wrong passwords were tried for this account. Wait a minute.",
		}
	}
	user, err := a.Store.Login(ctx, email, password)
	if errors.Is(err, store.ErrUnauthorized) {
		counter.Allow()
		err = &fault{
			Status: http.StatusUnauthorized, ID: "unauthorized",
			Message: "Email address or password is wrong, or the account has no password: the operator sets one with manifold-coordinator user password.",
		}
	}
	return user, err
}

// authenticate finds out who calls and what their token may do. A password is
// taken for one call only, the one that makes a token of it.
func (c *call) authenticate() (err error) {
	c.user, c.token, err = c.api.Store.Authenticate(c.Context(), bearer(c.Request))
	email, password, isBasic := c.BasicAuth()
	if !errors.Is(err, store.ErrUnauthorized) || c.Pattern != loginEndpoint || !isBasic || !strings.Contains(email, "@") {
		return err
	}
	c.token = store.Authorization{Scope: []string{store.ScopeGlobal}}
	c.user, err = c.api.login(c.Context(), email, password)
	return err
}
