package webhooks

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"

	"manifold"
	"manifold/coordinator/scheduler"
	"manifold/coordinator/store"
	"manifold/test/bubble"
)

var (
	_ Dynos  = (*scheduler.Scheduler)(nil)
	_ Teller = (*store.Store)(nil)
)

// stage shows dynos, and takes down what is told of them.
type stage struct {
	dynos   []scheduler.Dyno
	changed chan struct{}
	told    []string
}

func (s *stage) All() ([]scheduler.Dyno, <-chan struct{}) { return s.dynos, s.changed }

func (s *stage) DynoEvent(_ context.Context, app string, was, now *manifold.WebhookDyno) error {
	state := func(d *manifold.WebhookDyno) string {
		if d == nil {
			return "-"
		}
		return d.Name + " " + string(d.State)
	}
	s.told = append(s.told, fmt.Sprintf("%s: %s, %s", app, state(was), state(now)))
	return nil
}

// scene is what is there from now on. It returns what was told of it, sorted.
func (s *stage) scene(dynos ...scheduler.Dyno) []string {
	s.told, s.dynos = nil, append([]scheduler.Dyno{}, dynos...)
	old := s.changed
	s.changed = make(chan struct{})
	close(old)
	synctest.Wait()
	slices.Sort(s.told)
	return s.told
}

// A dyno that comes, changes its state or goes is told of; what was there
// already when the coordinator started, and what the API shows alike, is not.
func TestFollow(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		dyno := func(id string, state manifold.State) scheduler.Dyno {
			return scheduler.Dyno{Dyno: manifold.Dyno{Assignment: id, App: "a", Name: "web." + id, State: state}}
		}
		s := &stage{changed: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- Follow(ctx, s, s, slog.New(slog.DiscardHandler)) }()
		synctest.Wait()
		for _, step := range []struct {
			dynos []scheduler.Dyno
			want  []string
		}{
			{[]scheduler.Dyno{dyno("1", manifold.StateUp)}, nil},
			{[]scheduler.Dyno{dyno("1", manifold.StateUp), dyno("2", "")}, []string{"a: -, web.2 starting"}},
			{[]scheduler.Dyno{dyno("1", manifold.StateStopping), dyno("2", manifold.StateStarting)}, nil},
			{[]scheduler.Dyno{dyno("2", manifold.StateUp)}, []string{"a: web.1 up, -", "a: web.2 starting, web.2 up"}},
			{nil, []string{"a: web.2 up, -"}},
		} {
			if got := s.scene(step.dynos...); !slices.Equal(got, step.want) {
				t.Errorf("told %q, want %q", got, step.want)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
