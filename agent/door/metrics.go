package door

import (
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// What Prometheus is told, under its naming conventions
// (https://prometheus.io/docs/practices/naming/): base units, the platform's
// name first. A dyno's series carry its run, since two of one name live side
// by side while one replaces the other.
var (
	ofDyno = []string{"app", "dyno", "run"}

	descDynos     = desc("manifold_dynos", "Dynos on this host by state.", "state")
	descMemory    = desc("manifold_dyno_memory_bytes", "Memory that counts against the dyno's quota: RAM without the page cache, and swap.", ofDyno...)
	descSwap      = desc("manifold_dyno_swap_bytes", "Of the dyno's memory, what is on swap.", ofDyno...)
	descCache     = desc("manifold_dyno_page_cache_bytes", "Page cache of the dyno, which the kernel can take back.", ofDyno...)
	descQuota     = desc("manifold_dyno_memory_quota_bytes", "RAM the dyno's size has.", ofDyno...)
	descCPU       = desc("manifold_dyno_cpu_seconds_total", "CPU time the dyno has used, user and system.", ofDyno...)
	descProcesses = desc("manifold_dyno_processes", "Processes and threads in the dyno.", ofDyno...)
	descPressure  = desc("manifold_dyno_pressure_ratio", "Share of the last ten seconds in which something in the dyno waited (PSI).", append([]string{"resource"}, ofDyno...)...)
	descRestarts  = desc("manifold_dyno_restarts_total", "Runs of the dyno on this host beyond its first.", ofDyno...)
	descCrashes   = desc("manifold_dyno_crashes", "Crashes of the dyno in a row.", ofDyno...)
	descStart     = desc("manifold_dyno_start_time_seconds", "When the dyno's run began, in Unix time.", ofDyno...)
	descEnds      = desc("manifold_dyno_ends_total", "Runs that ended since the agent was started, by cause.", "cause")
	descRevision  = desc("manifold_agent_revision", "Revision of what is desired, as applied.")
	descDropped   = desc("manifold_agent_logs_dropped_total", "Ended runs whose last log lines were given up.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// metrics makes the numbers when they are asked for: between two scrapes they
// cost nothing.
type metrics struct{ d *Door }

// Describe says nothing, since which series there are changes all the time.
func (metrics) Describe(chan<- *prometheus.Desc) {}

// Collect reads all dynos.
func (m metrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	states := map[string]int{"starting": 0, "up": 0, "crashed": 0}
	for _, s := range m.d.statuses() {
		states[string(s.State)]++
		labels := []string{s.AppName, s.Name, s.Run}
		counter(descRestarts, float64(s.Restarts), labels...)
		gauge(descCrashes, float64(s.Crashes), labels...)
		gauge(descQuota, float64(s.Quota), labels...)
		u := s.Use
		if u == nil {
			continue
		}
		gauge(descMemory, float64(u.Memory), labels...)
		gauge(descSwap, float64(u.Swap), labels...)
		gauge(descCache, float64(u.Cache), labels...)
		counter(descCPU, u.CPU.Seconds(), labels...)
		gauge(descProcesses, float64(u.Processes), labels...)
		gauge(descStart, float64(s.Began.UnixMilli())/1000, labels...)
		for resource, share := range map[string]float64{"cpu": u.CPUPressure, "memory": u.MemoryPressure, "io": u.IOPressure} {
			gauge(descPressure, share/100, append([]string{resource}, labels...)...)
		}
	}
	for state, n := range states {
		gauge(descDynos, float64(n), state)
	}
	for cause, n := range m.d.eventLog.ends() {
		counter(descEnds, float64(n), string(cause))
	}
	h := m.d.agent.Health()
	gauge(descRevision, float64(h.Revision))
	counter(descDropped, float64(h.LogsDropped))
}

// measures adds what machines read: Prometheus, go tool pprof.
func (d *Door) measures(handle func(pattern string, h handler)) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics{d}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	plain := func(h http.Handler) handler {
		return func(w http.ResponseWriter, r *http.Request) error {
			h.ServeHTTP(w, r)
			return nil
		}
	}
	handle("GET /metrics", plain(promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})))
	handle("GET /debug/pprof/", plain(http.HandlerFunc(pprof.Index)))
	handle("GET /debug/pprof/cmdline", plain(http.HandlerFunc(pprof.Cmdline)))
	handle("GET /debug/pprof/profile", plain(http.HandlerFunc(pprof.Profile)))
	handle("GET /debug/pprof/symbol", plain(http.HandlerFunc(pprof.Symbol)))
	handle("GET /debug/pprof/trace", plain(http.HandlerFunc(pprof.Trace)))
}
