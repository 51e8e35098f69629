package supervisor

import (
	"fmt"
	"hash/fnv"
	"math"
	"time"

	"manifold"
)

// Sample is what a run uses at one moment, for the app's log. Memory is in
// bytes; pages are counted since the run's start.
type Sample struct {
	RSS, Cache, Swap  int64
	PagesIn, PagesOut int64
	Load              Load
}

// Load are the averages of the number of runnable threads over 1, 5 and 15
// minutes.
type Load [3]float64

var loadPeriods = [3]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute}

// Add damps the averages by a number seen after the time since the last one.
func (l *Load) Add(runnable int, since time.Duration) {
	for i, period := range loadPeriods {
		e := math.Exp(-float64(since) / float64(period))
		l[i] = (1-e)*float64(runnable) + e*l[i]
	}
}

func (s Sample) load() string {
	return fmt.Sprintf("sample#load_avg_1m=%.2f sample#load_avg_5m=%.2f sample#load_avg_15m=%.2f", s.Load[0], s.Load[1], s.Load[2])
}

func (s Sample) memory(quota int64) string {
	mb := func(bytes int64) float64 { return float64(bytes) / (1 << 20) }
	return fmt.Sprintf("sample#memory_total=%.2fMB sample#memory_rss=%.2fMB sample#memory_cache=%.2fMB sample#memory_swap=%.2fMB "+
		"sample#memory_pgpgin=%dpages sample#memory_pgpgout=%dpages sample#memory_quota=%.2fMB",
		mb(s.RSS+s.Cache+s.Swap), mb(s.RSS), mb(s.Cache), mb(s.Swap), s.PagesIn, s.PagesOut, mb(quota))
}

// metricsPrefix names the dyno as programs that read such lines expect it: the
// app by a number. Ours have none, so one is made of the app's id; the run's
// id follows behind a dot.
func metricsPrefix(a manifold.Assignment) string {
	h := fnv.New32a()
	h.Write([]byte(a.App))
	return fmt.Sprintf("source=%s dyno=heroku.%d", a.Dyno, h.Sum32())
}
