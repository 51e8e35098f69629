package store

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"manifold"
)

// Whoever wrote reads what they wrote, and whoever was told of a change reads
// that, with many at it; in the end the copy is what etcd has.
func TestCopyInMemoryIsNeverBehind(t *testing.T) {
	s := open(t, t.TempDir())
	e := s.engine.(*etcd)
	e.mirror.patience = patience
	for deadline := time.Now().Add(patience); !e.mirror.read(t.Context(), "", 1, func(map[string]*shelf) {}); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("there is no copy")
		}
	}
	const writers, rounds = 8, 10
	seen := make(chan struct{}, 1)
	changes := s.Changes(t.Context())
	go func() {
		for range changes {
			apps, err := s.Apps(t.Context())
			for _, app := range apps {
				if app.BuildStack == "last" {
					select {
					case seen <- struct{}{}:
					default:
					}
				}
			}
			if err != nil {
				return
			}
		}
	}()
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			app := newApp(t, s, fmt.Sprint("app-", w))
			for n := range rounds {
				stack := fmt.Sprint("stack-", n)
				must(s.UpdateApp(t.Context(), app.ID, func(a *manifold.App) error { a.BuildStack = stack; return nil }))(t)
				if now := must(s.App(t.Context(), app.Name))(t); now.BuildStack != stack {
					t.Errorf("wrote %s and read %s", stack, now.BuildStack)
				}
				must(s.AddRelease(t.Context(), app.ID, ada, setVar("N", stack)))(t)
				if r := must(s.CurrentRelease(t.Context(), app.ID))(t); r.Config["N"] != stack {
					t.Errorf("released %s and read %s", stack, r.Config["N"])
				}
			}
			if w > 0 {
				if err := s.DeleteApp(t.Context(), app.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	apps := must(s.Apps(t.Context()))(t)
	if len(apps) != 1 || apps[0].Name != "app-0" {
		t.Fatalf("%d apps are left", len(apps))
	}
	must(s.UpdateApp(t.Context(), apps[0].ID, func(a *manifold.App) error { a.BuildStack = "last"; return nil }))(t)
	select {
	case <-seen:
	case <-time.After(patience):
		t.Error("who waited for changes missed the last")
	}
	for _, kind := range mirrored {
		copied, ok := e.mirror.list(t.Context(), key(kind, ""))
		res := must(e.client.Get(t.Context(), key(kind, ""), clientv3.WithPrefix()))(t)
		if !ok || len(copied) != len(res.Kvs) {
			t.Errorf("%s: %d copies of %d records", kind, len(copied), len(res.Kvs))
			continue
		}
		for i, kv := range res.Kvs {
			if c := copied[i]; c.key != string(kv.Key) || !reflect.DeepEqual(c.value, kv.Value) || c.revision != kv.ModRevision {
				t.Errorf("%s is copied as %s %s", kv.Key, c.key, c.value)
			}
		}
	}
}

// Without a copy, and with one that does not come on, etcd is asked.
func TestWithoutTheCopyEtcdIsAsked(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "app")
	m := s.engine.(*etcd).mirror
	m.patience = time.Millisecond
	m.await(1<<40, slices.Values([]string{key("names", "app"), key("apps", app.ID)}))
	if now := must(s.App(t.Context(), "app"))(t); now.ID != app.ID {
		t.Error("found another app")
	}
	m.mu.Lock()
	m.clear()
	m.mu.Unlock()
	if all := must(s.Apps(t.Context()))(t); len(all) != 1 || !strings.HasPrefix(all[0].Name, "app") {
		t.Errorf("found %d apps", len(all))
	}
}
