package why

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	runVersion = 1
	maxRuns    = 256     // kept on a host
	maxRunFile = 1 << 20 // bytes of one: JSON may take six for one of a line's
)

// Store keeps the evidence of the host's last runs, a file each, the oldest
// thrown away: <dir>/<run>.json. It is not synced: a power cut ends more than
// one run. Safe for concurrent use.
type Store struct {
	dir string
	mu  sync.Mutex // held while something is written or thrown away
}

// NewStore keeps runs in dir, which it makes when there is one to keep.
func NewStore(dir string) *Store { return &Store{dir: dir} }

// Keep writes a run down, in place of what was known of it.
func (s *Store) Keep(r Run) error {
	if r.Run == "" || strings.ContainsAny(r.Run, "/.") {
		return fmt.Errorf("keep an ended run: %.64q is no run", r.Run)
	}
	r.Version = runVersion
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("keep ended run %s: %w", r.Run, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	path := filepath.Join(s.dir, r.Run+".json")
	if err := os.MkdirAll(s.dir, 0o700); err != nil { // root's alone: log lines may hold anything
		return fmt.Errorf("keep ended run %s: %w", r.Run, err)
	}
	if err = os.WriteFile(path+".new", text, 0o600); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		_ = os.Remove(path + ".new") // no other run would take its place
		return fmt.Errorf("keep ended run %s: %w", r.Run, err)
	}
	files, err := s.files()
	if err != nil {
		return err
	}
	for _, f := range files[min(maxRuns, len(files)):] {
		if err := os.Remove(filepath.Join(s.dir, f.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("throw an old run away: %w", err)
		}
	}
	return nil
}

type file struct {
	name string
	at   time.Time
}

// files lists them, newest first.
func (s *Store) files() ([]file, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list ended runs: %w", err)
	}
	var list []file
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && strings.HasSuffix(e.Name(), ".json") {
			list = append(list, file{e.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(list, func(a, b file) int { return cmp.Or(b.at.Compare(a.at), cmp.Compare(a.name, b.name)) })
	return list, nil
}

// Find returns up to most runs that keep says yes to, those that ended last
// first. Files that cannot be used are passed over.
func (s *Store) Find(most int, keep func(Run) bool) ([]Run, error) {
	files, err := s.files()
	if err != nil {
		return nil, err
	}
	var runs []Run
	for _, f := range files {
		if len(runs) >= most {
			break
		}
		if r, err := s.read(f.name); err == nil && keep(r) {
			runs = append(runs, r)
		}
	}
	return runs, nil
}

func (s *Store) read(name string) (r Run, err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return r, err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, maxRunFile)).Decode(&r); err != nil {
		return r, err
	}
	if r.Version != runVersion {
		return r, fmt.Errorf("it is of version %d", r.Version)
	}
	return r, nil
}
