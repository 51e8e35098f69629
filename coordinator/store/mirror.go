package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// mirrored are the kinds of records that say how things are now: few, small,
// and read by nearly every call. None is ever removed by prefix: await knows
// records by their keys.
var mirrored = []string{"apps", "names", "formations", "phases", "users", "emails", "tokens"}

// mirror is a copy of them in memory, fed by a watch, and as good as etcd's own
// answer: of each record the copy is told which revision a commit of this process
// gave it, and a read waits until the copy has that, so that nobody misses what
// they, or whoever told them of it, wrote. While there is no whole copy, at the
// start and after a watch broke, etcd is asked.
//
//	commit of x ─▶ etcd ─▶ revision 7 ─────────▶ awaited[x] = 7: reads of x wait
//	                  └──▶ watch: 5, 6, 7 ─▶ has = 7: they go on, watchers of Changes are told
type mirror struct {
	patience time.Duration // with a copy that does not come on; then etcd is asked

	mu      sync.Mutex
	whole   bool
	has     int64
	awaited map[string]int64 // revisions, not in the copy yet, of records
	more    chan struct{}    // closed when has or whole changes
	shelves map[string]*shelf
}

// shelf is all records of a kind.
type shelf struct {
	records map[string]record
	keys    []string // sorted; nil after one came or went
}

func (s *shelf) put(r record) {
	if _, known := s.records[r.key]; !known {
		s.keys = nil
	}
	s.records[r.key] = r
}

func (s *shelf) remove(k string) {
	delete(s.records, k)
	s.keys = nil
}

func (s *shelf) list() []record {
	if s.keys == nil {
		s.keys = slices.Sorted(maps.Keys(s.records))
	}
	all := make([]record, len(s.keys))
	for i, k := range s.keys {
		all[i] = s.records[k]
	}
	return all
}

func newMirror() *mirror {
	m := &mirror{patience: time.Second, more: make(chan struct{})}
	m.clear()
	return m
}

func (m *mirror) clear() {
	m.whole, m.shelves, m.awaited = false, map[string]*shelf{}, map[string]int64{}
	for _, kind := range mirrored {
		m.shelves[kind] = &shelf{records: map[string]record{}}
	}
}

// changed wakes those who wait; m.mu is held.
func (m *mirror) changed() {
	close(m.more)
	m.more = make(chan struct{})
}

// kindOf says of what kind a key is, and what it is below that: "" for the kind
// as a whole.
func kindOf(k string) (kind, id string) {
	below, ours := strings.CutPrefix(k, root)
	kind, id, found := strings.Cut(below, "/")
	if !ours || !found {
		return "", ""
	}
	return kind, id
}

// await makes readers of records wait for a revision.
func (m *mirror) await(revision int64, keys iter.Seq[string]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.whole || revision <= m.has { // a copy that is begun later has it
		return
	}
	for k := range keys {
		if kind, id := kindOf(k); id != "" && m.shelves[kind] != nil {
			m.awaited[k] = max(m.awaited[k], revision)
		}
	}
}

// needed is the revision that a reader of a record, or of all below a prefix,
// has to wait for; m.mu is held.
func (m *mirror) needed(k string) (revision int64) {
	if !strings.HasSuffix(k, "/") {
		return m.awaited[k]
	}
	for other, r := range m.awaited {
		if strings.HasPrefix(other, k) {
			revision = max(revision, r)
		}
	}
	return revision
}

// read calls look with a copy that has all that is needed for k, and a
// revision, and says whether there was one.
func (m *mirror) read(ctx context.Context, k string, revision int64, look func(shelves map[string]*shelf)) bool {
	var late <-chan time.Time
	for {
		m.mu.Lock()
		if !m.whole || m.has >= max(revision, m.needed(k)) {
			whole := m.whole
			if whole {
				look(m.shelves)
			}
			m.mu.Unlock()
			return whole
		}
		more := m.more
		m.mu.Unlock()
		if late == nil {
			timer := time.NewTimer(m.patience)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-more:
		case <-late:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (m *mirror) get(ctx context.Context, k string) (r record, ok bool) {
	kind, id := kindOf(k)
	if id == "" || !slices.Contains(mirrored, kind) {
		return r, false
	}
	ok = m.read(ctx, k, 0, func(shelves map[string]*shelf) { r = shelves[kind].records[k] })
	r.key = k
	return r, ok
}

func (m *mirror) list(ctx context.Context, prefix string) (records []record, ok bool) {
	kind, id := kindOf(prefix)
	if id != "" || !slices.Contains(mirrored, kind) {
		return nil, false
	}
	ok = m.read(ctx, prefix, 0, func(shelves map[string]*shelf) { records = shelves[kind].list() })
	return records, ok
}

// follow keeps the copy until ctx ends. newest is the revision that etcd's own
// readers see.
func (m *mirror) follow(ctx context.Context, e *etcd, newest func() int64) {
	for ctx.Err() == nil {
		err := m.followOnce(ctx, e, newest)
		m.mu.Lock()
		m.clear()
		m.changed()
		m.mu.Unlock()
		if ctx.Err() == nil {
			e.log.Warn("the store's copy in memory is made anew", "error", err)
			_ = pause(ctx, 100*time.Millisecond)
		}
	}
}

func (m *mirror) followOnce(ctx context.Context, e *etcd, newest func() int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	revision, err := m.load(ctx, e)
	if err != nil {
		return err
	}
	// All of our keys, mirrored or not: every revision has an event here.
	for change := range e.client.Watch(ctx, strings.TrimSuffix(root, "/"), clientv3.WithPrefix(), clientv3.WithRev(revision+1)) {
		if err := change.Err(); err != nil {
			return err
		}
		// etcd tells watchers a moment before its own readers can see the
		// change, and what is not mirrored is read from those.
		for newest() < change.Header.Revision && ctx.Err() == nil {
			runtime.Gosched()
		}
		m.apply(change)
	}
	return errors.New("the watch ended")
}

// load copies all there is, as of one revision.
func (m *mirror) load(ctx context.Context, e *etcd) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clear()
	m.has = 0
	for _, kind := range mirrored {
		opts := []clientv3.OpOption{clientv3.WithPrefix()}
		if m.has != 0 {
			opts = append(opts, clientv3.WithRev(m.has))
		}
		res, err := e.client.Get(ctx, key(kind, ""), opts...)
		if err != nil {
			return 0, fmt.Errorf("copy %s: %w", kind, err)
		}
		if m.has == 0 {
			m.has = res.Header.Revision
		}
		for _, kv := range res.Kvs {
			m.shelves[kind].put(recordOf(kv))
		}
	}
	m.whole = true
	m.changed()
	return m.has, nil
}

func (m *mirror) apply(change clientv3.WatchResponse) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, event := range change.Events {
		kind, _ := kindOf(string(event.Kv.Key))
		on := m.shelves[kind]
		switch {
		case on == nil:
		case event.Type == mvccpb.Event_DELETE:
			on.remove(string(event.Kv.Key))
		default:
			on.put(recordOf(event.Kv))
		}
		m.has = max(m.has, event.Kv.ModRevision)
	}
	maps.DeleteFunc(m.awaited, func(_ string, revision int64) bool { return revision <= m.has })
	m.changed()
}

func recordOf(kv *mvccpb.KeyValue) record {
	return record{key: string(kv.Key), value: kv.Value, revision: kv.ModRevision, decoded: new(atomic.Value)}
}
