package store

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
	"weak"

	"manifold"
)

// patience is how long a test waits for what must happen: a machine may be busy
// with others' tests.
const patience = time.Minute

var ada = manifold.User{ID: "u-ada", Email: "ada@example.com"}

// testLog sends what the store logs to the test's own output.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newApp(t testing.TB, s *Store, name string) manifold.App {
	t.Helper()
	app, err := s.CreateApp(t.Context(), manifold.App{Name: name, Stack: "cedar"}, ada)
	if err != nil {
		t.Fatal(err)
	}
	return app
}

// must takes what a call returned and ends the test if it failed.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func mustAuthenticate(t testing.TB, s *Store, token string) manifold.User {
	t.Helper()
	user, _, err := s.Authenticate(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return user
}

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func TestReopenFindsEverything(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	app := newApp(t, s, "kept")
	token := must(s.Bootstrap(t.Context(), "ada@example.com"))(t)
	cluster := s.Cluster()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, dir)
	if s.Cluster() != cluster || cluster == "" {
		t.Errorf("cluster id changed from %q to %q", cluster, s.Cluster())
	}
	if got := must(s.App(t.Context(), "kept"))(t); got.ID != app.ID || !got.CreatedAt.Equal(app.CreatedAt) {
		t.Errorf("app after reopening: %+v, want %+v", got, app)
	}
	if user := mustAuthenticate(t, s, token); user.Email != "ada@example.com" {
		t.Errorf("token speaks for %q", user.Email)
	}
}

func TestOneCoordinatorAtATime(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := Open(t.Context(), dir, testLog(t)); err == nil {
		t.Fatal("a second store opened the same directory")
	}
	s.Close()
	open(t, dir)
}

func TestTheKeyIsKeptApartAndNeeded(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	app := newApp(t, s, "secretive")
	const secret = "hunter2-is-not-in-the-database"
	must(s.AddRelease(t.Context(), app.ID, ada, func(r *manifold.Release) error {
		r.Config["PASSWORD"] = secret
		return nil
	}))(t)
	if err := s.PutPlacement(t.Context(), Placement{Host: "h", Assignment: manifold.Assignment{
		ID: "a1", Env: map[string]string{"PASSWORD": secret}}}); err != nil {
		t.Fatal(err)
	}
	must(s.Once(t.Context(), "ca", func() ([]byte, error) { return []byte(secret), nil }))(t)
	token := must(s.Bootstrap(t.Context(), ada.Email))(t)
	join := must(s.CreateJoinToken(t.Context(), time.Hour))(t)
	s.Close()

	info, err := os.Stat(filepath.Join(dir, "key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: mode %v, %v; want 0600", info.Mode(), err)
	}
	for _, hidden := range []string{secret, token, join} {
		if file := fileWith(t, dir, hidden); file != "" {
			t.Errorf("%s holds a secret in clear", file)
		}
	}
	if fileWith(t, dir, "secretive") == "" {
		t.Error("the search finds not even the app's name: it proves nothing")
	}

	if err := os.Rename(filepath.Join(dir, "key"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir, testLog(t)); err == nil {
		t.Error("the store opened without its key")
	}
	if _, err := os.Stat(filepath.Join(dir, "key")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a new key was made over old records")
	}
	if err := os.WriteFile(filepath.Join(dir, "key"), bytes.Repeat([]byte{7}, keyBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir, testLog(t)); err == nil {
		t.Error("the store opened with another key")
	}
}

// fileWith returns a file below dir whose bytes hold text, or "".
func fileWith(t *testing.T, dir, text string) (found string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte(text)) {
			found = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestSealedValueOpensInItsRecordOnly(t *testing.T) {
	v := must(openVault(filepath.Join(t.TempDir(), "key"), true))(t)
	sealed := v.seal([]byte("x"), versionKey("configs", "a", 1))
	if _, err := v.open(sealed, versionKey("configs", "a", 2)); err == nil {
		t.Error("config of v1 opened as that of v2")
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := v.open(sealed, versionKey("configs", "a", 1)); err == nil {
		t.Error("a changed value opened")
	}
}

func TestOnceMakesOnce(t *testing.T) {
	s := open(t, t.TempDir())
	results := make(chan string)
	for i := range 8 {
		go func() {
			v, err := s.Once(t.Context(), "k", func() ([]byte, error) { return []byte{byte('a' + i)}, nil })
			results <- string(v) + errText(err)
		}()
	}
	first := <-results
	for range 7 {
		if got := <-results; got != first {
			t.Errorf("Once returned %q to one and %q to another", first, got)
		}
	}
	broken := errors.New("no entropy")
	_, err := s.Once(t.Context(), "other", func() ([]byte, error) { return nil, broken })
	wantErr(t, "Once whose make fails", err, broken)
	if v := must(s.Once(t.Context(), "other", func() ([]byte, error) { return []byte("ok"), nil }))(t); string(v) != "ok" {
		t.Errorf("Once after a failure: %q", v)
	}
}

func errText(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestChangesAreToldAndCoalesced(t *testing.T) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	changes := s.Changes(ctx)
	take := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(patience):
			t.Fatalf("no token %s", what)
		}
	}
	take("when it listens")
	for i := range 50 {
		if err := s.AddHost(ctx, manifold.Host{ID: string(rune('a' + i))}); err != nil {
			t.Fatal(err)
		}
	}
	// A reader who reads all at each token sees the last change in the end,
	// after far fewer tokens than changes if it was away.
	tokens := 0
	for len(must(s.Hosts(ctx))(t)) < 50 || tokens == 0 {
		take("after changes")
		tokens++
	}
	if tokens > 3 {
		t.Errorf("%d tokens waited for a reader who was away", tokens)
	}
	cancel()
	closed(t, changes, "its context ended")

	changes = s.Changes(t.Context())
	s.Close()
	closed(t, changes, "the store closed")
}

// A reader of Changes who has gone is kept by nothing: each push with a release
// command is one, and the store lasts for months.
func TestAReaderWhoHasGoneIsForgotten(t *testing.T) {
	s := open(t, t.TempDir())
	<-s.Changes(t.Context()) // etcd's client keeps its first watch's context as long as there is a watch
	type mark struct{ s *Store }
	kept := func() weak.Pointer[mark] {
		m := &mark{s}
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), mark{}, m))
		changes := s.Changes(ctx)
		<-changes
		cancel()
		closed(t, changes, "its context ended")
		return weak.Make(m)
	}()
	for began := time.Now(); kept.Value() != nil; time.Sleep(10 * time.Millisecond) {
		if runtime.GC(); time.Since(began) > patience/4 {
			t.Fatal("the context of a reader who has gone is still kept")
		}
	}
}

func closed(t *testing.T, changes <-chan struct{}, when string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case _, ok := <-changes:
			if !ok {
				return
			}
		case <-deadline:
			t.Fatalf("Changes stayed open after %s", when)
		}
	}
}

func TestStoreListensNowhere(t *testing.T) {
	before := listeners(t)
	open(t, t.TempDir())
	if after := listeners(t); after != before {
		t.Errorf("sockets of this process went from %d to %d", before, after)
	}
}

// listeners counts this process's sockets of any kind.
func listeners(t *testing.T) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, _ := os.Readlink("/proc/self/fd/" + fd.Name()); len(target) > 7 && target[:7] == "socket:" {
			n++
		}
	}
	return n
}
