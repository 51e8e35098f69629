package store

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"manifold"
)

// A change and the entry that tells of it have one revision.
func TestEntryComesWithItsChange(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "audited")
	ctx := By(t.Context(), &Author{ID: ada.ID, Email: ada.Email})
	r := must(s.AddRelease(ctx, app.ID, ada, func(r *manifold.Release) error {
		r.Description = strings.Repeat("ä", maxAction)
		return nil
	}))(t)
	change := must(s.engine.get(ctx, versionKey("releases", app.ID, r.Version)))(t)
	entry := must(s.engine.get(ctx, auditTrail(app.ID)+"001"))(t)
	if change.revision == 0 || change.revision != entry.revision {
		t.Errorf("the release is of revision %d, its entry of %d", change.revision, entry.revision)
	}
	if e := must(s.Audit(ctx, app.ID))(t)[0]; !strings.HasPrefix(e.Action, "ää") || len(e.Action) > maxAction+len("…") {
		t.Errorf("the action has %d bytes", len(e.Action))
	}
}

// A crowd on one app writes once each: nobody is overtaken.
func TestTurns(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "busy")
	const crowd = 20
	var tries, group = make(chan struct{}, 10*crowd), sync.WaitGroup{}
	for range crowd {
		group.Go(func() {
			_, err := s.AddRelease(t.Context(), app.ID, ada, func(*manifold.Release) error { tries <- struct{}{}; return nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if len(tries) != crowd || len(s.turns.held) != 0 {
		t.Errorf("%d changes took %d tries; %d turns are left", crowd, len(tries), len(s.turns.held))
	}
	done, err := s.turns.take(t.Context(), app.ID)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := s.UpdateApp(ctx, app.ID, func(*manifold.App) error { return nil }); err == nil {
		t.Error("did not wait for its turn")
	}
	if done(); len(s.turns.held) != 0 {
		t.Error("a turn is left")
	}
}
