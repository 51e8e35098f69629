package logs

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// ErrForgotten is returned to readers of an app that was deleted.
var ErrForgotten = errors.New("the app was deleted")

// validApp accepts what can be a directory's name: app ids are UUIDs.
func validApp(id string) bool {
	return id != "" && len(id) <= 64 && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	})
}

// with runs do on the app's loaded buffer. For an app that was forgotten it
// does nothing, without an error: whoever sends its last lines shall be done.
func (h *Hub) with(app string, do func(*buffer) error) error {
	b, err := h.pin(app)
	if err == nil {
		defer h.unpin(b)
		b.mu.Lock()
		defer b.mu.Unlock()
		if err = b.gone; err == nil {
			err = b.load()
		}
	}
	if errors.Is(err, ErrForgotten) {
		return nil
	}
	if err != nil {
		return err
	}
	return do(b)
}

// pin finds the app's buffer and keeps it in memory until unpin.
func (h *Hub) pin(app string) (*buffer, error) {
	if !validApp(app) {
		return nil, fmt.Errorf("app id %.64q is malformed", app)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	if _, ok := h.forgotten[app]; ok {
		return nil, ErrForgotten
	}
	e := h.buffers[app]
	if e == nil {
		e = h.used.PushFront(&buffer{root: h.root, app: app, keep: h.keep, tails: map[*Tail]struct{}{}})
		h.buffers[app] = e
	} else {
		h.used.MoveToFront(e)
	}
	b := e.Value.(*buffer)
	b.pins++
	return b, nil
}

// unpin lets b go and unloads what was not used for longest if too many are
// held.
func (h *Hub) unpin(b *buffer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b.pins--
	for e := h.used.Back(); e != nil && len(h.buffers) > maxLoaded; {
		old, newer := e.Value.(*buffer), e.Prev()
		if old.pins == 0 {
			h.remove(e)
			old.mu.Lock() // nobody holds it for long: it is not pinned
			old.unload()
			old.mu.Unlock()
		}
		e = newer
	}
}

func (h *Hub) remove(e *list.Element) {
	h.used.Remove(e)
	delete(h.buffers, e.Value.(*buffer).app)
}

// Forget removes all that is kept of an app and ends its tails and sessions.
// Lines that still arrive for it are dropped.
func (h *Hub) Forget(app string) error {
	if !validApp(app) {
		return nil
	}
	h.sessions.forget(app)
	h.mu.Lock()
	h.forgotten[app] = time.Now()
	e := h.buffers[app]
	if e != nil {
		h.remove(e)
	}
	h.mu.Unlock()
	if e != nil {
		e.Value.(*buffer).end(ErrForgotten)
	}
	if err := h.root.RemoveAll(app); err != nil {
		return fmt.Errorf("forget log lines of app %s: %w", app, err)
	}
	return nil
}

// Close ends every tail and session and releases the files.
func (h *Hub) Close() error {
	h.stop()
	<-h.done
	h.mu.Lock()
	h.closed = true
	var buffers []*buffer
	for _, e := range h.buffers {
		buffers = append(buffers, e.Value.(*buffer))
	}
	h.mu.Unlock()
	for _, b := range buffers {
		b.end(ErrClosed)
	}
	return h.root.Close()
}

// sweepEvery is how often what is too old is looked for.
const sweepEvery = time.Hour

// sweep removes what nobody may read any more: lines past their time of apps
// that write no new ones, and sessions that were never used.
func (h *Hub) sweep(ctx context.Context) {
	defer close(h.done)
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		h.sweepOnce(time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (h *Hub) sweepOnce(now time.Time) {
	h.sessions.mu.Lock()
	h.sessions.expire(now)
	h.sessions.mu.Unlock()
	h.mu.Lock()
	for app, at := range h.forgotten {
		if now.Sub(at) > h.keep.Time {
			delete(h.forgotten, app)
		}
	}
	h.mu.Unlock()
	dirs, err := fs.ReadDir(h.root.FS(), ".")
	if err != nil {
		return // the next one will see it; readers and writers say what is wrong
	}
	for _, d := range dirs {
		if d.IsDir() && validApp(d.Name()) && h.old(d.Name(), now) {
			_ = h.with(d.Name(), func(b *buffer) error { return b.expire(now) })
		}
	}
}

// old says whether an app has a segment that may have to go, without loading
// the app.
func (h *Hub) old(app string, now time.Time) bool {
	files, _ := fs.ReadDir(h.root.FS(), app)
	for _, f := range files {
		if info, err := f.Info(); err == nil && now.Sub(info.ModTime()) > h.keep.Time {
			return true
		}
	}
	return false
}
