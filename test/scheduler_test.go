package test

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manifold/test/platform"
)

// The scheduler's own commands, and a job that really runs; its schedule is
// tested with a clock of its own in coordinator/clock.
func TestSchedulerCommands(t *testing.T) {
	p := running(t)
	app := p.CreateApp(t)
	manifold := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(platform.Programs, "manifold"), append([]string{"scheduler"}, args...)...)
		cmd.Env = p.Environ()
		for name, value := range p.ClientEnv(t) {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	p.Push(t, platform.Sample(t, "hello"), app)
	at := time.Now().UTC().Add(30 * time.Minute).Format(":04") // its time does not come during this test
	out, err := manifold("add", "--every", "hour", "--at", at, "-a", app, "--json", "--", "echo", "the time has come")
	var job struct{ ID, Every, At, Command string }
	if err != nil || json.Unmarshal([]byte(out), &job) != nil || job.At != at || job.Command != "echo the time has come" {
		t.Fatalf("add: %v\n%s", err, out)
	}
	if out, err = manifold("-a", app); err != nil || !strings.Contains(out, job.ID) || !strings.Contains(out, "never") {
		t.Errorf("list: %v\n%s", err, out)
	}
	if out, err = manifold("run", job.ID, "-a", app); err != nil || !strings.Contains(out, "on scheduler.") {
		t.Errorf("run: %v\n%s", err, out)
	}
	platform.Eventually(t, time.Minute, func() error { return p.LogContains(t, app, "]: the time has come") })
	kill9(t, p, "manifold-coordinator")
	platform.Eventually(t, time.Minute, func() error { return apiUp(p) })
	if out, err = manifold("remove", job.ID, "-a", app); err != nil || !strings.Contains(out, "Removed job "+job.ID) {
		t.Errorf("remove, after a kill: %v\n%s", err, out)
	}
	if out, err = manifold("remove", job.ID, "-a", app); err == nil || !strings.Contains(out, "has no scheduled job") {
		t.Errorf("remove again: %v\n%s", err, out)
	}
	if out, err = manifold("add", "--every", "day", "-a", app, "--", "x"); err == nil || !strings.Contains(out, "such as 04:30") {
		t.Errorf("add without a time: %v\n%s", err, out)
	}
}
