package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"manifold"
)

// firstToken describes the token a user is made with.
const firstToken = "First token"

// Bootstrap makes the first user and a token for them that does not expire.
// The token is "" if there was a first user already.
func (s *Store) Bootstrap(ctx context.Context, email string) (token string, err error) {
	err = s.transact(ctx, "", func(t *tx) error {
		token = ""
		var first string
		if found, err := t.get(key("first-user"), &first); err != nil || found {
			return err
		}
		user, made, err := s.insertUser(t, strings.ToLower(email))
		token = made
		return cmp.Or(err, t.insert(key("first-user"), user.ID))
	})
	return token, err
}

// CreateUser makes a user and a token for them that does not expire. An
// address that has one is ErrTaken.
func (s *Store) CreateUser(ctx context.Context, email string) (user manifold.User, token string, err error) {
	if email, err = manifold.CheckEmail(email); err != nil {
		return user, "", err
	}
	err = s.transact(ctx, "", func(t *tx) error {
		var holder string
		if taken, err := t.get(key("emails", email), &holder); err != nil {
			return err
		} else if taken {
			return fmt.Errorf("email address %s %w", email, ErrTaken)
		}
		var err error
		user, token, err = s.insertUser(t, email)
		return err
	})
	return user, token, err
}

func (s *Store) insertUser(t *tx, email string) (manifold.User, string, error) {
	user := manifold.User{ID: uuid.NewString(), Email: email, CreatedAt: s.stamp()}
	if err := cmp.Or(t.insert(key("users", user.ID), user), t.insert(key("emails", email), user.ID)); err != nil {
		return user, "", err
	}
	_, token, err := s.mintToken(t, grant{User: user.ID, Description: firstToken, Scope: []string{ScopeGlobal}, Default: true}, 0)
	return user, token, err
}

// Users lists all users by email.
func (s *Store) Users(ctx context.Context) ([]manifold.User, error) {
	users, err := list[manifold.User](ctx, s.engine, key("users", ""))
	slices.SortFunc(users, func(a, b manifold.User) int { return cmp.Compare(a.Email, b.Email) })
	return users, err
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
	return find[manifold.User](t, key("users", id), "user "+clip(idOrEmail))
}
