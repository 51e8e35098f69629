package door

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"manifold"
	"manifold/agent/why"
	"manifold/isolation/segment"
)

// LogPlace is where a run's lines are on this host.
type LogPlace struct {
	Run    string
	App    string // directory of segments; may be gone at any time
	Heroku string
}

// LogLine is a line as the door shows it.
type LogLine struct {
	At     time.Time `json:"at"`
	Dyno   string    `json:"dyno"`
	Run    string    `json:"run"`
	Source string    `json:"source"`
	Seq    uint64    `json:"seq,omitempty"`
	Text   string    `json:"text"`
}

const (
	logPause  = 200 * time.Millisecond
	logBurst  = 1000 // lines of a stream at a time
	maxLast   = 5000
	usualLast = 100
)

// tailed is a run whose lines are shown.
type tailed struct {
	dyno    string
	place   LogPlace
	sources []*source
}

type source struct {
	name, dir string
	after     uint64
	reader    *segment.Reader
}

// logs answers with the last ?last=N lines (100) a dyno wrote and the platform
// said of it, as they are on this host; ?follow=true goes on, over restarts
// too. Of a dyno that is gone it shows what was kept of its last run.
func (d *Door) logs(w http.ResponseWriter, r *http.Request) error {
	last, err := number(r.URL.Query().Get("last"), usualLast)
	if err != nil {
		return err
	}
	n := int(min(last, maxLast))
	ref := r.PathValue("dyno")
	list, err := d.find(ref)
	if err != nil {
		if r.URL.Query().Get("follow") != "true" {
			if kept := d.keptLines(ref, n); kept != nil {
				return d.stream(w, r, func(s *stream) error { return sendAll(s, kept) })
			}
		}
		return err
	}
	return d.stream(w, r, func(s *stream) error {
		tails := map[string]*tailed{}
		defer func() {
			for _, t := range tails {
				t.close()
			}
		}()
		var lines []LogLine
		for _, status := range list {
			lines = append(lines, d.begin(tails, status, n)...)
		}
		order(lines)
		if err := sendAll(s, lines[max(len(lines)-n, 0):]); err != nil {
			return err
		}
		for s.follow && s.pause(logPause) {
			if err := sendAll(s, d.next(tails, ref)); err != nil {
				return err
			}
		}
		return nil
	})
}

func sendAll(s *stream, lines []LogLine) error {
	for _, l := range lines {
		if err := s.send(l); err != nil {
			return err
		}
	}
	return nil
}

func order(lines []LogLine) {
	slices.SortStableFunc(lines, func(a, b LogLine) int { return a.At.Compare(b.At) })
}

// begin shows a run's last lines and stays behind them.
func (d *Door) begin(tails map[string]*tailed, s Status, n int) (lines []LogLine) {
	place := d.agent.LogPlace(s.Assignment)
	if place.Run == "" || tails[place.Run] != nil {
		return nil
	}
	t := &tailed{dyno: s.Name, place: place, sources: []*source{
		{name: manifold.SourceApp, dir: place.App}, {name: manifold.SourceHeroku, dir: place.Heroku},
	}}
	tails[place.Run] = t
	for _, src := range t.sources {
		list, _ := segment.Last(src.dir, n) // what cannot be read is not shown
		for _, l := range list {
			lines = append(lines, t.line(src, l))
		}
	}
	return lines
}

// next is what was written since, also of a run that began since.
func (d *Door) next(tails map[string]*tailed, ref string) (lines []LogLine) {
	current := map[string]bool{}
	list, _ := d.find(ref) // none at the moment: it may come back
	for _, s := range list {
		current[d.agent.LogPlace(s.Assignment).Run] = true
		lines = append(lines, d.begin(tails, s, usualLast)...)
	}
	for run, t := range tails {
		more := t.read()
		lines = append(lines, more...)
		if len(more) == 0 && !current[run] {
			t.close()
			delete(tails, run)
		}
	}
	order(lines)
	return lines
}

func (t *tailed) read() (lines []LogLine) {
	for _, src := range t.sources {
		if src.reader == nil {
			src.reader, _ = segment.OpenReader(src.dir, src.after) // not there yet, or not any more
		}
		if src.reader == nil {
			continue
		}
		list, _ := src.reader.Next(logBurst)
		for _, l := range list {
			lines = append(lines, t.line(src, l))
		}
	}
	return lines
}

func (t *tailed) line(src *source, l segment.Line) LogLine {
	src.after = max(src.after, l.Seq)
	return LogLine{
		At: l.Time, Dyno: t.dyno, Run: t.place.Run, Source: src.name, Seq: l.Seq,
		Text: strings.ToValidUTF8(string(l.Text), "\uFFFD"),
	}
}

func (t *tailed) close() {
	for _, src := range t.sources {
		if src.reader != nil {
			src.reader.Close()
		}
	}
}

// keptLines are those of the last run that went by ref; nil if there is none.
func (d *Door) keptLines(ref string, n int) []LogLine {
	runs, err := d.agent.Ended(1, func(r why.Run) bool { return goesBy(r, ref) })
	if err != nil || len(runs) == 0 {
		return nil
	}
	r := runs[0]
	lines := make([]LogLine, 0, len(r.Lines))
	for _, l := range r.Lines[max(len(r.Lines)-n, 0):] {
		lines = append(lines, LogLine{At: l.At, Dyno: r.Dyno, Run: r.Run, Source: l.Source, Text: l.Text})
	}
	return lines
}

// goesBy is Status.Is for a run that ended.
func goesBy(r why.Run, ref string) bool {
	return Status{Dyno: manifold.Dyno{Name: r.Dyno, Assignment: r.Assignment, Run: r.Run}, AppName: r.AppName}.Is(ref)
}

// newest is the dyno that fills a slot, or filled it last.
func newest(list []Status) *Status {
	if len(list) == 0 {
		return nil
	}
	s := slices.MaxFunc(list, func(a, b Status) int { return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), a.Since.Compare(b.Since)) })
	return &s
}
