package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"manifold"
	"manifold/isolation/segment"
)

// runMeta is what the shipper must know of a run, also when the record that
// made it is long gone. It lies in the run's directory as ship.json.
type runMeta struct {
	App        string `json:"app"`
	Assignment string `json:"assignment"`
	Process    string `json:"process"` // "web.1"
	Run        string `json:"run"`
	// Acked are the last numbers that are safe with the coordinator, by
	// source. They may lag behind: lines are sent at least once.
	Acked map[string]uint64 `json:"acked"`
}

// runLog is one run's two streams: what its processes wrote, and what the
// platform says of it.
//
//	<dir>/ship.json
//	<dir>/heroku/   segments the agent writes
//	<dir>/app/      segments PID 1 wrote, moved here from the box when the run ended
//	<dir>/input     a job's standard input, while it is fetched
type runLog struct {
	dir  string
	meta runMeta

	// The shipper's own.
	unsaved bool // meta moved since savedAt
	savedAt time.Time
	pace    *rate.Limiter

	mu      sync.Mutex
	heroku  *os.File // directory
	said    *segment.Writer
	appDir  string // where the app's segments are now; "" as long as there is no box
	over    bool   // nothing will be written any more
	endedAt time.Time
	bytes   int64 // of its segments, once over
	readers map[string]*segment.Reader
}

const logLimit = 1 << 20 // bytes of platform lines of one run

// openRunLog opens or makes the directory of a run's logs.
func openRunLog(dir string, meta runMeta) (*runLog, error) {
	l := &runLog{dir: dir, meta: meta, readers: map[string]*segment.Reader{}, pace: rate.NewLimiter(paceLines, paceLines)}
	kept, err := readMeta(dir)
	known := err == nil && kept.Run == meta.Run
	if known {
		l.meta = kept
	}
	if l.meta.Acked == nil {
		l.meta.Acked = map[string]uint64{}
	}
	herokuDir := filepath.Join(dir, manifold.SourceHeroku)
	err = os.MkdirAll(herokuDir, 0o700)
	if err == nil && !known { // else there is nothing to write, and a full disk must not cost what lies there
		err = l.save()
	}
	if err == nil {
		l.heroku, err = os.Open(herokuDir)
	}
	if err == nil {
		l.said, err = segment.NewWriter(l.heroku, logLimit)
	}
	if err != nil {
		l.close()
		return nil, fmt.Errorf("open the log of run %s: %w", meta.Run, err)
	}
	app := filepath.Join(dir, manifold.SourceApp)
	if _, err := os.Stat(app); err == nil {
		l.appDir = app
	}
	return l, nil
}

func readMeta(dir string) (runMeta, error) {
	var m runMeta
	text, err := os.ReadFile(filepath.Join(dir, "ship.json"))
	if err != nil {
		return m, err
	}
	err = json.Unmarshal(text, &m)
	return m, err
}

func (l *runLog) save() error {
	text, err := json.Marshal(l.meta)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(l.dir, "ship.json"), text)
}

// say writes line number seq of the platform's stream. A number that was
// said before is not said again.
func (l *runLog) say(seq uint64, at time.Time, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.said == nil || seq <= l.said.Seq() {
		return
	}
	l.said.Append(at, []byte(text))
}

// attach tells where the app's segments are.
func (l *runLog) attach(appDir string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.appDir = appDir
}

// adopt moves the app's segments out of a box that is about to be removed:
// box, address and disk are free at once, the lines stay until shipped.
// Readers follow, since they hold the directory itself.
func (l *runLog) adopt(boxDir string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := filepath.Join(l.dir, manifold.SourceApp)
	err := os.Rename(boxDir, own)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		return nil // moved before, or never written
	}
	if err != nil {
		return fmt.Errorf("keep the log of run %s: %w", l.meta.Run, err)
	}
	l.appDir = own
	return nil
}

// finish says that nothing more will be written.
func (l *runLog) finish(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over, l.endedAt = true, at
	l.bytes = diskUse(l.dir)
	if l.said != nil {
		l.said.Close()
		l.said = nil
	}
}

// read returns up to n new lines of a source. Shipper only.
func (l *runLog) read(source string, n int) ([]manifold.LogLine, error) {
	r, err := l.reader(source)
	if r == nil || err != nil {
		return nil, err
	}
	lines, err := r.Next(n)
	out := make([]manifold.LogLine, len(lines))
	for i, line := range lines {
		out[i] = manifold.LogLine{Seq: line.Seq, Time: line.Time, Text: strings.ToValidUTF8(string(line.Text), "\uFFFD")}
	}
	return out, err
}

func (l *runLog) reader(source string) (*segment.Reader, error) {
	if r := l.readers[source]; r != nil {
		return r, nil
	}
	l.mu.Lock()
	dir := l.appDir
	l.mu.Unlock()
	if source == manifold.SourceHeroku {
		dir = filepath.Join(l.dir, manifold.SourceHeroku)
	}
	if dir == "" {
		return nil, nil
	}
	r, err := segment.OpenReader(dir, l.meta.Acked[source])
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the log of run %s: %w", l.meta.Run, err)
	}
	l.readers[source] = r
	return r, nil
}

// state returns whether the run is over and how much disk its log takes.
func (l *runLog) state() (over bool, endedAt time.Time, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over, l.endedAt, l.bytes
}

func (l *runLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.readers {
		r.Close()
	}
	clear(l.readers)
	if l.said != nil {
		l.said.Close()
		l.said = nil
	}
	if l.heroku != nil {
		l.heroku.Close()
		l.heroku = nil
	}
}

// diskUse adds up the files of a run's log.
func diskUse(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // being removed; what cannot be seen is not counted
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
