package store

import (
	"fmt"
	"slices"
	"strings"

	"manifold"
)

// claimDomains takes the domains app has for it, and lets go of those it had
// and has no more.
func (t *tx) claimDomains(app manifold.App, had []manifold.Domain) error {
	if len(app.Domains) > manifold.MaxDomains { // DeleteApp lets go of all in one transaction
		return &manifold.InvalidError{What: "Domains", Why: fmt.Sprintf("may be at most %d of one app", manifold.MaxDomains)}
	}
	in := func(all []manifold.Domain, d manifold.Domain) bool {
		return slices.ContainsFunc(all, func(x manifold.Domain) bool { return x.Hostname == d.Hostname })
	}
	for _, d := range had {
		if !in(app.Domains, d) {
			t.remove(key("domains", d.Hostname))
		}
	}
	for _, d := range app.Domains {
		if in(had, d) {
			continue
		}
		if err := t.claimDomain(app, d.Hostname); err != nil {
			return err
		}
	}
	return nil
}

// claimDomain takes a host name. A wildcard and a name below it may be two
// apps', of which routers prefer the exact one, but only of the same owner:
// nobody takes a part of what is another's.
func (t *tx) claimDomain(app manifold.App, host string) error {
	taken := fmt.Errorf("domain %s %w", host, ErrTaken)
	var holder string
	if found, err := t.get(key("domains", host), &holder); err != nil {
		return err
	} else if found {
		return taken
	}
	beside, err := t.beside(host)
	if err != nil {
		return err
	}
	for _, id := range beside {
		if other, err := t.app(id); err != nil {
			return err
		} else if other.Owner != app.Owner {
			return taken
		}
	}
	return t.put(key("domains", host), app.ID)
}

// beside lists the apps that hold the wildcard above a name, or the names
// below a wildcard.
func (t *tx) beside(host string) (apps []string, err error) {
	first, parent, _ := strings.Cut(host, ".")
	if first != "*" {
		var holder string
		if found, err := t.get(key("domains", "*."+parent), &holder); err != nil || !found {
			return nil, err
		}
		return []string{holder}, nil
	}
	records, err := t.engine.list(t.ctx, key("domains", ""))
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		if _, above, _ := strings.Cut(strings.TrimPrefix(r.key, key("domains", "")), "."); above != parent {
			continue
		}
		var holder string
		if err := decode(r, &holder); err != nil {
			return nil, err
		}
		apps = append(apps, holder)
	}
	return apps, nil
}
