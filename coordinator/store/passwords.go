package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"

	"golang.org/x/crypto/argon2"

	"manifold"
)

// Bounds on passwords, in bytes.
const (
	MinPassword = 10
	MaxPassword = 1024
)

// password is a user's password at rest: an Argon2id hash and what it was made
// with, so that the costs can rise without locking anybody out.
type password struct {
	Salt    []byte `json:"salt"`
	Hash    []byte `json:"hash"`
	Passes  uint32 `json:"passes"`
	Memory  uint32 `json:"memory"` // KiB
	Threads uint8  `json:"threads"`
}

// newPassword has the costs RFC 9106, 4, recommends where memory is short:
// about a tenth of a second and 64 MiB.
func newPassword(text string) password {
	p := password{Salt: make([]byte, 16), Passes: 3, Memory: 64 << 10, Threads: 4}
	rand.Read(p.Salt)
	p.Hash = p.hash(text)
	return p
}

// hashing lets one password be hashed at a time, so that guessers cannot take
// the machine's memory.
var hashing = make(chan struct{}, 1)

func (p password) hash(text string) []byte {
	hashing <- struct{}{}
	defer func() { <-hashing }()
	return argon2.IDKey([]byte(text), p.Salt, p.Passes, p.Memory, p.Threads, 32)
}

// SetPassword lets a user log in with a password; the one before it ends.
// Tokens stay.
func (s *Store) SetPassword(ctx context.Context, email, text string) error {
	if len(text) < MinPassword || len(text) > MaxPassword {
		return &manifold.InvalidError{What: "Password", Why: fmt.Sprintf("must be %d to %d bytes long", MinPassword, MaxPassword)}
	}
	user, err := s.User(ctx, email)
	if err != nil {
		return err
	}
	p := newPassword(text)
	return s.transact(ctx, user.ID, func(t *tx) error {
		t.note(user.ID, "Set password")
		return t.put(key("passwords", user.ID), p)
	})
}

// Login finds the user whose address and password these are, or
// ErrUnauthorized. It takes as long for an address nobody has.
func (s *Store) Login(ctx context.Context, email, text string) (manifold.User, error) {
	if len(text) > MaxPassword || len(email) > 254 {
		return manifold.User{}, ErrUnauthorized
	}
	user, err := s.User(ctx, email)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return manifold.User{}, err
	}
	p := password{Salt: make([]byte, 16), Passes: 3, Memory: 64 << 10, Threads: 4}
	known := err == nil
	if known {
		if known, err = s.begin(ctx).get(key("passwords", user.ID), &p); err != nil {
			return manifold.User{}, err
		}
	}
	if subtle.ConstantTimeCompare(p.hash(text), p.Hash) != 1 || !known {
		return manifold.User{}, cmp.Or(ctx.Err(), ErrUnauthorized)
	}
	return user, nil
}
