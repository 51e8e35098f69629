// Package outputs keeps what builds and release commands print, and gives it
// to whoever has its URL: from the beginning, and on until it ends. A file
// each, so that neither their length nor slow readers cost memory, and so that
// it can be read again later.
//
// This room must never let a reader slow a writer, and never tell what it
// keeps to one who does not know its secret name.
package outputs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
)

// maxBytes bounds one output.
const maxBytes = 8 << 20

const cut = "\n !     This output is too long: what comes from here on is not kept.\n"

// Room keeps outputs. It is safe for use by several goroutines.
type Room struct {
	dir *os.Root

	mu   sync.Mutex         // held while a file is opened, too: who finds it finds its Output
	open map[string]*Output // those that are being written
}

// Open opens the room in dir, which it makes if need be; it is ours alone.
func Open(dir string) (*Room, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the outputs: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the outputs: %w", err)
	}
	return &Room{dir: root, open: map[string]*Output{}}, nil
}

// Close releases the directory. No output may be written any more.
func (r *Room) Close() error { return r.dir.Close() }

// valid accepts what crypto/rand.Text makes.
func valid(name string) bool {
	return len(name) >= 26 && len(name) <= 64 && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// nameless leaves the name out of an error: who knows it may read the output,
// and errors are logged.
func nameless(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Output is one that is being written. It is safe for use by several
// goroutines. A disk that is full shortens it and fails nobody.
type Output struct {
	room *Room
	name string

	mu      sync.Mutex
	file    *os.File
	size    int64
	changed chan struct{} // closed and renewed with each write, closed for good at the end
	ended   bool
}

// Create begins the output of a secret name (crypto/rand.Text), in place of
// what was there under it. The caller closes it.
func (r *Room) Create(name string) (*Output, error) {
	if !valid(name) {
		return nil, fmt.Errorf("create an output: its name is not one of ours")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := r.dir.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create an output: %w", nameless(err))
	}
	o := &Output{room: r, name: name, file: f, changed: make(chan struct{})}
	r.open[name] = o
	return o, nil
}

// Write never fails, so that a build does not for want of a place for what it
// says.
func (o *Output) Write(text []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended || o.size > maxBytes {
		return len(text), nil
	}
	kept := text
	if room := maxBytes - o.size; int64(len(text)) > room {
		kept = append(text[:room:room], cut...)
	}
	n, _ := o.file.Write(kept)
	o.size += int64(n)
	close(o.changed)
	o.changed = make(chan struct{})
	return len(text), nil
}

// Close ends the output: readers get what is there, and then its end.
func (o *Output) Close() error {
	o.room.mu.Lock()
	if o.room.open[o.name] == o {
		delete(o.room.open, o.name)
	}
	o.room.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return nil
	}
	o.ended = true
	close(o.changed)
	return o.file.Close()
}

// state is how much there is, whether that is all, and a channel that is
// closed when either changes.
func (o *Output) state() (size int64, ended bool, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.size, o.ended, o.changed
}

// Copy writes an output to w from its beginning, and on until it ends.
// fs.ErrNotExist: there is none of that name.
func (r *Room) Copy(ctx context.Context, name string, w io.Writer) error {
	if !valid(name) {
		return fmt.Errorf("read an output: %w", fs.ErrNotExist)
	}
	r.mu.Lock()
	o := r.open[name]
	f, err := r.dir.Open(name)
	r.mu.Unlock()
	if err != nil {
		return fmt.Errorf("read an output: %w", nameless(err))
	}
	defer f.Close()
	if o == nil {
		_, err := io.Copy(w, f)
		return err
	}
	for at := int64(0); ; {
		size, ended, changed := o.state()
		if size > at {
			n, err := io.Copy(w, io.NewSectionReader(f, at, size-at))
			if at += n; err != nil {
				return err
			}
			continue
		}
		if ended {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Remove forgets outputs; one that is not there is no error.
func (r *Room) Remove(names ...string) error {
	var failed error
	for _, name := range names {
		if !valid(name) {
			continue
		}
		if err := r.dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, fmt.Errorf("remove an output: %w", nameless(err)))
		}
	}
	return failed
}

// Collect removes the outputs that used does not name. No output may be
// created meanwhile.
func (r *Room) Collect(used func(name string) bool) error {
	entries, err := fs.ReadDir(r.dir.FS(), ".")
	if err != nil {
		return fmt.Errorf("list outputs: %w", err)
	}
	var failed error
	for _, e := range entries {
		if !used(e.Name()) {
			failed = errors.Join(failed, r.Remove(e.Name()))
		}
	}
	return failed
}
