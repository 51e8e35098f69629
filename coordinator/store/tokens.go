package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"time"
)

// grant is a token at rest: its hash, never the token. A token has 256 random
// bits, so that a plain hash is as hard to guess as the token.
type grant struct {
	Hash        []byte    `json:"hash"`
	ID          string    `json:"id,omitempty"`
	User        string    `json:"user,omitempty"`
	Description string    `json:"description,omitempty"`
	Scope       []string  `json:"scope,omitempty"`
	Hint        string    `json:"hint,omitempty"`
	Default     bool      `json:"default,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at,omitzero"`
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
func (s *Store) mint(t *tx, kind, prefix string, g grant, ttl time.Duration) (grant, string, error) {
	random := make([]byte, 32)
	rand.Read(random)
	token := prefix + base64.RawURLEncoding.EncodeToString(random)
	var id string
	g.Hash, id = hashToken(token)
	g.CreatedAt, g.UpdatedAt = s.stamp(), s.stamp()
	if prefix == tokenPrefix {
		g.Hint = hint(token)
	}
	if ttl > 0 {
		g.ExpiresAt = g.CreatedAt.Add(ttl)
	}
	return g, token, t.insert(key(kind, id), g)
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

// CreateJoinToken makes a secret by which agents and routers may join, any
// number of them, until ttl is over (0: never ends). A join token is it, a dot
// and the CA's fingerprint.
func (s *Store) CreateJoinToken(ctx context.Context, ttl time.Duration) (secret string, err error) {
	err = s.transact(ctx, "", func(t *tx) (err error) {
		_, secret, err = s.mint(t, "joins", joinPrefix, grant{}, ttl)
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
