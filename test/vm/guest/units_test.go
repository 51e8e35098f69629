//go:build guest

package guest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"manifold"
)

func TestUnitsRunADynoInADelegatedCgroup(t *testing.T) {
	scenario(t, "systemctl enable --now manifold-coordinator manifold-router manifold-agent")
	d := up(t)
	for _, unit := range []string{"manifold-coordinator", "manifold-router", "manifold-agent", "manifold-dynos.slice"} {
		if state := property(t, unit, "ActiveState"); state != "active" {
			t.Errorf("%s is %s", unit, state)
		}
	}
	checkLimits(t, d)
	if agent := property(t, "manifold-agent", "ControlGroup"); agent != "/manifold.slice/manifold-agent.service" {
		t.Errorf("the agent is in %s", agent)
	}
	for _, kind := range []string{"erofs", "overlay"} {
		if out, _ := exec.Command("findmnt", "-rn", "-t", kind).Output(); len(out) > 0 {
			t.Errorf("the host sees a dyno's mounts:\n%s", out)
		}
	}
}

// checkLimits looks at what the kernel keeps of a standard-1x dyno's limits.
func checkLimits(t *testing.T, d dyno) {
	t.Helper()
	for file, want := range map[string]string{
		"memory.max": "536870912", "memory.swap.max": "1073741824", "memory.oom.group": "1", "pids.max": "256", "../cpu.weight": "100", "../io.weight": "default 100",
	} {
		text, err := os.ReadFile(filepath.Join(d.cgroup(), "app", file))
		if got := strings.TrimSpace(string(text)); err != nil || got != want {
			t.Errorf("%s is %q, want %s (%v)", file, got, want, err)
		}
	}
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(d.PID), "cgroup"))
	if want := "0::" + strings.TrimPrefix(d.cgroup(), "/sys/fs/cgroup") + "/init\n"; err != nil || string(text) != want {
		t.Errorf("PID 1 is in %q, want %q (%v)", text, want, err)
	}
}

func TestSystemdLeavesTheDynosCgroupsAlone(t *testing.T) {
	scenario(t, "systemctl daemon-reload; daemon-reexec; set-property manifold-dynos.slice CPUWeight=200")
	d := up(t)
	run(t, "systemctl", "daemon-reload")
	run(t, "systemctl", "daemon-reexec")
	for _, slice := range []string{"manifold.slice", "manifold-dynos.slice"} {
		run(t, "systemctl", "set-property", "--runtime", slice, "CPUWeight=200")
	}
	if now := awaitDyno(t, "hello", "web.1", func(d dyno) bool { return d.PID > 0 }); now.PID != d.PID || now.Run != d.Run {
		t.Errorf("it was %+v and is %+v", d, now)
	}
	checkLimits(t, d)
}

// Whatever becomes of a daemon, the dyno has the same processes afterwards, and
// answered all the while. While the router is another process, clients wait in
// the queue of its socket, which systemd keeps.
func TestDynoOutlives(t *testing.T) {
	for name, c := range map[string]struct{ unit, does string }{
		"agent restarted":       {"manifold-agent", "systemctl restart manifold-agent"},
		"agent stopped":         {"manifold-agent", "systemctl stop manifold-agent; systemctl start manifold-agent"},
		"agent killed":          {"manifold-agent", "systemctl kill -s KILL manifold-agent"},
		"agent hung":            {"manifold-agent", "systemctl kill -s STOP --kill-who=main manifold-agent"},
		"coordinator restarted": {"manifold-coordinator", "systemctl restart manifold-coordinator"},
		"coordinator killed":    {"manifold-coordinator", "systemctl kill -s KILL manifold-coordinator"},
		"router restarted":      {"manifold-router", "systemctl restart manifold-router"},
		"all upgraded":          {"manifold-router", "dpkg -i $MANIFOLD_TEST_WORK/deb/two.deb"},
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, c.does)
			if name == "agent hung" {
				dropIn(t, "manifold-agent", "[Service]\nWatchdogSec=15\nTimeoutAbortSec=1\n")
			}
			outlives(t, c.unit, c.does)
			switch name {
			case "agent hung":
				eventually(t, "the watchdog's word", func() bool {
					return strings.Contains(run(t, "journalctl", "--no-pager", "-u", "manifold-agent"), "Watchdog timeout")
				})
			case "all upgraded":
				checkUpgrade(t)
			}
		})
	}
}

func checkUpgrade(t *testing.T) {
	t.Helper()
	if version := run(t, "manifold", "version"); !strings.HasPrefix(version, "manifold two ") {
		t.Errorf("after the upgrade it is %s", version)
	}
	for _, unit := range daemons {
		exe, err := os.Readlink("/proc/" + property(t, unit, "MainPID") + "/exe")
		if err != nil || !strings.HasPrefix(exe, "/usr/bin/manifold-") || strings.HasSuffix(exe, "(deleted)") {
			t.Errorf("%s runs %s: %v", unit, exe, err)
		}
	}
}

// outlives does something after which a unit's daemon is another process, and
// sees that the dyno is the same and answered all the while.
func outlives(t *testing.T, unit, does string) {
	t.Helper()
	before := up(t)
	pid := property(t, unit, "MainPID")
	stop := asking(t)
	run(t, "sh", "-ec", does)
	eventually(t, "another "+unit, func() bool {
		now := property(t, unit, "MainPID")
		return now != "0" && now != pid && property(t, unit, "ActiveState") == "active"
	})
	after := awaitDyno(t, "hello", "web.1", func(d dyno) bool { return d.State == manifold.StateUp })
	asked := stop()
	if after.PID != before.PID || after.Run != before.Run || after.Crashes != 0 || !after.Since.Equal(before.Since) {
		t.Errorf("it was %+v and is %+v", before, after)
	}
	figure(t, "same dyno, %s", asked)
}

// dropIn changes a unit for the time of a test.
func dropIn(t *testing.T, unit, text string) {
	t.Helper()
	dir := "/run/systemd/system/" + unit + ".service.d"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "test.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	apply := func() {
		run(t, "systemctl", "daemon-reload")
		run(t, "systemctl", "restart", unit)
	}
	t.Cleanup(func() {
		os.RemoveAll(dir)
		apply()
	})
	apply()
}

// Stopping the slice stops the agent, which needs it, and no dyno.
func TestDynoOutlivesItsSlice(t *testing.T) {
	scenario(t, "systemctl stop manifold-dynos.slice")
	before := up(t)
	run(t, "systemctl", "stop", "manifold-dynos.slice")
	if state := property(t, "manifold-agent", "ActiveState"); state != "inactive" {
		t.Errorf("the agent is %s", state)
	}
	if err := ask(); err != nil {
		t.Errorf("meanwhile: %v", err)
	}
	if after := up(t); after.PID != before.PID || after.Crashes != 0 {
		t.Errorf("it was %+v and is %+v", before, after)
	}
	checkLimits(t, before)
}

func TestUnitsAreSound(t *testing.T) {
	scenario(t, "systemd-analyze verify, security; manifold host doctor")
	up(t)
	units := []string{"manifold-agent.service", "manifold-agent.socket", "manifold-coordinator.service", "manifold-router.service", "manifold-dynos.slice"}
	if out := run(t, append([]string{"systemd-analyze", "verify", "--man=no"}, units...)...); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	for _, unit := range daemons {
		most := exposures[unit]
		text := run(t, "systemd-analyze", "security", "--no-pager", unit)
		_, score, _ := strings.Cut(text, "Overall exposure level for "+unit+".service: ")
		score, _, _ = strings.Cut(score, " ")
		if n, err := strconv.ParseFloat(score, 64); err != nil || n > most {
			t.Errorf("%s is exposed by %q, at most %v was agreed:\n%s", unit, score, most, text)
		}
		t.Logf("security: %s\t%s\tat most %v", unit, score, most)
	}
	run(t, "manifold", "host", "doctor")
	const bad = "left-over|Unbalanced|Failed to (attach|create|remove)|Permission denied"
	out, err := exec.Command("journalctl", "--no-pager", "-q", "-u", "manifold-*", "-g", bad).CombinedOutput()
	if len(out) > 0 || err == nil { // it fails where it finds nothing
		t.Errorf("systemd says:\n%s", out)
	}
}

// daemons are those of our units that are one; exposures what systemd-analyze
// may think of them: docs/hosts.md has the reason for each gap.
var (
	daemons   = []string{"manifold-agent", "manifold-coordinator", "manifold-router"}
	exposures = map[string]float64{"manifold-agent": 7, "manifold-coordinator": 2, "manifold-router": 2}
)

func TestSystemdKnowsHowTheDaemonsAre(t *testing.T) {
	scenario(t, "systemctl show -P StatusText, WatchdogUSec")
	up(t)
	for unit, want := range map[string]string{
		"manifold-agent": "dynos: 1 up; the coordinator answers", "manifold-coordinator": "serves; hosts that joined: 1",
		"manifold-router": "takes requests on 127.0.0.1:8080",
	} {
		eventually(t, "the status of "+unit, func() bool { return property(t, unit, "StatusText") == want })
		if property(t, unit, "WatchdogUSec") == "infinity" {
			t.Errorf("%s has no watchdog", unit)
		}
	}
}

func TestJournalFindsWhatIsSaidOfADyno(t *testing.T) {
	scenario(t, "journalctl -u manifold-agent APP=hello DYNO=web.1 RUN=...")
	d := up(t)
	eventually(t, "the journal's word of run "+d.Run, func() bool {
		out := run(t, "journalctl", "--no-pager", "-q", "-u", "manifold-agent", "APP=hello", "DYNO=web.1", "RUN="+d.Run)
		return strings.Contains(out, "dyno moved app=hello dyno=web.1") && strings.Contains(out, " manifold-agent[")
	})
}

// The door's group is let in by its mode, and a knock brings the agent back.
func TestSocketActivation(t *testing.T) {
	scenario(t, "systemctl stop manifold-agent; a knock on agent.sock")
	before := up(t)
	if got := run(t, "stat", "-c", "%U:%G %a", socket); got != "root:manifold 660" {
		t.Errorf("the socket is of %s", got)
	}
	run(t, "systemctl", "stop", "manifold-agent")
	if state := property(t, "manifold-agent", "ActiveState"); state != "inactive" {
		t.Errorf("the agent is %s", state)
	}
	if list, err := ps(); err != nil || len(list) != 1 || list[0].Run != before.Run {
		t.Errorf("who knocked saw %+v, %v", list, err)
	}
	// It answers before systemd has read that it is ready.
	eventually(t, "an agent that is active", func() bool { return property(t, "manifold-agent", "ActiveState") == "active" })
}
