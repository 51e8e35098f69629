package agent

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"manifold"
	"manifold/agent/door"
)

// TestEyes looks at a real dyno through every command that shows, while the
// coordinator is away.
func TestEyes(t *testing.T) {
	r := newRig(t)
	host := r.host()
	a := r.assignment(`echo begin; exec busybox httpd -f -p $PORT -h /tmp -r "$GREETING"`)
	a.Dyno, a.Web, a.CycleAt = "web.1", true, time.Now().Add(24*time.Hour)
	loud := r.assignment(`head -c 104857600 /dev/zero; printf '\n\033]0;gotcha\007\377\n'; echo end; sleep 1000`)
	loud.AppName = "loud"
	r.want(a, loud)
	d := r.awaitState(a.ID, manifold.StateUp)
	r.awaitState(loud.ID, manifold.StateUp)
	r.setDown(true)

	ps := host("ps")
	for _, want := range []string{"quiet-river-1234", "web.1", "up", "Standard-1X", "23h", "PSI"} {
		if !strings.Contains(ps, want) {
			t.Errorf("ps lacks %q:\n%s", want, ps)
		}
	}
	if top := host("top", "--rounds", "2", "--every", "200ms"); strings.Count(top, "2 dynos, 2 run") != 2 || strings.Contains(top, "\x1b") {
		t.Errorf("top into a pipe:\n%q", top)
	}
	inspect := host("inspect", "quiet-river-1234:web.1")
	for _, want := range []string{a.ID, d.Run, "config vars    GREETING", "/sys/fs/cgroup/", "filter", "httpd", "/ overlay", d.Addr[strings.LastIndex(d.Addr, ":"):], "user ids 21", "inodes free", "$GREETING"} {
		if !strings.Contains(inspect, want) {
			t.Errorf("inspect lacks %q:\n%s", want, inspect)
		}
	}
	for _, out := range []string{inspect, host("inspect", d.Run, "--json"), host("ps", "--json")} {
		if strings.Contains(out, "hello from config") {
			t.Errorf("a config var's value is shown:\n%s", out)
		}
	}
	var logs string
	eventually(t, "the loud dyno's end", func() bool {
		logs = host("logs", "loud:worker.1", "-n", "3")
		return strings.Contains(logs, "app[worker.1]: end")
	}, func() string { return logs })
	if strings.Contains(logs, "\x1b") || !strings.Contains(logs, "gotcha") {
		t.Errorf("a dyno's control characters reach the terminal: %q", logs)
	}
	follow(t, r, host)
	metrics, err := r.http().Get("http://agent/metrics")
	if err != nil || metrics.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %v, %v", metrics, err)
	}
	metrics.Body.Close()
	r.setDown(false)
}

// follow restarts the web dyno and sees it among lines and events.
func follow(t *testing.T, r *rig, host func(...string) string) {
	t.Helper()
	res, err := r.http().Get("http://agent/v1/dynos/quiet-river-1234:web.1/logs?follow=true&last=2")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := json.NewDecoder(res.Body)
	await := func(text, notRun string) door.LogLine {
		for {
			var l door.LogLine
			if err := lines.Decode(&l); err != nil {
				t.Fatalf("no line %q came: %v", text, err)
			}
			if strings.Contains(l.Text, text) && l.Run != notRun {
				return l
			}
		}
	}
	first := await("State changed from starting to up", "")
	host("stop", "quiet-river-1234:web.1", "--grace", "30s")
	if again := await("State changed from starting to up", first.Run); again.Run == first.Run {
		t.Error("the same run came up again")
	}
	events := host("events", "-n", "20")
	for _, want := range []string{"quiet-river-1234:web.1  up → stopping (stop)", "→ gone", "booting → up (listening)"} {
		if !strings.Contains(events, want) {
			t.Errorf("events lack %q:\n%s", want, events)
		}
	}
	if why := host("why", "quiet-river-1234:web.1"); !strings.Contains(why, "it was told to stop and ended in time") {
		t.Errorf("why says:\n%s", why)
	}
}
