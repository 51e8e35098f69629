package agent

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"manifold"
)

// BenchmarkIdle is what an agent costs while its 100 dynos do nothing: share
// of one core, and resident memory.
func BenchmarkIdle(b *testing.B) {
	r := newRig(b)
	var all []manifold.Assignment
	for i := range 100 {
		a := r.assignment(`sleep 100000`)
		a.Dyno = fmt.Sprintf("worker.%d", i+1)
		if i%2 == 0 {
			a.Dyno = fmt.Sprintf("web.%d", i+1)
		}
		all = append(all, a)
	}
	start := time.Now()
	r.want(all...)
	for _, a := range all {
		r.awaitState(a.ID, manifold.StateUp)
	}
	b.ReportMetric(time.Since(start).Seconds(), "s-to-start-100")
	time.Sleep(2 * time.Second) // the last lines are shipped
	before := cpuTime(b, r.agent.Process.Pid)
	const span = 20 * time.Second
	time.Sleep(span)
	used := cpuTime(b, r.agent.Process.Pid) - before
	b.ReportMetric(100*float64(used)/float64(span), "%core")
	b.ReportMetric(float64(resident(b, r.agent.Process.Pid))/(1<<20), "MiB-rss")
}

// BenchmarkLogs is how fast lines come home from one dyno that writes as fast
// as it can.
func BenchmarkLogs(b *testing.B) {
	r := newRig(b)
	const lines = 200_000
	a := r.assignment(fmt.Sprintf(`seq -f "%%0.f GET /some/path dyno=web.1 connect=0ms service=12ms status=200" 1 %d; echo end; sleep 1000`, lines))
	start := time.Now()
	r.want(a)
	d := r.awaitState(a.ID, manifold.StateUp)
	r.awaitLine(d.Run, "app", "end")
	took := time.Since(start)
	r.mu.Lock()
	got := len(r.logs[d.Run+"/app"])
	r.mu.Unlock()
	used := cpuTime(b, r.agent.Process.Pid)
	b.ReportMetric(float64(got)/took.Seconds(), "lines/s")
	b.ReportMetric(float64(lines+1-got), "dropped")
	b.ReportMetric(float64(used.Microseconds())/float64(got), "agent-µs/line")
}

// BenchmarkFollow is how long a line of a quiet dyno is on its way home.
func BenchmarkFollow(b *testing.B) {
	r := newRig(b)
	a := r.assignment(`while :; do echo line; sleep 0.2; done`)
	r.want(a)
	r.awaitState(a.ID, manifold.StateUp)
	time.Sleep(10 * time.Second)
	r.mu.Lock()
	lags := slices.Clone(r.lags)
	r.mu.Unlock()
	slices.Sort(lags)
	b.ReportMetric(float64(lags[len(lags)/2].Milliseconds()), "ms-p50")
	b.ReportMetric(float64(lags[len(lags)*95/100].Milliseconds()), "ms-p95")
}

// cpuTime is what a process used so far (proc(5), fields 14 and 15 of stat).
func cpuTime(b *testing.B, pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	ticks := 0
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100
}

func resident(b *testing.B, pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
