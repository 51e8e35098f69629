package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"manifold"
)

// keptBuilds is how many builds of an app are remembered.
const keptBuilds = 50

func buildKey(app, id string) string { return key("builds", app, id) }

// PutBuild keeps a build under its id, whatever was there, and forgets the
// app's oldest past keptBuilds; it returns the outputs of those. UpdatedAt is
// set, CreatedAt where it is missing. ErrNotFound: its app is gone.
func (s *Store) PutBuild(ctx context.Context, b *manifold.Build) (forgotten []string, err error) {
	b.UpdatedAt = s.stamp()
	if b.CreatedAt.IsZero() {
		b.CreatedAt = b.UpdatedAt
	}
	others, err := s.Builds(ctx, b.App)
	if err != nil {
		return nil, err
	}
	others = slices.DeleteFunc(others, func(old manifold.Build) bool { return old.ID == b.ID })
	others = others[:max(0, len(others)-keptBuilds+1)]
	err = s.transact(ctx, b.App, func(t *tx) error {
		app, err := t.app(b.App)
		if err != nil {
			return err
		}
		var was manifold.Build
		found, err := t.get(buildKey(b.App, b.ID), &was)
		if err != nil {
			return err
		}
		if !found {
			t.note(b.App, "Start build %s", b.ID)
			err = s.buildEvent(t, app, *b, nil)
		} else if was.Status != b.Status {
			err = s.buildEvent(t, app, *b, &was)
		}
		if err != nil {
			return err
		}
		forgotten = nil
		for _, old := range others {
			if old.Status != manifold.BuildPending {
				t.remove(buildKey(b.App, old.ID))
				forgotten = append(forgotten, old.Output)
			}
		}
		return t.put(buildKey(b.App, b.ID), b)
	})
	return forgotten, err
}

// Builds lists an app's builds, oldest first; of the empty name those of all
// apps.
func (s *Store) Builds(ctx context.Context, app string) ([]manifold.Build, error) {
	return ofApp(ctx, s.engine, "builds", app, func(b manifold.Build) (time.Time, string) { return b.CreatedAt, b.ID })
}

// Build finds a build of an app.
func (s *Store) Build(ctx context.Context, app, id string) (manifold.Build, error) {
	return find[manifold.Build](s.begin(ctx), buildKey(app, id), "build "+clip(id))
}

// AbandonBuilds marks every build as failed that was pending when its
// coordinator ended. No build may be running.
func (s *Store) AbandonBuilds(ctx context.Context) error {
	all, err := s.Builds(ctx, "")
	if err != nil {
		return err
	}
	for _, b := range all {
		if b.Status != manifold.BuildPending {
			continue
		}
		b.Status = manifold.BuildFailed
		if _, err := s.PutBuild(ctx, &b); err != nil {
			return fmt.Errorf("mark build %s as failed: %w", b.ID, err)
		}
	}
	return nil
}

// Outputs names every output that a build or release still speaks of.
func (s *Store) Outputs(ctx context.Context) (map[string]bool, error) {
	used := map[string]bool{}
	builds, err := s.Builds(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, b := range builds {
		used[b.Output] = true
	}
	releases, err := list[storedRelease](ctx, s.engine, key("releases", ""))
	for _, r := range releases {
		used[r.Output] = true
	}
	return used, err
}
