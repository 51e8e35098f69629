package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// What a caller can act on; use errors.Is. Input out of bounds is a
// *manifold.InvalidError. After any other error of a call that writes, the
// write may or may not have been made.
var (
	ErrNotFound     = errors.New("not found")
	ErrTaken        = errors.New("is already taken")
	ErrConflict     = errors.New("was changed by others too often at the same time: try again")
	ErrReleasing    = errors.New("waits for a release command that still runs")
	ErrUnauthorized = errors.New("the token is unknown or has expired")
)

// Store is the coordinator's memory. It is safe for use by several
// goroutines. What a call has acknowledged survives a kill -9 and a power cut.
// Functions given to it (change, make) may be called more than once and must
// not call the store.
//
// The records, JSON each:
//
//	apps/APP                  app, and the number of its newest release
//	names/NAME                the app's id; makes names unique
//	domains/HOSTNAME          the app's id; makes them unique
//	releases/APP/0000000001   release, and the version that set its config vars
//	configs/APP/0000000001    config vars, or how they differ from others, sealed
//	phases/APP                the release whose command runs, while it does
//	builds/APP/BUILD          build
//	jobs/APP/JOB              scheduled job
//	formations/APP            the whole formation
//	drains/APP                its log drains, sealed
//	transfers/APP             the last offer of it to another user
//	slugs/SLUG                slug
//	deleted/APP               slugs still to be removed after their app
//	placements/ASSIGNMENT     placement; environment sealed
//	users/USER, emails/EMAIL  user; the user's id
//	passwords/USER            hash
//	keys/USER/FINGERPRINT     SSH public key
//	first-user                the user's id; there from the first start on
//	tokens/ID, joins/ID       hash of a token, whose it is, what it may do, when it ends
//	hosts/HOST                host
//	once/KEY                  value of Once, sealed
//
// Audit trails and webhooks lie elsewhere: see Author and AddWebhook.
type Store struct {
	engine  engine
	vault   *vault
	lock    *os.File
	cluster string
	now     func() time.Time
	closing func() error // once
	turns   turns
	newest  sync.Map // app's id → releaseRecord; see release
}

// root is what our keys start with in an etcd that others may use too.
const root = "/manifold/"

func key(parts ...string) string { return root + strings.Join(parts, "/") }

// Open opens the store in dir, a directory of the coordinator's state, which
// is made if need be: dir/etcd holds the records and dir/key what they are
// encrypted with. A backup needs both. One process may have it open.
func Open(ctx context.Context, dir string, log *slog.Logger) (*Store, error) {
	return openWith(ctx, dir, usualBounds, log)
}

func openWith(ctx context.Context, dir string, b bounds, log *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	s := &Store{lock: lock, now: time.Now}
	s.closing = sync.OnceValue(s.close)
	if err := s.open(ctx, dir, b, log); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store: %w", err), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, dir string, b bounds, log *slog.Logger) error {
	data := filepath.Join(dir, "etcd")
	_, err := os.Stat(data)
	if s.vault, err = openVault(filepath.Join(dir, "key"), errors.Is(err, os.ErrNotExist)); err != nil {
		return err
	}
	e, err := embedded(ctx, data, b, log)
	if err != nil {
		return err
	}
	s.engine = e
	id, err := s.Once(ctx, "cluster", func() ([]byte, error) { return []byte(uuid.NewString()), nil })
	if err != nil {
		return err
	}
	s.cluster = string(id)
	return s.sweep(ctx)
}

// lockDir keeps a second coordinator out: etcd would wait for the first.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is in use by another coordinator: stop that one, or set another MANIFOLD_HOME", dir)
	}
	return f, nil
}

// Close ends every channel of Changes and the engine. Calls after it fail,
// but for Close.
func (s *Store) Close() error { return s.closing() }

func (s *Store) close() error {
	var err error
	if s.engine != nil {
		err = s.engine.close()
	}
	return errors.Join(err, s.lock.Close())
}

// Cluster is the id drawn when the store was first made.
func (s *Store) Cluster() string { return s.cluster }

// Changes sends a token after any change, one for all that came since the last
// was taken. The first comes when it listens, so that a reader who reads
// everything at each token misses nothing. It is closed when ctx or the store
// ends.
func (s *Store) Changes(ctx context.Context) <-chan struct{} { return s.engine.watch(ctx, root) }

// Once returns the value kept under k. The first caller's make makes it,
// whoever else is asking at the same time. It is encrypted at rest.
func (s *Store) Once(ctx context.Context, k string, make func() ([]byte, error)) ([]byte, error) {
	k = key("once", k)
	var value []byte
	err := s.transact(ctx, k, func(t *tx) error {
		var sealed []byte
		if found, err := t.get(k, &sealed); err != nil {
			return err
		} else if found {
			value, err = s.vault.open(sealed, k)
			return err
		}
		var err error
		if value, err = make(); err != nil {
			return err
		}
		return t.put(k, s.vault.seal(value, k))
	})
	return value, err
}

// sweep removes what a kill or the time left behind: the rest of deletions,
// and tokens that ended.
func (s *Store) sweep(ctx context.Context) error {
	deletions, err := s.engine.list(ctx, key("deleted", ""))
	if err != nil {
		return err
	}
	for _, d := range deletions {
		if err := s.finishDeletion(ctx, strings.TrimPrefix(d.key, key("deleted", ""))); err != nil {
			return err
		}
	}
	return errors.Join(s.sweepTokens(ctx, "tokens"), s.sweepTokens(ctx, "joins"))
}

// removeAll removes records in order, in batches etcd accepts.
func (s *Store) removeAll(ctx context.Context, keys []string) error {
	for len(keys) > 0 {
		n := min(len(keys), maxWrites)
		writes := make([]write, n)
		for i, k := range keys[:n] {
			writes[i] = write{key: k}
		}
		if _, err := s.engine.commit(ctx, nil, writes); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// stamp is now as records keep it.
func (s *Store) stamp() time.Time { return s.now().UTC().Truncate(time.Millisecond) }

// ofApp reads an app's records of a kind, oldest first; of the empty name those
// of all apps. made says when one was made, and its id.
func ofApp[T any](ctx context.Context, e engine, kind, app string, made func(T) (time.Time, string)) ([]T, error) {
	prefix := key(kind, "")
	if app != "" {
		prefix = key(kind, app, "")
	}
	all, err := list[T](ctx, e, prefix)
	slices.SortFunc(all, func(a, b T) int {
		at, id := made(a)
		at2, id2 := made(b)
		return cmp.Or(at.Compare(at2), cmp.Compare(id, id2))
	})
	return all, err
}

// list reads every record under prefix.
func list[T any](ctx context.Context, e engine, prefix string) ([]T, error) {
	records, err := e.list(ctx, prefix)
	if err != nil {
		return nil, err
	}
	values := make([]T, len(records))
	for i, r := range records {
		if err := decode(r, &values[i]); err != nil {
			return nil, err
		}
	}
	return values, nil
}
