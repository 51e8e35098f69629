package drain

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"manifold/coordinator/logs"
)

// A drain's place is a file named by its id: the next line's number, and when
// the line before was written, in microseconds. It is not flushed to disk: a
// host that dies may send some lines again.

// load reads the drain's place. A drain without one, or with one that cannot be
// read, is new: it begins at the end, which is noted at once.
func (d *drain) load() error {
	failed := d.read()
	if failed == nil {
		return nil
	}
	if errors.Is(failed, fs.ErrNotExist) {
		failed = nil
	}
	d.place = logs.End()
	tail, err := d.room.cfg.Logs.Drain(d.App, d.place)
	if err != nil {
		return failed // run learns why
	}
	d.place = tail.Place()
	tail.Close()
	d.save()
	return failed
}

func (d *drain) read() error {
	text, err := fs.ReadFile(d.room.root.FS(), d.ID)
	if err != nil {
		return err
	}
	var next uint64
	var micros int64
	if _, err := fmt.Sscanf(string(text), "%d %d", &next, &micros); err != nil {
		return fmt.Errorf("read the place: %w", err)
	}
	d.place = logs.Place{Next: next, Since: time.UnixMicro(micros)}
	return nil
}

// save writes the place. An error costs lines that come twice, no more. As long
// as the receiver was not told what it was refused, the place stays before that.
func (d *drain) save() {
	if d.dropped > 0 {
		return
	}
	d.savedAt = time.Now()
	aside := d.ID + ".new"
	text := fmt.Appendf(nil, "%d %d\n", d.place.Next, d.place.Since.UnixMicro())
	if d.room.root.WriteFile(aside, text, 0o600) == nil && d.room.root.Rename(aside, d.ID) == nil {
		d.saved = d.place.Next
	}
}
