package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"manifold"
)

// KnownHost is a host that joined, and what this coordinator knows of it now.
type KnownHost struct {
	manifold.Host
	Connected bool      `json:"connected"`
	Seen      time.Time `json:"seen,omitzero"` // when it last said what it runs; zero: not since this coordinator started
	Draining  bool      `json:"draining"`      // its people want it empty
	Dynos     int       `json:"dynos"`         // of all kinds, as it last said
	Up        int       `json:"up"`            // of those
}

// knownHosts lists all hosts by name, also those that are away.
func (r *rooms) knownHosts(ctx context.Context) ([]KnownHost, error) {
	joined, err := r.store.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	peers, known := r.fleet.Hosts(), make([]KnownHost, len(joined))
	for i, h := range joined {
		peer := peers[h.ID]
		known[i] = KnownHost{Host: h, Connected: peer.Live, Seen: peer.Seen, Draining: peer.Observation.Draining, Dynos: len(peer.Observation.Dynos)}
		for _, d := range peer.Observation.Dynos {
			if d.State == manifold.StateUp {
				known[i].Up++
			}
		}
	}
	slices.SortFunc(known, func(a, b KnownHost) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return known, nil
}

// Hosts asks the running coordinator of this instance for all hosts, by name.
func Hosts(ctx context.Context, s manifold.Settings) ([]KnownHost, error) {
	var reply []KnownHost
	if err := askAdmin(ctx, s, http.MethodGet, "/v1/hosts", nil, &reply); err != nil {
		return nil, fmt.Errorf("list hosts: %w", err)
	}
	return reply, nil
}
