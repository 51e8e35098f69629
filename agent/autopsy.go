package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/agent/door"
	"manifold/isolation"
	"manifold/supervisor"
)

// What is kept of dynos that an operator asked to keep. It is bounded in
// number, bytes and age; the oldest go first.
//
//	<dir>/<run>/autopsy.json   who it was and how it ended
//	<dir>/<run>/scratch.img    what it wrote to its filesystem
//	<dir>/<run>/exit.json      PID 1's record of its end
//	<dir>/<run>/log/, heroku/  its log segments
//	<dir>/<run>.new/           being filled
const (
	maxAutopsies   = 10
	autopsyBytes   = 4 << 30
	autopsyAge     = 7 * 24 * time.Hour
	autopsyName    = "autopsy.json"
	autopsyScratch = "scratch.img"
)

// allocated is what a directory's files take on disk, in bytes: the writable
// layer is sparse.
func allocated(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // being removed; what cannot be seen is not counted
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			if s, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += s.Blocks * 512
			}
		}
		return nil
	})
	return sum
}

// morgue keeps autopsies.
type morgue struct {
	dir string
	log *slog.Logger
}

// keep has what is left of the dyno's present run, or of its next where none
// is under way, stay when it ends.
func (d *driver) keep(on bool) error {
	done := make(chan error, 1)
	order := func() {
		d.rec.Keep = on
		done <- d.a.shelf.put(d.rec)
	}
	select {
	case d.mail <- message{do: order}:
	case <-time.After(time.Second):
		return cannot(d, "has too much to do: try again")
	}
	select {
	case err := <-done:
		return err
	case <-d.done:
		return cannot(d, "is gone")
	case <-d.a.ctx.Done():
		return d.a.ctx.Err()
	}
}

// autopsy keeps what is left of a run that has ended, if that was asked for.
// It is carried out before the box is removed, and may have been before.
func (d *driver) autopsy() {
	if !d.rec.Keep || d.box == nil {
		return
	}
	select {
	case <-d.box.Done():
	default:
		return
	}
	as, dyno := d.assignment, d.rec.Dyno
	a := door.Autopsy{
		Run: dyno.Run, Assignment: as.ID, App: as.App, AppName: as.AppName, Dyno: as.Dyno, Kind: as.Kind, Release: as.Release,
		Command: as.Command, Size: as.Size.Name, State: dyno.State, Result: dyno.Result, UpAt: dyno.UpAt, Crashes: dyno.Crashes,
		KeptAt: time.Now().Round(0),
	}
	for name := range as.Env {
		a.Config = append(a.Config, name)
	}
	slices.Sort(a.Config)
	heroku := ""
	if d.runLog != nil {
		heroku = filepath.Join(d.runLog.dir, manifold.SourceHeroku)
	}
	if err := d.a.morgue.take(a, d.box, heroku); err != nil {
		d.log.Error("what is left of a dyno could not be kept", "run", dyno.Run, "error", err)
		return
	}
	d.log.Info("kept for an autopsy", "run", dyno.Run)
	d.rec.Keep = false
	if dyno.State != supervisor.Gone { // else its record is about to go
		if err := d.a.shelf.put(d.rec); err != nil {
			d.log.Error("a dyno's record could not be written", "error", err)
		}
	}
}

func (m morgue) take(a door.Autopsy, b box, heroku string) error {
	place := filepath.Join(m.dir, a.Run)
	if _, err := os.Stat(place); err == nil {
		return nil // taken before
	}
	temp := place + ".new"
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return err
	}
	err := b.Keep(temp)
	if heroku != "" {
		err = errors.Join(err, isolation.LinkFiles(heroku, filepath.Join(temp, manifold.SourceHeroku)))
	}
	text, err2 := json.Marshal(a)
	if err = errors.Join(err, err2); err == nil {
		err = writeFile(filepath.Join(temp, autopsyName), text)
	}
	if err == nil {
		err = os.Rename(temp, place)
	}
	m.prune(time.Now())
	return err
}

// list returns what is kept, the newest first.
func (m morgue) list() ([]door.Autopsy, error) {
	entries, err := os.ReadDir(m.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list autopsies: %w", err)
	}
	list := []door.Autopsy{}
	for _, e := range entries {
		if uuid.Validate(e.Name()) != nil {
			continue
		}
		dir := filepath.Join(m.dir, e.Name())
		a := door.Autopsy{Run: e.Name()}
		text, err := os.ReadFile(filepath.Join(dir, autopsyName))
		if err == nil {
			err = json.Unmarshal(text, &a)
		}
		if err != nil {
			m.log.Warn("an autopsy's record cannot be read", "run", e.Name(), "error", err)
		}
		a.Run, a.Dir, a.Bytes = e.Name(), dir, allocated(dir)
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b door.Autopsy) int { return b.KeptAt.Compare(a.KeptAt) })
	return list, nil
}

// remove drops one; fs.ErrNotExist if it is not there.
func (m morgue) remove(run string) error {
	if uuid.Validate(run) != nil {
		return fs.ErrNotExist
	}
	dir := filepath.Join(m.dir, run)
	if _, err := os.Lstat(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// sweep removes what an agent that died began to fill, and its next one did
// not find again.
func (m morgue) sweep(now time.Time) {
	begun, _ := filepath.Glob(filepath.Join(m.dir, "*.new"))
	for _, dir := range begun {
		info, err := os.Lstat(dir)
		if err != nil || now.Sub(info.ModTime()) < time.Hour || uuid.Validate(strings.TrimSuffix(filepath.Base(dir), ".new")) != nil {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			m.log.Error("half an autopsy could not be removed", "dir", dir, "error", err)
		}
	}
}

// prune keeps the bounds.
func (m morgue) prune(now time.Time) {
	m.sweep(now)
	list, err := m.list()
	if err != nil {
		m.log.Error("autopsies could not be counted", "error", err)
		return
	}
	var bytes int64
	for i, a := range list {
		bytes += a.Bytes
		switch {
		case i >= maxAutopsies || now.Sub(a.KeptAt) > autopsyAge || i > 0 && bytes > autopsyBytes:
			err = m.remove(a.Run)
		case bytes > autopsyBytes: // the newest alone: all but its files stays
			err = os.Remove(filepath.Join(a.Dir, autopsyScratch))
		default:
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.log.Error("an autopsy could not be removed", "run", a.Run, "error", err)
			continue
		}
		m.log.Info("an autopsy was removed: it was too old, or there were too many", "run", a.Run)
	}
}
