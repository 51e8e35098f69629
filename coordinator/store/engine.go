package store

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// engine is all the store asks of what lies below it: a map of small records
// whose keys sort, where every change has a revision. Members of a cluster may
// stand behind it; nothing above knows.
type engine interface {
	// get returns the record at key; its revision is 0 where there is none.
	get(ctx context.Context, key string) (record, error)
	// list returns the records whose keys start with prefix, by key, all as of
	// one moment.
	list(ctx context.Context, prefix string) ([]record, error)
	// commit makes all writes at once, and durable, if each key in seen still
	// has the revision noted there, and says whether it did. After an error
	// the writes may or may not have been made.
	commit(ctx context.Context, seen map[string]int64, writes []write) (bool, error)
	// watch sends a token after a change below prefix, one for any number of
	// changes nobody took yet. The first is sent once it listens. The channel
	// closes when ctx ends or the engine closes.
	watch(ctx context.Context, prefix string) <-chan struct{}
	close() error
}

type record struct {
	key      string
	value    []byte
	revision int64         // of its last change
	decoded  *atomic.Value // what it was decoded to, kept as long as it is in memory; nil: it is not
}

const maxWrites = 128 // etcd's default of what one commit may hold

type write struct {
	key   string
	value []byte // nil: delete
	under bool   // delete every key that starts with key
}

// tx is one try of a transaction: it notes the revision of what it reads and
// keeps what it writes until the end. Its reads are not of one moment, but the
// commit succeeds only if they could have been.
type tx struct {
	ctx    context.Context
	engine engine
	seen   map[string]int64
	writes []write
	notes  []note
}

func (s *Store) begin(ctx context.Context) *tx {
	return &tx{ctx: ctx, engine: s.engine, seen: map[string]int64{}}
}

// get reads the JSON record at key into v and says whether there is one.
func (t *tx) get(key string, v any) (bool, error) {
	r, err := t.engine.get(t.ctx, key)
	if err != nil {
		return false, err
	}
	t.seen[key] = r.revision
	if r.revision == 0 {
		return false, nil
	}
	return true, decode(r, v)
}

// find reads the record at key, which is what, or ErrNotFound.
func find[T any](t *tx, key, what string) (v T, err error) {
	found, err := t.get(key, &v)
	if err == nil && !found {
		err = fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	return v, err
}

// put writes v as JSON at key when the transaction commits.
func (t *tx) put(key string, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	t.writes = append(t.writes, write{key: key, value: value})
	return nil
}

// insert is put, and the transaction is tried again if key exists by then.
func (t *tx) insert(key string, v any) error {
	t.seen[key] = 0
	return t.put(key, v)
}

func (t *tx) remove(key string)         { t.writes = append(t.writes, write{key: key}) }
func (t *tx) removeUnder(prefix string) { t.writes = append(t.writes, write{key: prefix, under: true}) }

// shared decodes a record once for all who read it from memory: nobody may
// change what the value points to.
func shared[T any](r record) (v T, err error) {
	if r.decoded != nil {
		if v, ok := r.decoded.Load().(T); ok {
			return v, nil
		}
	}
	if err = decode(r, &v); err == nil && r.decoded != nil {
		r.decoded.CompareAndSwap(nil, v)
	}
	return v, err
}

func decode(r record, v any) error {
	if err := json.Unmarshal(r.value, v); err != nil {
		return fmt.Errorf("read %s: %w", r.key, err)
	}
	return nil
}

// maxTries bounds a transaction that others keep overtaking. At least one of
// them succeeds each time, so it takes a crowd to get there.
const maxTries = 64

// transact runs try until its commit is not overtaken, then returns what try
// returned. An error of try ends it; nothing is written then. What try noted is
// in the audit trail from the same moment on. thing is the id of what is
// changed, an app's for all that is an app's, whose turn it waits for; "" for
// what nobody else would change at the same time.
func (s *Store) transact(ctx context.Context, thing string, try func(*tx) error) error {
	if thing != "" {
		done, err := s.turns.take(ctx, thing)
		if err != nil {
			return err
		}
		defer done()
	}
	for n := range maxTries {
		t := s.begin(ctx)
		if err := try(t); err != nil {
			return err
		}
		if len(t.writes) == 0 {
			return nil
		}
		if err := t.enter(s.stamp()); err != nil {
			return err
		}
		done, err := s.engine.commit(ctx, t.seen, t.writes)
		if err != nil {
			return err
		}
		if done {
			t.report()
			return nil
		}
		if err := pause(ctx, rand.N(min(time.Millisecond<<min(n, 5), 20*time.Millisecond))); err != nil {
			return err
		}
	}
	return ErrConflict
}

// pause waits out d or ends with ctx.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
