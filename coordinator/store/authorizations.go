package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"manifold"
)

// The scopes of a token, in the Platform API's words. Write includes read, and
// a protected scope the unprotected one; protected is what config vars can be
// learnt by.
const (
	ScopeGlobal         = "global"          // everything
	ScopeIdentity       = "identity"        // who one is
	ScopeRead           = "read"            // apps, but no config vars
	ScopeWrite          = "write"           // and change them
	ScopeReadProtected  = "read-protected"  // config vars too
	ScopeWriteProtected = "write-protected" // and change them, and run commands, which can print them
)

// grants says which scopes are enough for what needs one.
var grants = map[string][]string{
	ScopeGlobal:         {ScopeGlobal},
	ScopeIdentity:       {ScopeGlobal, ScopeIdentity, ScopeRead, ScopeWrite, ScopeReadProtected, ScopeWriteProtected},
	ScopeRead:           {ScopeGlobal, ScopeRead, ScopeWrite, ScopeReadProtected, ScopeWriteProtected},
	ScopeWrite:          {ScopeGlobal, ScopeWrite, ScopeWriteProtected},
	ScopeReadProtected:  {ScopeGlobal, ScopeReadProtected, ScopeWriteProtected},
	ScopeWriteProtected: {ScopeGlobal, ScopeWriteProtected},
}

// Bounds on authorizations.
const (
	MaxAuthorizations = 500 // of one user
	MaxDescription    = 256 // bytes
)

// Authorization is an API token as it can be shown: never the token itself.
type Authorization struct {
	ID          string
	User        string // User.ID
	Description string
	Scope       []string
	Hint        string // the token with its middle left out
	Default     bool   // the user's first; logging out leaves it alone
	CreatedAt   time.Time
	UpdatedAt   time.Time
	ExpiresAt   time.Time // zero: never
}

// May tells whether the token is good for what needs a scope.
func (a Authorization) May(need string) bool {
	return slices.ContainsFunc(a.Scope, func(has string) bool { return slices.Contains(grants[need], has) })
}

// CheckScope accepts one to six of the scopes.
func CheckScope(scope []string) error {
	for _, s := range scope {
		if grants[s] == nil {
			return &manifold.InvalidError{What: "Scope", Why: fmt.Sprintf("%q is none of global, identity, read, write, read-protected, write-protected", clip(s))}
		}
	}
	if len(scope) == 0 || len(scope) > len(grants) {
		return &manifold.InvalidError{What: "Scope", Why: "must name one to six scopes"}
	}
	return nil
}

// hint is what a token's owner knows it again by. The stars are how the CLI
// sees that something is left out; they hide all but 8 of 43 characters.
func hint(token string) string {
	shown := len(tokenPrefix) + 4
	return token[:shown] + strings.Repeat("*", 10) + token[len(token)-4:]
}

func (g grant) authorization() Authorization {
	a := Authorization{
		ID: g.ID, User: g.User, Description: g.Description, Scope: g.Scope, Hint: g.Hint, Default: g.Default,
		CreatedAt: g.CreatedAt, UpdatedAt: g.UpdatedAt, ExpiresAt: g.ExpiresAt,
	}
	if a.ID == "" { // of a token that is older than its scopes
		id, _ := uuid.FromBytes(g.Hash[:16])
		a.ID, a.Scope, a.UpdatedAt = id.String(), []string{ScopeGlobal}, g.CreatedAt
		a.Default = g.Description == firstToken
	}
	return a
}

// CreateToken makes an API token for user with every right; ttl 0 is for ever.
// It is shown here once and cannot be read again.
func (s *Store) CreateToken(ctx context.Context, user manifold.User, description string, ttl time.Duration) (string, error) {
	_, token, err := s.Authorize(ctx, user, description, []string{ScopeGlobal}, ttl)
	return token, err
}

// Authorize is CreateToken with a scope, which CheckScope must accept.
func (s *Store) Authorize(ctx context.Context, user manifold.User, description string, scope []string, ttl time.Duration) (a Authorization, token string, err error) {
	if err := cmp.Or(CheckScope(scope), checkDescription(description)); err != nil {
		return a, "", err
	}
	if err := s.sweepTokens(ctx, "tokens"); err != nil { // else who makes short ones all day fills the store
		return a, "", err
	}
	present, err := s.Authorizations(ctx, user.ID)
	if err != nil {
		return a, "", err
	}
	if len(present) >= MaxAuthorizations {
		return a, "", &manifold.InvalidError{What: "Authorizations", Why: fmt.Sprintf("are at most %d of one user: revoke some first", MaxAuthorizations)}
	}
	err = s.transact(ctx, user.ID, func(t *tx) error {
		var known manifold.User
		if found, err := t.get(key("users", user.ID), &known); err != nil {
			return err
		} else if !found {
			return fmt.Errorf("user %s: %w", clip(user.ID), ErrNotFound)
		}
		var err error
		a, token, err = s.mintToken(t, grant{User: user.ID, Description: description, Scope: scope}, ttl)
		t.note(user.ID, "Create authorization %s (%s)", a.ID, a.Description)
		return err
	})
	return a, token, err
}

func checkDescription(text string) error {
	if len(text) > MaxDescription {
		return &manifold.InvalidError{What: "Description", Why: fmt.Sprintf("must be at most %d bytes long", MaxDescription)}
	}
	return nil
}

// Authorizations lists a user's tokens that have not ended, oldest first.
func (s *Store) Authorizations(ctx context.Context, user string) ([]Authorization, error) {
	all, err := list[grant](ctx, s.engine, key("tokens", ""))
	if err != nil {
		return nil, err
	}
	now, mine := s.now(), []Authorization{}
	for _, g := range all {
		if g.User == user && !g.ended(now) {
			mine = append(mine, g.authorization())
		}
	}
	slices.SortFunc(mine, func(a, b Authorization) int { return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID)) })
	return mine, nil
}

// grantOf finds where a user's authorization is kept.
func (s *Store) grantOf(ctx context.Context, user, id string) (at string, err error) {
	records, err := s.engine.list(ctx, key("tokens", ""))
	if err != nil {
		return "", err
	}
	for _, r := range records {
		var g grant
		if err := decode(r, &g); err != nil {
			return "", err
		}
		if g.User == user && g.authorization().ID == id && !g.ended(s.now()) {
			return r.key, nil
		}
	}
	return "", fmt.Errorf("authorization %s: %w", clip(id), ErrNotFound)
}

// Revoke ends a token at once. Another user's is not found.
func (s *Store) Revoke(ctx context.Context, user, id string) error {
	at, err := s.grantOf(ctx, user, id)
	if err != nil {
		return err
	}
	return s.transact(ctx, user, func(t *tx) error {
		var g grant
		if found, err := t.get(at, &g); err != nil || !found {
			return cmp.Or(err, fmt.Errorf("authorization %s: %w", clip(id), ErrNotFound))
		}
		t.note(user, "Revoke authorization %s (%s)", id, g.Description)
		t.remove(at)
		return nil
	})
}

// Reauthorize changes what a token is called; renew gives it another secret,
// with the same time to live, and returns that. The old one ends at once.
func (s *Store) Reauthorize(ctx context.Context, user, id string, description *string, renew bool) (a Authorization, token string, err error) {
	at, err := s.grantOf(ctx, user, id)
	if err != nil {
		return a, "", err
	}
	err = s.transact(ctx, user, func(t *tx) error {
		var g grant
		if found, err := t.get(at, &g); err != nil || !found {
			return cmp.Or(err, fmt.Errorf("authorization %s: %w", clip(id), ErrNotFound))
		}
		was := g.authorization()
		g.ID, g.Scope, g.Default, g.UpdatedAt = id, was.Scope, was.Default, s.stamp()
		if description != nil {
			if err := checkDescription(*description); err != nil {
				return err
			}
			g.Description = *description
		}
		if !renew {
			a = g.authorization()
			t.note(user, "Update authorization %s (%s)", id, g.Description)
			return t.put(at, g)
		}
		var ttl time.Duration
		if !g.ExpiresAt.IsZero() {
			ttl = g.ExpiresAt.Sub(g.CreatedAt)
		}
		t.note(user, "Regenerate the token of authorization %s (%s)", id, g.Description)
		t.remove(at)
		var err error
		a, token, err = s.mintToken(t, g, ttl)
		return err
	})
	return a, token, err
}

// mintToken is mint for an API token.
func (s *Store) mintToken(t *tx, g grant, ttl time.Duration) (Authorization, string, error) {
	if g.ID == "" {
		g.ID = uuid.NewString()
	}
	g, token, err := s.mint(t, "tokens", tokenPrefix, g, ttl)
	return g.authorization(), token, err
}

// Authenticate finds the user an API token speaks for and what it may do, or
// ErrUnauthorized.
func (s *Store) Authenticate(ctx context.Context, token string) (manifold.User, Authorization, error) {
	g, err := s.redeem(ctx, "tokens", token)
	if err != nil {
		return manifold.User{}, Authorization{}, err
	}
	user, err := s.User(ctx, g.User)
	if errors.Is(err, ErrNotFound) { // removed just now
		err = ErrUnauthorized
	}
	if err != nil {
		return manifold.User{}, Authorization{}, fmt.Errorf("find the token's user: %w", err)
	}
	return user, g.authorization(), nil
}
