package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
)

// Bounds of the embedded member, for a state that is small and written by few.
const (
	keepRevisions  = "1000"      // history kept for watches; older is compacted every five minutes
	snapshotEvery  = 2000        // log entries
	catchUpEntries = 100         // kept in memory for followers, of which there are none
	keepLogFiles   = 2           // of 64 MB, beside those still needed
	defragAtMB     = 128         // reclaimed at start when so much of the file is free
	maxOps         = 1024        // of one step: a change with MaxDeliveries deliveries has two for each
	slow           = time.Second // what takes longer is worth a warning
)

// etcd is the engine. The same code runs over the embedded member and over a
// client of a cluster: stop and reads are all that differs.
type etcd struct {
	client *clientv3.Client
	reads  []clientv3.OpOption
	stop   func()
	log    *slog.Logger
	mirror *mirror

	ctx     context.Context // ends when the engine closes
	cancel  context.CancelFunc
	workers sync.WaitGroup
	written atomic.Int64 // when the last commit was made, Unix nanoseconds
}

// embedded starts a cluster of one in this process, with its data in dir. It
// listens nowhere: its only client calls it as functions.
func embedded(ctx context.Context, dir string, b bounds, log *slog.Logger) (*etcd, error) {
	cfg := embed.NewConfig()
	cfg.Name = "coordinator"
	cfg.Dir = dir
	cfg.ListenPeerUrls, cfg.ListenClientUrls, cfg.AdvertiseClientUrls = nil, nil, nil
	// A member must have a peer address to be named by, even where none dials it.
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "localhost:2380"}}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapTo(log))

	cfg.QuotaBackendBytes = b.quota
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModeRevision, keepRevisions
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = snapshotEvery, catchUpEntries
	cfg.MaxWalFiles = keepLogFiles
	cfg.MaxTxnOps = maxOps
	cfg.WarningApplyDuration, cfg.WarningUnaryRequestDuration = slow, slow
	cfg.BootstrapDefragThresholdMegabytes = defragAtMB
	// With no other member an election is a formality; short ticks start sooner.
	cfg.TickMs, cfg.ElectionMs = 20, 200

	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", dir, err)
	}
	select {
	case <-server.Server.ReadyNotify():
	case <-server.Server.StopNotify():
		server.Close()
		return nil, fmt.Errorf("start etcd in %s: it stopped at once; its log says why", dir)
	case <-ctx.Done():
		server.Close()
		return nil, fmt.Errorf("start etcd in %s: %w", dir, ctx.Err())
	}
	e := &etcd{client: v3client.New(server.Server), stop: server.Close, log: log, mirror: newMirror()}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	// One read by way of the raft log proves that all of it has been applied.
	// From then on the only member answers for itself: what it acknowledged it
	// has applied, so that its own copy is never stale. A cluster's would be.
	if _, err := e.get(ctx, root); err != nil {
		return nil, errors.Join(fmt.Errorf("read etcd in %s: %w", dir, err), e.close())
	}
	e.reads = []clientv3.OpOption{clientv3.WithSerializable()}
	e.workers.Go(func() { e.mirror.follow(e.ctx, e, server.Server.KV().Rev) })
	e.workers.Go(func() { e.tend(e.ctx, server.Server, b) })
	return e, nil
}

func (e *etcd) get(ctx context.Context, key string) (record, error) {
	if r, ok := e.mirror.get(ctx, key); ok {
		return r, nil
	}
	res, err := e.client.Get(ctx, key, e.reads...)
	if err != nil {
		return record{}, explain(err)
	}
	if len(res.Kvs) == 0 {
		return record{key: key}, nil
	}
	return record{key: key, value: res.Kvs[0].Value, revision: res.Kvs[0].ModRevision}, nil
}

func (e *etcd) list(ctx context.Context, prefix string) ([]record, error) {
	if records, ok := e.mirror.list(ctx, prefix); ok {
		return records, nil
	}
	res, err := e.client.Get(ctx, prefix, append([]clientv3.OpOption{clientv3.WithPrefix()}, e.reads...)...)
	if err != nil {
		return nil, explain(err)
	}
	records := make([]record, len(res.Kvs))
	for i, kv := range res.Kvs {
		records[i] = record{key: string(kv.Key), value: kv.Value, revision: kv.ModRevision}
	}
	return records, nil
}

func (e *etcd) commit(ctx context.Context, seen map[string]int64, writes []write) (bool, error) {
	conditions := make([]clientv3.Cmp, 0, len(seen))
	for key, revision := range seen {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(key), "=", revision))
	}
	ops := make([]clientv3.Op, len(writes))
	for i, w := range writes {
		switch {
		case w.under:
			ops[i] = clientv3.OpDelete(w.key, clientv3.WithPrefix())
		case w.value == nil:
			ops[i] = clientv3.OpDelete(w.key)
		default:
			ops[i] = clientv3.OpPut(w.key, string(w.value))
		}
	}
	e.written.Store(time.Now().UnixNano())
	res, err := e.client.Txn(ctx).If(conditions...).Then(ops...).Commit()
	if err != nil {
		return false, explain(err)
	}
	// Of what was overtaken, others may have written what we read.
	e.mirror.await(res.Header.Revision, maps.Keys(seen))
	e.mirror.await(res.Header.Revision, func(yield func(string) bool) {
		for _, w := range writes {
			if !yield(w.key) {
				return
			}
		}
	})
	return res.Succeeded, nil
}

func (e *etcd) watch(ctx context.Context, prefix string) <-chan struct{} {
	notices := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(ctx)
	forget := context.AfterFunc(e.ctx, cancel)
	e.workers.Go(func() {
		defer forget() // else e.ctx keeps ctx, and all that it is made of, for good
		defer cancel()
		defer close(notices)
		for ctx.Err() == nil {
			// A watch that breaks (its revision was compacted, its member was
			// lost) may have missed a change: the next one starts with a token.
			if err := e.watchOnce(ctx, prefix, notices); err != nil {
				e.log.Warn("watch of the store broke; starting another", "error", err)
			}
			_ = pause(ctx, 100*time.Millisecond)
		}
	})
	return notices
}

func (e *etcd) watchOnce(ctx context.Context, prefix string, notices chan<- struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := e.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	for change := range changes {
		if err := change.Err(); err != nil {
			return err
		}
		// etcd tells watchers a moment before its own readers can see the
		// change, and our copy has it. A read by way of the raft log waits too.
		if !e.mirror.read(ctx, "", change.Header.Revision, func(map[string]*shelf) {}) {
			if _, err := e.client.Get(ctx, prefix); err != nil {
				return err
			}
		}
		select {
		case notices <- struct{}{}:
		default: // one is waiting already
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return errors.New("it ended")
}

func (e *etcd) close() error {
	e.cancel()
	e.workers.Wait()
	err := e.client.Close()
	if errors.Is(err, context.Canceled) {
		err = nil // how the in-process client says that it is closed
	}
	e.stop()
	return err
}

// explain adds what to do to the errors a person can do something about.
func explain(err error) error {
	if errors.Is(err, rpctypes.ErrNoSpace) {
		return fmt.Errorf("the store is full: delete apps that are not needed; in some minutes it makes room of them and takes changes again: %w", err)
	}
	return err
}
