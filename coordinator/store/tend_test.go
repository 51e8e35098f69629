package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"manifold"
)

func TestWhenToDefragment(t *testing.T) {
	b := bounds{quota: 1000, free: 50, quiet: time.Minute}
	for _, c := range []struct {
		size, used int64
		quiet      time.Duration
		want       bool
	}{
		{100, 90, time.Hour, false},    // little is free
		{300, 200, time.Hour, false},   // much, but not half
		{300, 100, time.Second, false}, // someone writes
		{300, 100, time.Hour, true},
		{900, 100, time.Second, true}, // it cannot wait
	} {
		if got := b.due(c.size, c.used, c.quiet); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// A store that is full says so and lets apps be deleted; then it takes changes
// again by itself.
func TestFullStoreRecovers(t *testing.T) {
	dir := t.TempDir()
	s, err := openWith(t.Context(), dir, bounds{quota: 4 << 20, free: 1 << 19, quiet: time.Hour, every: 20 * time.Millisecond}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	big := newApp(t, s, "big")
	fill := func() error {
		_, err := s.AddRelease(t.Context(), big.ID, ada, func(r *manifold.Release) error {
			r.Slug = ""
			for i := range 15 {
				r.Config[fmt.Sprint("VAR_", i)] = strings.Repeat(fmt.Sprint(time.Now().UnixNano()), 200)
			}
			return nil
		})
		return err
	}
	for range 200 {
		if err = fill(); err != nil {
			break
		}
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) || !strings.Contains(err.Error(), "delete apps") {
		t.Fatalf("filled up with error %v", err)
	}
	if err := s.DeleteApp(By(t.Context(), &Author{ID: ada.ID, Email: ada.Email}), big.ID); err != nil {
		t.Fatalf("delete an app of a full store: %v", err)
	}
	// etcd compacts by itself some minutes later.
	e := s.engine.(*etcd)
	now := must(e.client.Get(t.Context(), root))(t).Header.Revision
	must(e.client.Compact(t.Context(), now))(t)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		_, err := s.CreateApp(t.Context(), manifold.App{Name: "next", Stack: "cedar"}, ada)
		if err == nil {
			return
		}
		if !errors.Is(err, rpctypes.ErrNoSpace) || time.Now().After(deadline) {
			t.Fatalf("after the deletion: %v", err)
		}
	}
}
