package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"manifold"
)

// MaxKeys bounds a user's SSH keys.
const MaxKeys = 100

// Key is an SSH public key of a user.
type Key struct {
	ID          string    `json:"id"`
	Public      string    `json:"public"`      // "type base64 comment"
	Fingerprint string    `json:"fingerprint"` // hexadecimal MD5 in pairs
	Comment     string    `json:"comment"`
	CreatedAt   time.Time `json:"created_at"`
}

// AddKey keeps a key of a user (User.ID). One that is there already is
// ErrTaken.
func (s *Store) AddKey(ctx context.Context, user string, k Key) error {
	present, err := s.Keys(ctx, user)
	if err != nil {
		return err
	}
	if len(present) >= MaxKeys {
		return &manifold.InvalidError{What: "Keys", Why: fmt.Sprintf("are at most %d of one user", MaxKeys)}
	}
	at := key("keys", user, k.Fingerprint)
	return s.transact(ctx, user, func(t *tx) error {
		var held Key
		if found, err := t.get(at, &held); err != nil {
			return err
		} else if found {
			return fmt.Errorf("key %s %w", k.Fingerprint, ErrTaken)
		}
		t.note(user, "Add SSH key %s", k.Fingerprint)
		return t.put(at, k)
	})
}

// Keys lists a user's keys, oldest first.
func (s *Store) Keys(ctx context.Context, user string) ([]Key, error) {
	keys, err := list[Key](ctx, s.engine, key("keys", user, ""))
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return keys, err
}

// RemoveKey forgets a key of a user.
func (s *Store) RemoveKey(ctx context.Context, user string, k Key) error {
	return s.transact(ctx, user, func(t *tx) error {
		t.note(user, "Remove SSH key %s", k.Fingerprint)
		t.remove(key("keys", user, k.Fingerprint))
		return nil
	})
}
