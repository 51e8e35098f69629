package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"manifold"
	"manifold/agent/doctor"
	"manifold/isolation"
)

// examined is what the doctor finds on the rig's host and that lasts, as
// "check subject". The user ids of all rigs are the same, so other rigs' dynos
// are left out.
func (r *rig) examined() (found []doctor.Finding, names []string) {
	r.t.Helper()
	look := func() []doctor.Finding {
		f := Examine(context.Background(), r.config())
		f.Traces.Strays = slices.DeleteFunc(f.Traces.Strays, func(s isolation.Stray) bool { return !strings.Contains(s.Cgroup, r.instance+"x") })
		if len(f.Blind) > 0 {
			r.t.Errorf("not seen: %v", f.Blind)
		}
		f.Clock.Unsynchronized, f.Traces.Swap, f.Traces.Unshared, f.Memory, f.Pressure, f.Disks = false, 1<<40, "", doctor.Memory{}, nil, nil // this machine's own
		return doctor.Examine(f)
	}
	found = doctor.Lasting(look(), look())
	for _, f := range found {
		names = append(names, f.Check+" "+f.Subject)
		if f.What == "" || f.Why == "" || f.Do == "" {
			r.t.Errorf("half a finding: %+v", f)
		}
	}
	slices.Sort(names)
	return found, names
}

// config knows the home only: the rest the agent left there.
func (r *rig) config() Config {
	return Config{Settings: manifold.Settings{Home: filepath.Join(r.dir, "home"), Run: filepath.Join(r.dir, "run")}}
}

func (r *rig) command(name string, args ...string) string {
	r.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// after undoes what was staged, where the doctor did not.
func (r *rig) after(name string, args ...string) {
	r.t.Cleanup(func() { _ = exec.Command(name, args...).Run() })
}

func (r *rig) write(path, text string) {
	r.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) mkdir(path string) string {
	r.t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// TestDoctor stages faults on a host with a dyno. Each is found; what is ours
// is mended; strangers' look-alikes and the dyno are as they were.
func TestDoctor(t *testing.T) {
	r := newRig(t)
	a := r.assignment(`sleep 1000`)
	r.want(a)
	d := r.awaitState(a.ID, manifold.StateUp)
	if _, names := r.examined(); len(names) > 0 {
		t.Fatalf("on a healthy host the doctor finds %q", names)
	}
	traces, err := isolation.FindTraces(r.config().Isolation())
	if err != nil {
		t.Fatal(err)
	}
	live := traces.Runs[slices.IndexFunc(traces.Runs, func(t isolation.RunTrace) bool { return t.Run == d.Run })]
	ours := r.stageOurs(live)
	foreign, untouched := r.stageForeign(live)

	eventually(t, "the dyno stands still", func() bool { return r.frozen(d.Run) }, nil)
	findings, names := r.examined()
	want := slices.Concat(foreign, ours)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("the doctor finds\n%s\nwant\n%s", strings.Join(names, "\n"), strings.Join(want, "\n"))
	}
	t.Logf("%d faults staged, %d findings", len(want), len(names))
	for _, f := range findings {
		if f.Mend != nil {
			if err := isolation.Mend(r.config().Isolation(), *f.Mend); err != nil {
				t.Error(err)
			}
		}
	}
	eventually(t, "the dyno goes on", func() bool { return !r.frozen(d.Run) }, nil)
	if _, names = r.examined(); !slices.Equal(names, foreign) {
		t.Errorf("after mending the doctor finds\n%s\nwant\n%s", strings.Join(names, "\n"), strings.Join(foreign, "\n"))
	}
	if s := r.ps(); len(s) != 1 || s[0].Run != d.Run || s[0].State != manifold.StateUp {
		t.Errorf("the dyno is now %+v", s)
	}
	untouched = append(untouched, fmt.Sprintf("/sys/class/net/%s-%d", r.instance, live.Slot))
	for _, path := range untouched {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("what was not the doctor's to touch: %v", err)
		}
	}
	for what, name := range map[isolation.MendKind]string{
		isolation.MendLink: r.instance + "-201", isolation.MendLoop: "/dev/" + filepath.Base(filepath.Dir(untouched[0])),
		isolation.MendMount: "/proc", isolation.MendKind("x"): "y",
	} {
		if err := isolation.Mend(r.config().Isolation(), isolation.Mending{What: what, Name: name}); err == nil {
			t.Errorf("%s %s was mended", what, name)
		}
	}
}

// stageOurs leaves what carries our mark and is of no use any more, and
// returns the findings of it.
func (r *rig) stageOurs(live isolation.RunTrace) (want []string) {
	r.t.Helper()
	runs, own := filepath.Join(r.dir, "home/agent/runs"), filepath.Dir(r.cgroup(live.Run))
	dir, group, gone := uuid.NewString(), "150", uuid.NewString()
	r.mkdir(filepath.Join(runs, dir, "pid1"))
	r.mkdir(filepath.Join(own, group, "app"))
	hog := exec.Command("sleep", "1000")
	if err := hog.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = hog.Process.Kill(); _ = hog.Wait() })
	r.write(filepath.Join(own, group, "app", "cgroup.procs"), strconv.Itoa(hog.Process.Pid))
	shared := "slot-shared " + strconv.Itoa(live.Slot)
	want = []string{"run-left-over " + dir, "run-left-over " + group}
	for _, cgroup := range []string{"", filepath.Base(r.cgroup(live.Run))} { // its slot, and its very cgroup
		twin := uuid.NewString()
		box, err := json.Marshal(map[string]any{"run": twin, "slot": live.Slot, "size": live.Size, "cgroup": cgroup})
		if err != nil {
			r.t.Fatal(err)
		}
		r.write(filepath.Join(r.mkdir(filepath.Join(runs, twin)), "box.json"), string(box))
		want = append(want, "run-left-over "+twin, shared)
	}
	link := r.instance + "-200"
	r.command("ip", "link", "add", link, "type", "veth", "peer", "name", "p"+r.instance)
	r.after("ip", "link", "del", link)
	loop := r.loop(filepath.Join(runs, gone, "scratch.img"))
	if err := os.RemoveAll(filepath.Join(runs, gone)); err != nil {
		r.t.Fatal(err)
	}
	mount := r.mkdir(filepath.Join(runs, dir, "scratch"))
	r.command("mount", "-t", "tmpfs", "none", mount)
	r.after("umount", mount)
	r.command("nft", "flush", "chain", "inet", r.instance, "egress")
	r.write(r.cgroup(live.Run)+"/app/cgroup.freeze", "1")
	return append(want, "link-left-over "+link, "loop-left-over "+loop, "mount-left-over "+mount, "firewall table", "frozen "+live.Run)
}

// stageForeign leaves what is not for us to mend: a torn record, a limit that
// somebody changed, and strangers that look like ours. It returns the findings,
// sorted, and paths that are there as long as nobody touches them; the first
// lies in a loop device's directory.
func (r *rig) stageForeign(live isolation.RunTrace) (want, untouched []string) {
	r.t.Helper()
	home, own := filepath.Join(r.dir, "home/agent"), filepath.Dir(r.cgroup(live.Run))
	broken := uuid.NewString()
	record := r.mkdir(filepath.Join(home, "dynos", broken))
	r.write(filepath.Join(record, "record.json"), `{"version":1,"assign`)
	r.after("rm", "-r", record)
	limit := filepath.Join("/sys/fs/cgroup/memory", r.instance, filepath.Base(r.cgroup(live.Run)), "memory.memsw.limit_in_bytes")
	if _, err := os.Stat(limit); err != nil {
		limit = r.cgroup(live.Run) + "/app/memory.max"
	}
	r.write(limit, strconv.Itoa(7<<30))

	link := r.instance + "-201"
	r.command("ip", "link", "add", link, "type", "veth", "peer", "name", "q"+r.instance)
	r.command("ip", "addr", "add", "203.0.113.1/30", "dev", link)
	r.after("ip", "link", "del", link)
	foreign := r.mkdir(filepath.Join(home, "runs", "not-a-run"))
	r.after("rmdir", foreign)
	file := filepath.Join(home, "runs-of-mine", uuid.NewString(), "scratch.img")
	loop := r.loop(file)
	spy := exec.Command("sleep", "1000")
	spy.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 2100001000, Gid: 2100001000}}
	if err := spy.Start(); err != nil {
		r.t.Fatal(err)
	}
	hideout := r.mkdir(own + "x")
	r.t.Cleanup(func() {
		_ = spy.Process.Kill()
		_ = spy.Wait()
		eventually(r.t, "the hideout can be removed", func() bool { return syscall.Rmdir(hideout) == nil }, nil)
	})
	r.write(hideout+"/cgroup.procs", strconv.Itoa(spy.Process.Pid))
	want = []string{
		"limit-memory " + live.Run, "link-foreign " + link, "record-broken " + broken, "run-foreign not-a-run",
		"user-ids-shared /" + r.instance + "x",
	}
	return want, []string{"/sys/block/" + filepath.Base(loop) + "/loop", foreign, file, "/sys/class/net/" + link, record}
}

// loop makes a file and a loop device of it.
func (r *rig) loop(file string) (device string) {
	r.t.Helper()
	r.mkdir(filepath.Dir(file))
	r.write(file, "")
	r.command("truncate", "-s", "1M", file)
	device = r.command("losetup", "-f", "--show", file)
	r.after("losetup", "-d", device)
	return device
}

// TestDoctorWithoutAgent: what a dead agent left is told from the disk, and a
// dyno that only its record knows is found.
func TestDoctorWithoutAgent(t *testing.T) {
	r := newRig(t)
	a, b := r.assignment(`sleep 1000`), r.assignment(`sleep 1000`)
	b.Dyno = "worker.2"
	r.want(a, b)
	d := r.awaitState(a.ID, manifold.StateUp)
	r.awaitState(b.ID, manifold.StateUp)
	r.end(syscall.SIGKILL)
	if _, names := r.examined(); !slices.Equal(names, []string{"agent-down agent"}) {
		t.Errorf("the doctor finds %q", names)
	}
	r.write(r.cgroup(d.Run)+"/cgroup.kill", "1")
	want := []string{"agent-down agent", "dyno-gone " + d.Run}
	eventually(t, "the dead dyno", func() bool {
		_, names := r.examined()
		return slices.Equal(names, want)
	}, nil)
	// A record that cannot be read may be a dyno's that serves: nothing is mended.
	record := filepath.Join(r.dir, "home/agent/dynos", b.ID, "record.json")
	good, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	r.write(record, "garbage")
	found, names := r.examined()
	if !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "run-left-over ") }) {
		t.Errorf("the doctor finds %q", names)
	}
	for _, f := range found {
		if f.Mend != nil {
			t.Errorf("it would mend %+v", f)
		}
	}
	r.write(record, string(good))
	r.start()
	eventually(t, "a healthy host", func() bool {
		_, names := r.examined()
		return len(names) == 0
	}, func() string { _, names := r.examined(); return fmt.Sprint(names) })
}
