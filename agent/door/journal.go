package door

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// journalLimit bounds a journal's file; the one before it is kept beside it.
const journalLimit = 4 << 20 // bytes

// journal is a file of JSON objects, one a line, root's alone and bounded:
// <path>, and <path>.1, which is older. A disk that takes none must not keep
// an SRE out: the agent's own log says it then.
type journal struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	file *os.File
	size int64
	torn bool // its last line has no end
}

func openJournal(path string, log *slog.Logger) (*journal, error) {
	j := &journal{path: path, log: log}
	if err := j.open(); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return j, nil
}

func (j *journal) open() error {
	f, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	last := []byte{'\n'}
	_, _ = f.ReadAt(last, info.Size()-1) // of an empty file nothing is read
	j.file, j.size, j.torn = f, info.Size(), last[0] != '\n'
	return nil
}

func (j *journal) close() error { return j.file.Close() }

// write adds a line.
func (j *journal) write(v any) {
	text, err := json.Marshal(v)
	if err != nil {
		j.log.Error("a line of a journal cannot be made", "file", j.path, "error", err)
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.size+int64(len(text)) > journalLimit {
		j.turn()
	}
	line := append(text, '\n')
	if j.torn { // a full disk, or a power cut: what it took of a line must not spoil this one
		line = append([]byte{'\n'}, line...)
	}
	n, err := j.file.Write(line)
	j.size += int64(n)
	j.torn = j.torn && n == 0 || err != nil && n > 0
	if err != nil {
		j.log.Error("a journal cannot be written", "file", j.path, "error", err, "line", string(text))
	}
}

// turn begins a new file.
func (j *journal) turn() {
	old := j.file
	err := os.Rename(j.path, j.path+".1")
	if err == nil || errors.Is(err, fs.ErrNotExist) { // somebody took it away, or the last turn ended here
		err = j.open()
	}
	if err != nil {
		j.log.Error("a journal cannot be turned over", "file", j.path, "error", err)
		return
	}
	old.Close()
}
