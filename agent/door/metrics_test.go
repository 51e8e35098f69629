package door

import (
	"os/exec"
	"strings"
	"testing"
)

// TestPrometheusLikesTheMetrics has Debian's own promtool read them: names,
// types and texts by Prometheus' conventions.
func TestPrometheusLikesTheMetrics(t *testing.T) {
	r := newRig(t)
	status, body := r.ask(t, "GET", "/metrics")
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(body)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool (Debian package prometheus): %v\n%s", err, out)
	}
	for _, want := range []string{
		`manifold_dyno_memory_bytes{app="one",dyno="web.1",run="r1"} 1.048576e+06`,
		`manifold_dyno_pressure_ratio{app="two",dyno="web.1",resource="io",run="r2"} 0`,
		`manifold_dynos{state="crashed"} 0`, "go_goroutines ", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is not among them", want)
		}
	}
	if status, body := r.ask(t, "GET", "/debug/pprof/goroutine?debug=1"); status != 200 || !strings.Contains(body, "goroutine profile") {
		t.Errorf("pprof: %d %.200s", status, body)
	}
}
