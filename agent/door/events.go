package door

import (
	"bufio"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"manifold"
	"manifold/supervisor"
)

// Event is a change of a dyno's state.
type Event struct {
	Seq        uint64               `json:"seq"` // from 1, without gaps as long as events.log is kept
	At         time.Time            `json:"at"`
	AppName    string               `json:"app_name"`
	Dyno       string               `json:"dyno"`
	Assignment string               `json:"assignment"`
	Run        string               `json:"run,omitempty"`
	From       supervisor.State     `json:"from"`
	To         supervisor.State     `json:"to"`
	On         supervisor.EventKind `json:"on"`               // what moved it
	Result     *manifold.Result     `json:"result,omitempty"` // where it ended a run
}

// maxEvents are kept in memory; events.log holds some tens of thousands.
const maxEvents = 1000

// Events are the last changes, in memory and in events.log. Safe for
// concurrent use.
type Events struct {
	journal *journal

	mu    sync.Mutex
	ring  []Event
	seq   uint64
	ended map[manifold.Cause]int // runs, since this process began
	added chan struct{}          // closed at the next one
}

// OpenEvents goes on where the file at path ends.
func OpenEvents(path string, log *slog.Logger) (*Events, error) {
	e := &Events{ended: map[manifold.Cause]int{}, added: make(chan struct{})}
	for _, name := range []string{path + ".1", path} {
		e.load(name)
	}
	var err error
	e.journal, err = openJournal(path, log)
	return e, err
}

// load reads what can be read of a file.
func (e *Events) load(name string) {
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var event Event
		if json.Unmarshal(lines.Bytes(), &event) == nil && event.Seq > e.seq {
			e.push(event)
		}
	}
}

func (e *Events) push(event Event) {
	e.seq = event.Seq
	e.ring = append(e.ring, event)
	if len(e.ring) > 2*maxEvents {
		e.ring = append([]Event(nil), e.ring[maxEvents:]...)
	}
}

// Add numbers an event and keeps it. It waits for nobody who follows. On nil
// it does nothing.
func (e *Events) Add(event Event) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	event.Seq = e.seq + 1
	e.push(event)
	if event.Result != nil {
		e.ended[event.Result.Cause]++
	}
	e.journal.write(event)
	close(e.added)
	e.added = make(chan struct{})
}

// Close closes the file, when nothing is added any more.
func (e *Events) Close() { _ = e.journal.close() }

// ends counts the runs that ended, by cause.
func (e *Events) ends() map[manifold.Cause]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.ended)
}

// after returns the events behind number seq, and a channel that closes when
// there are more.
func (e *Events) after(seq uint64) ([]Event, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := len(e.ring)
	for i > 0 && e.ring[i-1].Seq > seq {
		i--
	}
	return append([]Event(nil), e.ring[i:]...), e.added
}

// events answers with the last ?last=N events (100), or those behind ?after=N,
// a JSON object a line; ?follow=true goes on.
func (d *Door) events(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	last, err := number(q.Get("last"), 100)
	if err != nil {
		return err
	}
	after, err := number(q.Get("after"), 0)
	if err != nil {
		return err
	}
	all, _ := d.eventLog.after(after)
	if q.Get("after") == "" {
		all = all[max(len(all)-int(min(last, maxEvents)), 0):]
		if len(all) > 0 {
			after = all[0].Seq - 1
		}
	}
	return d.stream(w, r, func(s *stream) error {
		for {
			list, more := d.eventLog.after(after)
			for _, event := range list {
				if err := s.send(event); err != nil {
					return err
				}
				after = event.Seq
			}
			if !s.follow {
				return nil
			}
			if !s.wait(more) {
				return nil
			}
		}
	})
}

// number reads a parameter.
func number(text string, otherwise uint64) (uint64, error) {
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, refuse(http.StatusBadRequest, "bad_request", "%.20q is no number", text)
	}
	return n, nil
}
