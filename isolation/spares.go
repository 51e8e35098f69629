package isolation

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"manifold"
)

// spares keeps up to limit boxes ready, so that a start waits for none of what
// a box takes to make. They are for dynos of the size that was asked for last,
// and made when no start was asked for for a while: many starts at once, which
// make their boxes themselves, shall not share the CPU with boxes for later.
type spares struct {
	host  *Host
	limit int
	asked chan manifold.Size // the size of a start; holds one
	stop  context.CancelFunc
	ended sync.WaitGroup

	filling sync.Mutex // held while boxes are made or dropped for later

	mu    sync.Mutex
	ready []*spare
}

// sparePause is how long no start must have been asked for.
const sparePause = 50 * time.Millisecond

func newSpares(h *Host, limit int) *spares {
	p := &spares{host: h, limit: limit, asked: make(chan manifold.Size, 1), stop: func() {}}
	if limit > 0 {
		ctx, stop := context.WithCancel(context.Background())
		p.stop = stop
		p.ended.Go(func() { p.keep(ctx) })
	}
	return p
}

// take returns a ready box of that size, or makes one: with that address, if
// one is asked for and nobody has it.
func (p *spares) take(ctx context.Context, size manifold.Size, addr netip.Addr) (*spare, error) {
	defer p.ask(size)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if n, ok := p.host.takeAt(addr); ok {
		return p.host.makeSpareIn(ctx, n, size)
	}
	if s := p.pop(func(s *spare) bool { return alike(s.box.record.Size, size) && s.alive() }); s != nil {
		return s, nil
	}
	s, err := p.host.makeSpare(ctx, size)
	if errors.Is(err, ErrNoSlot) {
		return p.takeSlot(ctx, size)
	}
	return s, err
}

// takeSlot makes a box where no slot is free: in that of one that is ready and
// does not fit.
func (p *spares) takeSlot(ctx context.Context, size manifold.Size) (*spare, error) {
	p.filling.Lock() // what keep is about to make or drop has a slot as well
	defer p.filling.Unlock()
	if other := p.pop(func(*spare) bool { return true }); other != nil {
		if err := other.remove(); err != nil {
			return nil, err
		}
	}
	return p.host.makeSpare(ctx, size)
}

// ask has boxes of that size made, soon. Of several sizes one is enough.
func (p *spares) ask(size manifold.Size) {
	select {
	case p.asked <- size:
	default:
	}
}

func (p *spares) pop(fits func(*spare) bool) *spare {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.ready, fits)
	if i < 0 {
		return nil
	}
	s := p.ready[i]
	p.ready = slices.Delete(p.ready, i, i+1)
	return s
}

// keep makes and drops boxes until ctx ends, and then drops all.
func (p *spares) keep(ctx context.Context) {
	var size manifold.Size
	pause := time.NewTimer(time.Hour)
	pause.Stop()
	for {
		select {
		case size = <-p.asked:
			pause.Reset(sparePause)
		case <-pause.C:
			p.fill(ctx, size)
		case <-ctx.Done():
			p.drop(func(*spare) bool { return true })
			return
		}
	}
}

// fill makes what is missing. A start that is asked for meanwhile goes first:
// it asks for more when it is done.
func (p *spares) fill(ctx context.Context, size manifold.Size) {
	p.filling.Lock()
	p.drop(func(s *spare) bool { return !alike(s.box.record.Size, size) || !s.alive() })
	p.filling.Unlock()
	for len(p.asked) == 0 {
		more, err := p.add(ctx, size)
		if err != nil {
			// The next start meets the same, and has somebody to tell.
			p.host.cfg.Log.Debug("no box could be made in advance", "error", err)
		}
		if !more {
			return
		}
	}
}

// add makes one box unless there are enough.
func (p *spares) add(ctx context.Context, size manifold.Size) (more bool, err error) {
	p.filling.Lock()
	defer p.filling.Unlock()
	p.mu.Lock()
	full := len(p.ready) >= p.limit
	p.mu.Unlock()
	if full {
		return false, nil
	}
	s, err := p.host.makeSpare(ctx, size)
	if err != nil {
		return false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = append(p.ready, s)
	return true, nil
}

func (p *spares) drop(unfit func(*spare) bool) {
	for s := p.pop(unfit); s != nil; s = p.pop(unfit) {
		if err := s.remove(); err != nil {
			p.host.cfg.Log.Warn("a spare box could not be removed; the next agent will", "error", err)
		}
	}
}

// close removes all boxes that are ready. None is made afterwards but by take.
func (p *spares) close() {
	p.stop()
	p.ended.Wait()
}

// alike is true of sizes that differ in name only.
func alike(a, b manifold.Size) bool {
	a.Name = b.Name
	return a == b
}

// alive is false of a box whose PID 1 somebody killed.
func (s *spare) alive() bool {
	select {
	case <-s.box.done:
		return false
	default:
		return true
	}
}

func (s *spare) remove() error {
	s.close()
	return s.box.Remove()
}
