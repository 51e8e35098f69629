package store

import (
	"context"
	"sync"
)

// turns lets those who change the same thing in this process go one after the
// other. Without it the store stays right, since every commit checks what it
// has read; but all but one of a crowd would have written to the disk in vain,
// again and again.
type turns struct {
	mu   sync.Mutex
	held map[string]*turn // of things that somebody has or waits for
}

type turn struct {
	free  chan struct{} // holds a token while nobody has the turn
	users int           // who have it or wait
}

// take waits for the turn of a thing and returns what gives it back.
func (t *turns) take(ctx context.Context, thing string) (done func(), err error) {
	t.mu.Lock()
	one := t.held[thing]
	if one == nil {
		one = &turn{free: make(chan struct{}, 1)}
		one.free <- struct{}{}
		if t.held == nil {
			t.held = map[string]*turn{}
		}
		t.held[thing] = one
	}
	one.users++
	t.mu.Unlock()
	select {
	case <-one.free:
		return func() { one.free <- struct{}{}; t.leave(thing) }, nil
	case <-ctx.Done():
		t.leave(thing)
		return nil, ctx.Err()
	}
}

func (t *turns) leave(thing string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one := t.held[thing]; one.users == 1 {
		delete(t.held, thing)
	} else {
		one.users--
	}
}
