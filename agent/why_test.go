package agent

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"manifold"
)

// host is "manifold host" as it is built, against the rig's agent.
func (r *rig) host() func(args ...string) string {
	r.t.Helper()
	program := filepath.Join(r.dir, "manifold")
	if out, err := exec.Command("go", "build", "-o", program, "manifold/cmd/manifold").CombinedOutput(); err != nil {
		r.t.Fatalf("build manifold: %v\n%s", err, out)
	}
	return func(args ...string) string {
		r.t.Helper()
		cmd := exec.Command(program, append([]string{"host"}, args...)...)
		cmd.Env = r.env
		out, err := cmd.CombinedOutput()
		if err != nil {
			r.t.Fatalf("manifold host %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
}

// narrow puts the rig's dynos below a cgroup that has little memory for all of
// them: to a dyno it is the host that runs out.
func (r *rig) narrow(limit int64) {
	r.t.Helper()
	r.teardown()
	name := r.instance + "p"
	trees, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		trees = []string{"/sys/fs/cgroup/cgroup.procs"}
	}
	for _, procs := range trees {
		dir := filepath.Join(filepath.Dir(procs), name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			r.t.Fatal(err)
		}
		for _, file := range []string{"memory.max", "memory.swap.max", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"} {
			value := limit
			if file == "memory.swap.max" {
				value = 0
			}
			if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.FormatInt(value, 10)), 0); err != nil {
				r.t.Fatal(err)
			}
		}
		r.parents = append(r.parents, dir)
	}
	r.env = append(r.env, "MANIFOLD_CGROUP_PARENT=/"+name)
	r.start()
}

// TestWhyNamesTheCause stages the deaths that people ask about, each in a real
// dyno, and asks why. They end in the order of the list.
func TestWhyNamesTheCause(t *testing.T) {
	r := newRig(t)
	r.narrow(300 << 20)
	const mib = 1 << 20
	small := manifold.Size{Name: "Small", Memory: 48 * mib, MemorySwap: 64 * mib, Shares: 1, Processes: 64, Files: 1000, Disk: 32 * mib, Inodes: 2000}
	roomy := small
	roomy.Memory, roomy.MemorySwap = 1024*mib, 2048*mib
	deaths := []struct {
		app, command string
		first        []string // what the first line holds
		also         []string // and what the rest does
		change       func(*manifold.Assignment)
	}{
		{app: "oom", command: `echo "loading"; exec tail /dev/zero`, first: []string{"OOM (R15)", "RAM", "anon"}, also: []string{"app: loading", "R15"}},
		{app: "no-port", command: `exec busybox httpd -f -p 127.0.0.1:3000 -h /tmp`, first: []string{"R10", "$PORT", "it listens on 127.0.0.1:3000 instead"},
			change: func(a *manifold.Assignment) { a.Dyno, a.Web, a.BootTimeout = "web.1", true, 5*time.Second }},
		{app: "deaf", command: `trap '' TERM; echo ready; while :; do sleep 0.2; done`, first: []string{"R12", "SIGTERM", "still there: ", "bash (pid "}, also: []string{"it is gone from this host"},
			change: func(a *manifold.Assignment) { a.Grace = 10 * time.Second }}, // it is looked at a second before its end
		{app: "boom", command: `echo "cannot reach the database"; exit 1`, first: []string{"exit 1", `"cannot reach the database"`},
			also: []string{`v2 "Set MODE config vars", commit abc1234`, "against v1: commands changed: worker", "config vars added: MODE", "config vars changed: GREETING", "next try"}},
		{app: "segfault", command: `ulimit -s 256; f() { f; }; f`, first: []string{"SIGSEGV", "segmentation fault"}},
		{app: "typo", command: `bundel exec puma -p $PORT`, first: []string{"missing command", `"bundel"`, "127"}},
		{app: "nolib", command: `sed s/libtinfo.so.6/libgoner.so.6/g /bin/bash > /tmp/app && chmod +x /tmp/app && exec /tmp/app -c true`, first: []string{"missing library", "libgoner.so.6"}},
		{app: "full", command: `cat /dev/zero > /tmp/cache; exit 1`, first: []string{"disk full", "its private disk"}, also: []string{"No space left on device"}},
		{app: "suicide", command: `(sleep 0.2; kill -9 $$) & while :; do sleep 0.1; done`, first: []string{"killed from inside", "SIGKILL"}},
		{app: "crowded", command: `exec tail /dev/zero`, first: []string{"host pressure", "ran out of memory", "2.0 GB"}, change: func(a *manifold.Assignment) { a.Size = roomy }},
		{app: "sick", command: `exec busybox httpd -f -p $PORT -h /tmp`, first: []string{"health check", "3 times in a row GET /health: status 404", "it was restarted"},
			also: []string{"Health check failed", "Restarting", "SIGTERM"}, change: func(a *manifold.Assignment) {
				a.Dyno, a.Web, a.Env = "web.1", true, map[string]string{manifold.HealthCheckVar: "/health"}
			}},
	}
	host := r.host()
	ask := func(i int) {
		t.Helper()
		d := deaths[i]
		name := d.app + ":worker.1"
		if d.app == "no-port" || d.app == "sick" {
			name = d.app + ":web.1"
		}
		out := host("why", name)
		t.Logf("manifold host why %s\n%s", name, out)
		first, rest, _ := strings.Cut(out, "\n")
		for _, want := range d.first {
			if !strings.Contains(first, want) {
				t.Errorf("%s: the first line lacks %q: %s", d.app, want, first)
			}
		}
		if isOOM := d.app == "oom"; strings.Contains(rest, "Error R15") != isOOM {
			t.Errorf("%s: R15 is said: %t", d.app, !isOOM)
		}
		for _, want := range d.also {
			if !strings.Contains(rest, want) {
				t.Errorf("%s: %q is not told", d.app, want)
			}
		}
		for _, secret := range []string{"hello from config", "fast"} {
			if strings.Contains(out, secret) {
				t.Errorf("%s: a config var's value is told: %q", d.app, secret)
			}
		}
	}
	make := func(i int) manifold.Assignment {
		a := r.assignment(deaths[i].command)
		a.AppName, a.Size, a.Grace, a.Release = deaths[i].app, small, time.Second, 1
		if deaths[i].change != nil {
			deaths[i].change(&a)
		}
		return a
	}
	// First what does not end by itself, and the release before the bad one.
	deaf, good := make(2), make(3)
	good.Command = `sleep 1000`
	r.want(deaf, good)
	r.awaitLine(r.awaitState(deaf.ID, manifold.StateUp).Run, "app", "ready")
	r.awaitState(good.ID, manifold.StateUp)
	bad := make(3)
	bad.App, bad.Release, bad.Description, bad.Commit = good.App, 2, "Set MODE config vars", "abc1234"
	bad.Env = map[string]string{"GREETING": "other", "MODE": "fast"}
	wanted := []manifold.Assignment{bad}
	for i := range deaths[:9] {
		if i != 2 && i != 3 {
			wanted = append(wanted, make(i))
		}
	}
	sick := make(10)
	r.want(append(wanted, sick)...)
	for _, a := range wanted {
		r.await(a.ID, a.AppName+" crashed twice", func(d manifold.Dyno) bool { return d.State == manifold.StateCrashed && d.Crashes == 2 })
	}
	r.await(sick.ID, "sick restarted, and then borne", func(d manifold.Dyno) bool { return d.State == manifold.StateUp && d.Crashes == 1 })
	ask(10)
	r.awaitGone(deaf.ID)
	// At last the one that takes what all of them share.
	crowded := make(9)
	r.want(bad, crowded)
	r.await(crowded.ID, "crowded crashed", func(d manifold.Dyno) bool { return d.Crashes > 0 })
	r.setDown(true) // the coordinator is not needed for what follows
	for i := range deaths[:10] {
		ask(i)
	}
	if out := host("why", "boom:worker.1", "--json"); !strings.Contains(out, `"code": "exit"`) {
		t.Errorf("as JSON: %s", out)
	}
	r.setDown(false)
	r.want()
}
