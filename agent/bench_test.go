package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"manifold"
)

// BenchmarkIdle is what an agent costs while its 100 dynos do nothing: share
// of one core, memory of its own, and what of all that is ours grows with each
// dyno: the agent and the PID 1s, in their proportional share (PSS, proc(5)).
func BenchmarkIdle(b *testing.B) {
	const dynos = 100
	r := newRig(b)
	agent := r.agent.Process.Pid
	alone := proportional(b, agent)
	var all []manifold.Assignment
	for i := range dynos {
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
	before := cpuTime(b, agent)
	const span = 20 * time.Second
	time.Sleep(span)
	used := cpuTime(b, agent) - before
	b.ReportMetric(100*float64(used)/float64(span), "agent-%core")
	b.ReportMetric(float64(resident(b, agent))/(1<<20), "agent-MiB-rss")
	grown := proportional(b, agent) - alone
	b.ReportMetric(float64(grown)/dynos/(1<<20), "agent-MiB-pss/dyno")
	for _, pid := range children(b, agent) {
		grown += proportional(b, pid)
	}
	b.ReportMetric(float64(grown)/dynos/(1<<20), "all-MiB-pss/dyno")
	b.ReportMetric(0, "ns/op")
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

// proportional is a process's memory, in bytes, in which what several share
// counts in equal parts (Pss in /proc/pid/smaps_rollup).
func proportional(b *testing.B, pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return kib << 10
		}
	}
	b.Fatalf("no Pss of process %d", pid)
	return 0
}

// children are the processes that pid started: an agent's are PID 1s.
func children(b *testing.B, pid int) (pids []int) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may end
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				b.Fatal(err)
			}
			pids = append(pids, child)
		}
	}
	return pids
}
