package doctor

import (
	"slices"
	"strings"
	"testing"
	"time"

	"manifold"
	"manifold/isolation"
	"manifold/supervisor"
)

const run, other = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"

// healthy is a host with one dyno and nothing wrong.
func healthy() Facts {
	size, _ := manifold.ParseSize(manifold.DefaultSize)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return Facts{
		Now: now, Boot: "b", Agent: Agent{Alive: true, Answers: true, Joined: true},
		Records: []Record{{Assignment: "a", App: "hello", Dyno: "web.1", Run: run, State: supervisor.Up, Boot: "b", Digests: []string{"d"}}},
		Traces: isolation.Traces{
			Runs:  []isolation.RunTrace{{Run: run, Dir: true, Cgroup: true, Slot: 3, Size: size, PID1: 7, Processes: 2, Memory: size.MemorySwap, Pids: int64(size.Processes)}},
			Links: []isolation.LinkTrace{{Name: "m-3", Slot: 3}}, Forwarding: map[string]bool{"eth0": true}, Swap: 8 << 30,
		},
		Images: map[string]bool{"d": true}, UIDs: Range{First: 1_000_000_000, Count: 1 << 30}, SubUIDs: []Range{{"joe", 100_000, 65_536}},
		Memory:   Memory{Total: 8 << 30, Available: 4 << 30, SwapTotal: 8 << 30, SwapFree: 8 << 30},
		Pressure: map[string]Pressure{"cpu": {Some: 20, Full: 20}, "memory": {}, "io": {Some: 5, Full: 2}},
		Clock:    Clock{Newest: now.Add(-time.Hour)}, Disks: []Disk{{Path: "/", Bytes: 100 << 30, FreeBytes: 50 << 30, Inodes: 1e6, FreeInodes: 1e6}},
	}
}

func TestExamine(t *testing.T) {
	for _, c := range []struct {
		change func(*Facts)
		want   string // checks, faults with a "!", mendable with a "+"
	}{
		{func(*Facts) {}, ""},
		{func(f *Facts) { f.Agent = Agent{Joined: true} }, "agent-down!"},
		{func(f *Facts) { f.Agent.Answers = false }, "agent-silent!"},
		{func(f *Facts) { f.Agent.Drained = f.Now }, "draining"},
		{func(f *Facts) { f.Agent.Joined = false }, "agent-not-joined!"},
		{func(f *Facts) { f.Blind = map[string]string{"x": "y"} }, "blind"},
		{func(f *Facts) { f.Records = nil }, "run-left-over!+"},
		{func(f *Facts) { f.Records, f.Agent.Alive = nil, false }, "agent-down! run-left-over!"}, // its processes may serve
		{func(f *Facts) { f.Records[0].Error = "bad" }, "record-broken! run-left-over!+"},
		{func(f *Facts) { f.Records[0].Aside, f.Records[0].Run = true, "" }, "run-left-over!+ record-set-aside"},
		{func(f *Facts) { f.Traces.Runs[0].PID1 = 0 }, "dyno-gone!"},
		{func(f *Facts) { f.Traces = isolation.Traces{Swap: 8 << 30}; f.Boot = "c" }, ""}, // adopted in a moment
		{func(f *Facts) {
			f.Traces = isolation.Traces{Swap: 8 << 30}
			f.Boot, f.Agent.Alive = "c", false
		}, "agent-down! dyno-before-boot!"},
		{func(f *Facts) {
			f.Records[0].State, f.Records[0].Crashes, f.Records[0].Run, f.Traces.Runs, f.Traces.Links = supervisor.Crashed, 9, "", nil, nil
		}, "dyno-crash-loop"},
		{func(f *Facts) { f.Traces.Runs[0].Dir = false }, "run-without-directory!"},
		{func(f *Facts) { f.Traces.Runs[0].Broken = "torn" }, "box-broken!"},
		{func(f *Facts) { f.Traces.Runs[0].Memory = 7 << 30 }, "limit-memory!"},
		{func(f *Facts) { f.Traces.Runs[0].Pids = 9 }, "limit-processes!"},
		{func(f *Facts) { f.Traces.Runs[0].Frozen = true }, "frozen!+"},
		{func(f *Facts) {
			f.Traces.Runs[0].Frozen = true
			f.Frozen = map[string]time.Time{run: f.Now.Add(time.Minute)}
		}, ""},
		{func(f *Facts) {
			f.Traces.Runs[0].Frozen = true
			f.Frozen = map[string]time.Time{run: f.Now.Add(-time.Minute)}
		}, "frozen!+"},
		{func(f *Facts) {
			f.Traces.Runs = append(f.Traces.Runs, isolation.RunTrace{Run: other, Slot: 3, Dir: true})
		}, "run-left-over!+ slot-shared!"},
		{func(f *Facts) { f.Traces.Runs = append(f.Traces.Runs, isolation.RunTrace{Run: "stranger", Slot: -1}) }, "run-foreign"},
		{func(f *Facts) { f.Traces.Links = nil }, "link-missing!"},
		{func(f *Facts) { f.Traces.Links = append(f.Traces.Links, isolation.LinkTrace{Name: "m-4", Slot: 4}) }, "link-left-over!+"},
		{func(f *Facts) { f.Traces.Links = append(f.Traces.Links, isolation.LinkTrace{Name: "m-x", Slot: -1}) }, "link-foreign"},
		{func(f *Facts) { f.Traces.Loops = []isolation.LoopTrace{{Device: "/dev/loop1", Run: run}} }, ""},
		{func(f *Facts) { f.Traces.Loops = []isolation.LoopTrace{{Device: "/dev/loop1", Run: other}} }, "loop-left-over!+"},
		{func(f *Facts) { f.Traces.Mounts = []string{"/x"} }, "mount-left-over!+"},
		{func(f *Facts) { f.Traces.Firewall = []string{"table"} }, "firewall!+"},
		{func(f *Facts) { f.Traces.Forwarding["eth0"] = false }, "forwarding!"},
		{func(f *Facts) {
			f.Traces.Strays = []isolation.Stray{{PID: 1, Cgroup: "/a"}, {PID: 2, Cgroup: "/a"}, {PID: 3, Cgroup: "/b"}}
		}, "user-ids-shared! user-ids-shared!"},
		{func(f *Facts) { f.SubUIDs = []Range{{"joe", 1_000_000_000 - 65_536, 65_537}} }, "user-ids-delegated"},
		{func(f *Facts) { f.Images = map[string]bool{} }, "image-missing"},
		{func(f *Facts) { f.Traces.Swap = 0 }, "swap-small"},
		{func(f *Facts) { f.Traces.Unshared = "disk sda is not scheduled by bfq" }, "disk-unshared"},
		{func(f *Facts) { f.Memory.SwapFree = 1 }, "swap-full"},
		{func(f *Facts) { f.Memory.Available = 1 }, "memory-low"},
		{func(f *Facts) { f.Pressure["memory"] = Pressure{Some: 15, Full: 11} }, "pressure-memory"},
		{func(f *Facts) { f.Pressure["cpu"] = Pressure{Some: 90} }, "pressure-cpu"},
		{func(f *Facts) { f.Clock.Unsynchronized = true }, "clock-unsynchronized"},
		{func(f *Facts) { f.Clock.Newest = f.Now.Add(time.Hour) }, "clock-set-back"},
		{func(f *Facts) { f.Disks[0].FreeBytes = 1 << 20 }, "disk-space!"},
		{func(f *Facts) { f.Disks[0].FreeBytes = 900 << 20 }, "disk-space"},
		{func(f *Facts) { f.Disks[0].FreeInodes = 50 }, "disk-inodes!"},
	} {
		f := healthy()
		c.change(&f)
		var got []string
		for _, x := range Examine(f) {
			name := x.Check
			if x.Level == Fault {
				name += "!"
			}
			if x.Mend != nil {
				name += "+"
			}
			got = append(got, name)
			if x.What == "" || x.Why == "" || x.Do == "" || strings.Contains(x.What+x.Why+x.Do, "\n") {
				t.Errorf("%s: not a line with what, why and what to do: %+v", x.Check, x)
			}
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("found %q, want %q", g, c.want)
		}
	}
}

func TestWhatDoesNotLastIsNoFinding(t *testing.T) {
	a, b, c := Finding{Check: "a", Subject: "1"}, Finding{Check: "a", Subject: "2"}, Finding{Check: "b", Subject: "1"}
	if got := Lasting([]Finding{a, b}, []Finding{b, c}); !slices.Equal(got, []Finding{b}) {
		t.Errorf("lasting are %+v", got)
	}
}
