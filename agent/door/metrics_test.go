package door

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// TestPrometheusScrapes has a real Prometheus, Debian's, read the door through
// a proxy that passes /metrics alone, and asks it for a series.
func TestPrometheusScrapes(t *testing.T) {
	r := newRig(t)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		res, err := r.Get("http://agent/metrics")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
		_, _ = io.Copy(w, res.Body)
	}))
	defer proxy.Close()
	dir := t.TempDir()
	config := fmt.Sprintf("scrape_configs: [{job_name: manifold, scrape_interval: 1s, scrape_timeout: 1s, static_configs: [{targets: [%q]}]}]\n",
		proxy.Listener.Addr().String())
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	// It cannot be given port 0 and asked which it got; on a loopback address of
	// this process's own nobody else takes the port meanwhile.
	pid := os.Getpid()
	free, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 64+pid>>16&63, pid>>8&255, pid&255))
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	var out bytes.Buffer
	server := exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	server.Stdout, server.Stderr = &out, &out
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		if t.Failed() {
			t.Logf("prometheus said:\n%s", out.String())
		}
	}()
	query := "http://" + addr + "/api/v1/query?query=" + url.QueryEscape(`manifold_dyno_memory_bytes{app="one",dyno="web.1"}`)
	var answer string
	for until := time.Now().Add(time.Minute); !strings.Contains(answer, `"1048576"`); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("it never had the series; at last it answered %s", answer)
		}
		if res, err := http.Get(query); err == nil {
			text, _ := io.ReadAll(res.Body)
			res.Body.Close()
			answer = string(text)
		}
	}
}
