package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/supervisor"
)

const (
	recordVersion = 1
	maxRecord     = 4 << 20 // bytes; an assignment is bounded by its config vars and its command
)

// record is what the agent knows of one assignment. It is written before the
// effects in it are carried out, so an agent that finds it does them again:
// each is the same done twice as done once.
//
// It is written without fsync. That keeps the disk's latency off the way to a
// running dyno, and costs nothing: what a record guards against is the
// agent's death, which leaves the page cache alone, and a power cut takes the
// dynos with it.
type record struct {
	Version    int                 `json:"version"`
	Boot       string              `json:"boot"` // the host's life in which Dyno.Run was begun
	Assignment manifold.Assignment `json:"assignment"`
	Dyno       supervisor.Dyno     `json:"dyno"`
	Effects    []supervisor.Effect `json:"effects,omitempty"` // of the last step
	Keep       bool                `json:"keep,omitempty"`    // what is left of the run stays for an autopsy
	Runs       int                 `json:"runs,omitempty"`    // begun so far
	Began      time.Time           `json:"began,omitzero"`    // of Dyno.Run
}

// shelf keeps the records:
//
//	<dir>/<assignment>/record.json
//	<dir>/<assignment>/runs/<run>/   logs on their way (runlog.go), and a job's input
type shelf struct {
	dir string
	log *slog.Logger
}

func (s shelf) path(assignment string) string {
	return filepath.Join(s.dir, assignment, "record.json")
}

func (s shelf) runDir(assignment, run string) string {
	return filepath.Join(s.dir, assignment, "runs", run)
}

func (s shelf) put(r *record) error {
	r.Version = recordVersion
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write record of %s: %w", r.Assignment.Dyno, err)
	}
	path := s.path(r.Assignment.ID)
	err = writeFile(path, text)
	if errors.Is(err, fs.ErrNotExist) { // a new one, or the log shipper just took the empty directory away
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = writeFile(path, text)
		}
	}
	if err != nil {
		return fmt.Errorf("write record of %s: %w", r.Assignment.Dyno, err)
	}
	return nil
}

// remove forgets an assignment. Logs still on their way stay until they are
// shipped.
func (s shelf) remove(assignment string) error {
	err := os.Remove(s.path(assignment))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove record of %s: %w", assignment, err)
	}
	s.tidy(assignment)
	return nil
}

// tidy takes an assignment's directories away if they are empty.
func (s shelf) tidy(assignment string) {
	_ = os.Remove(filepath.Join(s.dir, assignment, "runs")) // not empty is fine
	_ = os.Remove(filepath.Join(s.dir, assignment))
}

// load reads every record. One that cannot be used is set aside, and its
// dyno is as good as unknown: what runs of it is killed, and what is desired
// of it is begun anew.
func (s shelf) load() ([]*record, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("read the dynos' records: %w", err)
	}
	var records []*record
	for _, e := range entries {
		if !e.IsDir() || uuid.Validate(e.Name()) != nil {
			continue
		}
		r, err := s.read(e.Name())
		switch {
		case err == nil:
			records = append(records, r)
		case !errors.Is(err, fs.ErrNotExist):
			path := s.path(e.Name())
			s.log.Error("a dyno's record cannot be used: set aside, its dyno is started anew if it is still wanted",
				"record", path+".corrupt", "error", err)
			if err := setAside(path); err != nil {
				return nil, fmt.Errorf("set a bad record aside: %w", err)
			}
		}
	}
	return records, nil
}

func (s shelf) read(assignment string) (*record, error) {
	f, err := os.Open(s.path(assignment))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r record
	if err := json.NewDecoder(io.LimitReader(f, maxRecord)).Decode(&r); err != nil {
		return nil, err
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("it is of version %d, this agent reads version %d", r.Version, recordVersion)
	}
	if r.Assignment.ID != assignment {
		return nil, fmt.Errorf("it names assignment %q", r.Assignment.ID)
	}
	if err := checkAssignment(r.Assignment); err != nil {
		return nil, err
	}
	if r.Dyno.State.Public() == "" && r.Dyno.State != supervisor.Gone {
		return nil, fmt.Errorf("it holds the unknown state %q", r.Dyno.State)
	}
	if r.Dyno.Run != "" && uuid.Validate(r.Dyno.Run) != nil {
		return nil, errors.New("its run id is no UUID")
	}
	r.Dyno.Plan = supervisor.PlanOf(r.Assignment)
	return &r, nil
}

// checkAssignment refuses what cannot be run, and ids and names that would be
// trouble as file names or in logs.
func checkAssignment(a manifold.Assignment) error {
	if uuid.Validate(a.ID) != nil || len(a.ID) != 36 {
		return fmt.Errorf("assignment id %.64q is no UUID", a.ID)
	}
	if _, _, err := manifold.SplitDynoName(a.Dyno); err != nil {
		return fmt.Errorf("assignment %s: %w", a.ID, err)
	}
	if a.Kind != manifold.KindFormation && a.Kind != manifold.KindOneOff {
		return fmt.Errorf("assignment %s: unknown kind %.64q", a.ID, a.Kind)
	}
	if len(a.Layers) == 0 {
		return fmt.Errorf("assignment %s: it has no image", a.ID)
	}
	if a.Command == "" || len(a.Command) > manifold.MaxCommand {
		return fmt.Errorf("assignment %s: its command must be 1 to %d bytes long", a.ID, manifold.MaxCommand)
	}
	return nil
}
