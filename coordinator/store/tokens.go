package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"manifold"
)

// grant is a token at rest: its hash, never the token. A token has 256 random
// bits, so that a plain hash is as hard to guess as the token.
type grant struct {
	Hash        []byte    `json:"hash"`
	User        string    `json:"user,omitempty"`
	Description string    `json:"description,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"` // zero: never
}

func (g grant) ended(now time.Time) bool { return !g.ExpiresAt.IsZero() && !now.Before(g.ExpiresAt) }

// hashToken gives a token's hash and the id its grant is found by, which is a
// short part of the hash: the rest is compared in constant time.
func hashToken(token string) (hash []byte, id string) {
	sum := sha256.Sum256([]byte(token))
	return sum[:], hex.EncodeToString(sum[:8])
}

// The prefixes tell people, and scanners of leaked secrets, what they found.
const (
	tokenPrefix = "mfld_"
	joinPrefix  = "mfldjoin_"
)

// mint draws a token and keeps its grant under kind ("tokens", "joins").
func (s *Store) mint(t *tx, kind, prefix string, g grant, ttl time.Duration) (string, error) {
	random := make([]byte, 32)
	rand.Read(random)
	token := prefix + base64.RawURLEncoding.EncodeToString(random)
	var id string
	g.Hash, id = hashToken(token)
	g.CreatedAt = s.stamp()
	if ttl > 0 {
		g.ExpiresAt = g.CreatedAt.Add(ttl)
	}
	return token, t.insert(key(kind, id), g)
}

// redeem finds the grant of a token that has not ended.
func (s *Store) redeem(ctx context.Context, kind, token string) (grant, error) {
	hash, id := hashToken(token)
	r, err := s.engine.get(ctx, key(kind, id))
	if err != nil {
		return grant{}, err
	}
	var g grant
	if r.revision != 0 {
		if err := decode(r, &g); err != nil {
			return grant{}, err
		}
	}
	if subtle.ConstantTimeCompare(hash, g.Hash) != 1 || g.ended(s.now()) {
		return grant{}, ErrUnauthorized
	}
	return g, nil
}

func (s *Store) sweepTokens(ctx context.Context, kind string) error {
	records, err := s.engine.list(ctx, key(kind, ""))
	if err != nil {
		return err
	}
	var ended []string
	for _, r := range records {
		var g grant
		if err := decode(r, &g); err != nil {
			return err
		}
		if g.ended(s.now()) {
			ended = append(ended, r.key)
		}
	}
	return s.removeAll(ctx, ended)
}

// Bootstrap makes the first user and a token for them that does not expire.
// The token is "" if there was a first user already.
func (s *Store) Bootstrap(ctx context.Context, email string) (token string, err error) {
	err = s.transact(ctx, func(t *tx) error {
		token = ""
		user := manifold.User{ID: uuid.NewString(), Email: strings.ToLower(email), CreatedAt: s.stamp()}
		var first string
		if found, err := t.get(key("first-user"), &first); err != nil || found {
			return err
		}
		for k, v := range map[string]any{
			key("first-user"): user.ID, key("users", user.ID): user, key("emails", user.Email): user.ID,
		} {
			if err := t.insert(k, v); err != nil {
				return err
			}
		}
		var err error
		token, err = s.mint(t, "tokens", tokenPrefix, grant{User: user.ID, Description: "First token"}, 0)
		return err
	})
	return token, err
}

// User finds a user by id or email.
func (s *Store) User(ctx context.Context, idOrEmail string) (manifold.User, error) {
	t := s.begin(ctx)
	id := idOrEmail
	if strings.Contains(idOrEmail, "@") {
		if _, err := t.get(key("emails", strings.ToLower(idOrEmail)), &id); err != nil {
			return manifold.User{}, err
		}
	}
	var user manifold.User
	found, err := t.get(key("users", id), &user)
	if err == nil && !found {
		err = fmt.Errorf("user %s: %w", clip(idOrEmail), ErrNotFound)
	}
	return user, err
}

// CreateToken makes an API token for user; ttl 0 is for ever. It is shown
// here once and cannot be read again.
func (s *Store) CreateToken(ctx context.Context, user manifold.User, description string, ttl time.Duration) (string, error) {
	var token string
	err := s.transact(ctx, func(t *tx) error {
		var known manifold.User
		if found, err := t.get(key("users", user.ID), &known); err != nil {
			return err
		} else if !found {
			return fmt.Errorf("user %s: %w", clip(user.ID), ErrNotFound)
		}
		var err error
		token, err = s.mint(t, "tokens", tokenPrefix, grant{User: user.ID, Description: description}, ttl)
		return err
	})
	return token, err
}

// Authenticate finds the user an API token speaks for, or ErrUnauthorized.
func (s *Store) Authenticate(ctx context.Context, token string) (manifold.User, error) {
	g, err := s.redeem(ctx, "tokens", token)
	if err != nil {
		return manifold.User{}, err
	}
	user, err := s.User(ctx, g.User)
	if err != nil {
		return manifold.User{}, fmt.Errorf("find the token's user: %w", err)
	}
	return user, nil
}

// CreateJoinToken makes a secret by which agents and routers may join, any
// number of them, until ttl is over (0: never ends). A join token is it, a dot
// and the CA's fingerprint.
func (s *Store) CreateJoinToken(ctx context.Context, ttl time.Duration) (secret string, err error) {
	err = s.transact(ctx, func(t *tx) (err error) {
		secret, err = s.mint(t, "joins", joinPrefix, grant{}, ttl)
		return err
	})
	return secret, err
}

// RedeemJoinToken accepts a secret that CreateJoinToken made and that has not
// ended; any other is ErrUnauthorized.
func (s *Store) RedeemJoinToken(ctx context.Context, secret string) error {
	_, err := s.redeem(ctx, "joins", secret)
	return err
}
