package store

import (
	"strings"
	"testing"
	"time"

	"manifold"
)

func TestBootstrapOnce(t *testing.T) {
	s := open(t, t.TempDir())
	token := must(s.Bootstrap(t.Context(), "Ada@Example.com"))(t)
	if !strings.HasPrefix(token, tokenPrefix) || len(token) < 43 {
		t.Errorf("token %q", token)
	}
	user := mustAuthenticate(t, s, token)
	if user.Email != "ada@example.com" || user.ID == "" {
		t.Errorf("first user %+v", user)
	}
	for _, by := range []string{user.ID, "ADA@example.com"} {
		if got := must(s.User(t.Context(), by))(t); got.ID != user.ID {
			t.Errorf("User(%q) found %+v", by, got)
		}
	}
	if again := must(s.Bootstrap(t.Context(), "eve@example.com"))(t); again != "" {
		t.Error("a second first user was made")
	}
	_, err := s.User(t.Context(), "eve@example.com")
	wantErr(t, "User", err, ErrNotFound)
}

func TestTokens(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	now := time.Now()
	s.now = func() time.Time { return now }
	first := must(s.Bootstrap(t.Context(), "ada@example.com"))(t)
	user := mustAuthenticate(t, s, first)
	short := must(s.CreateToken(t.Context(), user, "ci", time.Hour))(t)
	mustAuthenticate(t, s, short)
	for _, wrong := range []string{"", "mfld_", first[:len(first)-1], first + "x", strings.ToLower(first), "../first-user"} {
		_, _, err := s.Authenticate(t.Context(), wrong)
		wantErr(t, "token "+wrong, err, ErrUnauthorized)
	}
	_, err := s.CreateToken(t.Context(), manifold.User{ID: "nobody"}, "", 0)
	wantErr(t, "token for nobody", err, ErrNotFound)

	// The grant is found by a short part of the hash; the rest must match too.
	_, id := hashToken("guess")
	g := grant{Hash: make([]byte, 32), User: user.ID}
	if err := s.transact(t.Context(), "", func(t *tx) error { return t.put(key("tokens", id), g) }); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Authenticate(t.Context(), "guess")
	wantErr(t, "token that shares an id", err, ErrUnauthorized)

	now = now.Add(time.Hour)
	_, _, err = s.Authenticate(t.Context(), short)
	wantErr(t, "token past its end", err, ErrUnauthorized)
	mustAuthenticate(t, s, first)
	must(s.CreateToken(t.Context(), user, "ci", time.Hour))(t)
	if left := must(s.engine.list(t.Context(), key("tokens", "")))(t); len(left) != 3 {
		t.Errorf("%d grants after another was made, want the first token's, the forged one and the new one", len(left))
	}
	now = now.Add(time.Hour)
	if err := s.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := must(s.engine.list(t.Context(), key("tokens", "")))(t); len(left) != 2 {
		t.Errorf("%d grants after the sweep, want the first token's and the forged one", len(left))
	}
}

func TestJoinTokens(t *testing.T) {
	s := open(t, t.TempDir())
	now := time.Now()
	s.now = func() time.Time { return now }
	secret := must(s.CreateJoinToken(t.Context(), time.Minute))(t)
	if strings.Contains(secret, ".") {
		t.Errorf("secret %q holds the dot that ends it in a join token", secret)
	}
	for range 3 { // reusable
		if err := s.RedeemJoinToken(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	}
	wantErr(t, "wrong secret", s.RedeemJoinToken(t.Context(), secret+"x"), ErrUnauthorized)
	_, _, err := s.Authenticate(t.Context(), secret)
	wantErr(t, "join token as API token", err, ErrUnauthorized)
	api := must(s.Bootstrap(t.Context(), "ada@example.com"))(t)
	wantErr(t, "API token as join token", s.RedeemJoinToken(t.Context(), api), ErrUnauthorized)
	now = now.Add(time.Minute)
	wantErr(t, "expired", s.RedeemJoinToken(t.Context(), secret), ErrUnauthorized)
}

// A first token that is older than scopes and ids keeps all its rights, and is
// still known as the first after it was renamed.
func TestTokenOfOldRecords(t *testing.T) {
	s := open(t, t.TempDir())
	token := must(s.Bootstrap(t.Context(), "ada@example.com"))(t)
	user := mustAuthenticate(t, s, token)
	hash, id := hashToken(token)
	old := grant{Hash: hash, User: user.ID, Description: firstToken, CreatedAt: s.stamp()}
	if err := s.transact(t.Context(), "", func(t *tx) error { return t.put(key("tokens", id), old) }); err != nil {
		t.Fatal(err)
	}
	_, a, err := s.Authenticate(t.Context(), token)
	if err != nil || !a.Default || !a.May(ScopeGlobal) || len(a.ID) != 36 {
		t.Fatalf("an old token is %+v (%v)", a, err)
	}
	name := "mine"
	if _, _, err := s.Reauthorize(t.Context(), user.ID, a.ID, &name, false); err != nil {
		t.Fatal(err)
	}
	if _, b, err := s.Authenticate(t.Context(), token); err != nil || b.ID != a.ID || !b.Default || !b.May(ScopeGlobal) || b.Description != name {
		t.Errorf("renamed it is %+v (%v)", b, err)
	}
}
