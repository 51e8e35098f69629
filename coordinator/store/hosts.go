package store

import (
	"context"

	"manifold"
)

// AddHost keeps a host under its id, whatever was there.
func (s *Store) AddHost(ctx context.Context, host manifold.Host) error {
	return s.transact(ctx, "", func(t *tx) error { return t.put(key("hosts", host.ID), host) })
}

// Hosts lists all hosts, by id.
func (s *Store) Hosts(ctx context.Context) ([]manifold.Host, error) {
	return list[manifold.Host](ctx, s.engine, key("hosts", ""))
}
