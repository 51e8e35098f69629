package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// configRecord is a change of config vars as it is sealed: all vars an app has
// then, or how they differ from another such record, the base, which is whole.
// Reading one takes two reads at most, and an app that changes one var of a
// hundred a hundred times does not keep a hundred times a hundred.
type configRecord struct {
	Base  int               `json:"base,omitempty"` // version under which it lies; 0: Set is all
	Set   map[string]string `json:"set,omitempty"`
	Unset []string          `json:"unset,omitempty"`
}

// configFormat begins a record. One from before there were differences is the
// sealed map itself in base64, as a JSON string, and is read as a whole one.
const configFormat = 1

func (s *Store) sealConfig(c configRecord, k string) ([]byte, error) {
	plain, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return append([]byte{configFormat}, s.vault.seal(plain, k)...), nil
}

func (s *Store) openConfig(r record) (c configRecord, err error) {
	if len(r.value) == 0 || r.value[0] != configFormat {
		var sealed []byte
		if err := decode(r, &sealed); err != nil {
			return c, err
		}
		c.Set, err = s.vault.openVars(sealed, r.key)
		return c, err
	}
	plain, err := s.vault.open(r.value[1:], r.key)
	if err == nil && json.Unmarshal(plain, &c) != nil {
		err = fmt.Errorf("decrypt %s: malformed", r.key) // not the cause: it may quote a value
	}
	return c, err
}

// on applies a record to its base's vars.
func (c configRecord) on(base map[string]string) map[string]string {
	vars := maps.Clone(base)
	if vars == nil {
		vars = map[string]string{}
	}
	for _, name := range c.Unset {
		delete(vars, name)
	}
	maps.Copy(vars, c.Set)
	return vars
}

// differ makes the record of vars: by a base where that is half of what the
// whole takes, or less.
func differ(base int, from, vars map[string]string) configRecord {
	c := configRecord{Base: base, Set: map[string]string{}}
	whole, changed := 0, 0
	for name, value := range vars {
		size := len(name) + len(value)
		whole += size
		if old, there := from[name]; !there || old != value {
			c.Set[name] = value
			changed += size
		}
	}
	for name := range from {
		if _, stays := vars[name]; !stays {
			c.Unset = append(c.Unset, name)
			changed += len(name)
		}
	}
	slices.Sort(c.Unset)
	if base == 0 || 2*changed > whole {
		return configRecord{Set: vars}
	}
	return c
}

// config reads the config vars that a version set, and the whole ones below
// them with their version.
func (s *Store) config(t *tx, app string, version int) (vars map[string]string, base int, whole map[string]string, err error) {
	c, err := s.configRecord(t, app, version)
	if err != nil || c.Base == 0 {
		return c.Set, version, c.Set, err
	}
	below, err := s.configRecord(t, app, c.Base)
	return c.on(below.Set), c.Base, below.Set, err
}

func (s *Store) configRecord(t *tx, app string, version int) (configRecord, error) {
	r, err := t.engine.get(t.ctx, versionKey("configs", app, version))
	if err != nil {
		return configRecord{}, err
	}
	if t.seen[r.key] = r.revision; r.revision == 0 {
		return configRecord{}, fmt.Errorf("config vars of v%d: %w", version, ErrNotFound) // with their app, just now
	}
	return s.openConfig(r)
}

// putConfig writes vars as set by a version, after those that an earlier one set.
func (s *Store) putConfig(t *tx, app string, version int, vars map[string]string, earlier int) error {
	base, from := 0, map[string]string(nil)
	if earlier != 0 {
		var err error
		if _, base, from, err = s.config(t, app, earlier); err != nil {
			return err
		}
	}
	k := versionKey("configs", app, version)
	sealed, err := s.sealConfig(differ(base, from, vars), k)
	t.seen[k] = 0
	t.writes = append(t.writes, write{key: k, value: sealed})
	return err
}

// configs reads all config vars an app ever had, by the version that set them.
func (s *Store) configs(ctx context.Context, app string) (map[int]map[string]string, error) {
	prefix := key("configs", app, "")
	records, err := s.engine.list(ctx, prefix)
	if err != nil {
		return nil, err
	}
	configs := make(map[int]map[string]string, len(records))
	for _, r := range records { // a base comes before what differs from it
		version, err := strconv.Atoi(strings.TrimPrefix(r.key, prefix))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", r.key, err)
		}
		c, err := s.openConfig(r)
		if err != nil {
			return nil, err
		}
		if configs[version] = c.Set; c.Base != 0 {
			configs[version] = c.on(configs[c.Base])
		}
	}
	return configs, nil
}
