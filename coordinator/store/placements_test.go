package store

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"manifold"
)

func TestPlacements(t *testing.T) {
	s := open(t, t.TempDir())
	p := Placement{Host: "h1", Assignment: manifold.Assignment{
		ID: "a1", App: "app", Dyno: "web.1", Kind: manifold.KindFormation, Release: 3,
		Layers: []manifold.Image{{Digest: "sha256:00", Bytes: 5}}, Command: "serve",
		Env: map[string]string{"A": "1"}, Grace: 30 * time.Second, CreatedAt: s.stamp(),
	}}
	if err := s.PutPlacement(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	want := p
	want.Phase, want.Replace = Retiring, true
	err := s.UpdatePlacement(t.Context(), "a1", func(p *Placement) error {
		p.Phase, p.Replace = Retiring, true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := must(s.Placements(t.Context()))(t); len(got) != 1 || !reflect.DeepEqual(got[0], want) {
		t.Errorf("placements:\n%+v, want\n%+v", got, want)
	}
	for range 2 {
		if err := s.DeletePlacement(t.Context(), "a1"); err != nil {
			t.Error(err)
		}
	}
	wantErr(t, "update of a placement that is gone",
		s.UpdatePlacement(t.Context(), "a1", func(*Placement) error { return nil }), ErrNotFound)
	if err := s.PutPlacement(t.Context(), Placement{}); err == nil {
		t.Error("a placement without id was kept")
	}
	if got := must(s.Placements(t.Context()))(t); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

// Who reads at a token must see the change it stands for: there is no other
// token for it. etcd tells watchers a moment before its own readers can see.
func TestATokenComesAfterItsChange(t *testing.T) {
	s := open(t, t.TempDir())
	changes := s.Changes(t.Context())
	<-changes // the first says that the watch began
	for i := range 300 {
		id := fmt.Sprintf("p%03d", i)
		wrote := make(chan error, 1)
		go func() {
			wrote <- s.PutPlacement(t.Context(), Placement{Assignment: manifold.Assignment{ID: id}})
		}()
		<-changes
		all, err := s.Placements(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != i+1 {
			t.Fatalf("at the token of write %d a reader saw %d", i+1, len(all))
		}
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
	}
}
