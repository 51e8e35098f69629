package store

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"manifold"
)

// What a caller can act on. They are wrapped; use errors.Is.
var (
	ErrNotFound     = errors.New("not found")
	ErrTaken        = errors.New("is already taken")
	ErrConflict     = errors.New("changed by someone else too often; try again")
	ErrUnauthorized = errors.New("not authorized")
)

// Store is the coordinator's memory. It is safe for use by several goroutines.
type Store struct{}

var errSkeleton = errors.New("store: not yet written")

// Open opens the store in dir (made if missing): dir/etcd holds the records, dir/key the key.
func Open(ctx context.Context, dir string, log *slog.Logger) (*Store, error) { return nil, errSkeleton }

// Close ends the store.
func (s *Store) Close() error { return errSkeleton }

// Cluster is the id drawn when the store was first made.
func (s *Store) Cluster() string { return "" }

// Once returns the value of key, which make makes the first time. It is encrypted at rest.
func (s *Store) Once(ctx context.Context, key string, make func() ([]byte, error)) ([]byte, error) {
	return nil, errSkeleton
}

// Changes tells that something changed.
func (s *Store) Changes(ctx context.Context) <-chan struct{} { return nil }

// CreateApp makes an app with releases v1 and v2.
func (s *Store) CreateApp(ctx context.Context, app manifold.App, by manifold.User) (manifold.App, error) {
	return manifold.App{}, errSkeleton
}

// App finds an app by name or id.
func (s *Store) App(ctx context.Context, nameOrID string) (manifold.App, error) {
	return manifold.App{}, errSkeleton
}

// Apps lists all apps by name.
func (s *Store) Apps(ctx context.Context) ([]manifold.App, error) { return nil, errSkeleton }

// UpdateApp changes an app, its name included.
func (s *Store) UpdateApp(ctx context.Context, id string, change func(*manifold.App) error) (manifold.App, error) {
	return manifold.App{}, errSkeleton
}

// DeleteApp removes an app; its placements stay for the scheduler to retire.
func (s *Store) DeleteApp(ctx context.Context, id string) error { return errSkeleton }

// Releases lists an app's releases, oldest first.
func (s *Store) Releases(ctx context.Context, app string) ([]manifold.Release, error) {
	return nil, errSkeleton
}

// CurrentRelease is an app's newest release.
func (s *Store) CurrentRelease(ctx context.Context, app string) (manifold.Release, error) {
	return manifold.Release{}, errSkeleton
}

// AddRelease adds a release made from the current one by change.
func (s *Store) AddRelease(ctx context.Context, app string, by manifold.User, change func(next *manifold.Release) error) (manifold.Release, error) {
	return manifold.Release{}, errSkeleton
}

// Deploy adds slug, release and formation.
func (s *Store) Deploy(ctx context.Context, app string, slug manifold.Slug, description string, by manifold.User) (manifold.Release, error) {
	return manifold.Release{}, errSkeleton
}

// Slug finds a slug.
func (s *Store) Slug(ctx context.Context, id string) (manifold.Slug, error) {
	return manifold.Slug{}, errSkeleton
}

// Slugs lists all slugs.
func (s *Store) Slugs(ctx context.Context) ([]manifold.Slug, error) { return nil, errSkeleton }

// Formation lists an app's formation by type.
func (s *Store) Formation(ctx context.Context, app string) ([]manifold.Formation, error) {
	return nil, errSkeleton
}

// UpdateFormation changes an app's formation as a whole.
func (s *Store) UpdateFormation(ctx context.Context, app string, change func([]manifold.Formation) ([]manifold.Formation, error)) ([]manifold.Formation, error) {
	return nil, errSkeleton
}

// Bootstrap makes the first user and a token; "" if there is one already.
func (s *Store) Bootstrap(ctx context.Context, email string) (token string, err error) {
	return "", errSkeleton
}

// User finds a user by id or email.
func (s *Store) User(ctx context.Context, idOrEmail string) (manifold.User, error) {
	return manifold.User{}, errSkeleton
}

// Authenticate finds the user a token speaks for.
func (s *Store) Authenticate(ctx context.Context, token string) (manifold.User, error) {
	return manifold.User{}, errSkeleton
}

// CreateToken makes an API token; ttl 0 is for ever.
func (s *Store) CreateToken(ctx context.Context, user manifold.User, description string, ttl time.Duration) (string, error) {
	return "", errSkeleton
}

// CreateJoinToken makes a secret that lets agents and routers join.
func (s *Store) CreateJoinToken(ctx context.Context, ttl time.Duration) (secret string, err error) {
	return "", errSkeleton
}

// RedeemJoinToken accepts a secret CreateJoinToken made (without the fingerprint), any number of times until it expires.
func (s *Store) RedeemJoinToken(ctx context.Context, secret string) error { return errSkeleton }

// AddHost keeps a host.
func (s *Store) AddHost(ctx context.Context, host manifold.Host) error { return errSkeleton }

// Hosts lists all hosts.
func (s *Store) Hosts(ctx context.Context) ([]manifold.Host, error) { return nil, errSkeleton }
