package agent

import (
	"bufio"
	"cmp"
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"manifold"
	"manifold/agent/door"
	"manifold/agent/why"
	"manifold/isolation"
	"manifold/isolation/segment"
	"manifold/supervisor"
)

// What is kept of a run that ended, so that why it did can be said later. It
// is gathered in three moments:
//
//	while it runs          usage every 20 s, the last minutes of it       traces
//	before a SIGKILL       its processes and listeners (R10, R12)         lookBefore
//	after its end, before  what the kernel still knows, its disk, its     gather
//	the box is removed     last lines, the host
//
// and written when the supervisor has said what the end was (writeDown).

// trailLength samples are kept, of twenty seconds each.
const trailLength = 15

// traces are what is gathered while a run goes on.
type traces struct {
	mu     sync.Mutex
	trail  []why.Sample
	before *why.Snapshot
}

func (t *traces) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trail, t.before = nil, nil
}

func (t *traces) add(s why.Sample) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trail = append(t.trail, s)
	t.trail = t.trail[max(len(t.trail)-trailLength, 0):]
}

func (t *traces) snap(b box) {
	s := &why.Snapshot{At: time.Now(), Processes: b.Processes(), Listeners: b.Listeners()}
	s.Usage, _ = b.Usage() // zero where it cannot be read: it is ending
	for i := range s.Processes {
		s.Processes[i].Args = "" // may hold a config var's value
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.before = s
}

func (t *traces) get() ([]why.Sample, *why.Snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.trail), t.before
}

// sample has the supervisor know how much memory the dyno needs, and what else
// its app wants in the log, and keeps it for whoever asks why it ended.
func (d *driver) sample(ctx context.Context) {
	if d.box == nil || !holdsProcesses(d.rec.Dyno.State) {
		return
	}
	u, err := d.box.Usage()
	runnable := 0
	if err == nil && d.assignment.RuntimeMetrics {
		runnable, err = d.box.Runnable()
	}
	if err != nil {
		d.log.Debug("what a dyno uses cannot be read", "run", d.rec.Dyno.Run, "error", err) // it may just have ended
		return
	}
	d.traces.add(why.Sample{At: time.Now(), Usage: u})
	d.load.Add(runnable, d.a.sampleEvery)
	d.step(ctx, supervisor.Event{Kind: supervisor.Sampled, Memory: u.Needed(), Sample: supervisor.Sample{
		RSS: u.RSS, Cache: u.Cache + u.Shared, Swap: u.Swap, PagesIn: u.PagesIn, PagesOut: u.PagesOut, Load: d.load,
	}})
}

// lookBefore looks at a run that is about to get SIGKILL: at once where it did
// not listen in time, and where it was told to stop before its grace is over, by
// so much that a busy host has the time to look. It is called before the step's
// effects.
func (d *driver) lookBefore(ctx context.Context, from supervisor.State) {
	dyno, b := d.rec.Dyno, d.box
	if b == nil || dyno.State == from {
		return
	}
	switch dyno.State {
	case supervisor.Overdue:
		d.traces.snap(b)
	case supervisor.Ailing, supervisor.Stopping:
		d.group.Go(func() {
			early := max(dyno.Grace/20, min(dyno.Grace/2, time.Second))
			wait := time.NewTimer(dyno.Grace - early)
			defer wait.Stop()
			select {
			case <-ctx.Done():
			case <-b.Done():
			case <-wait.C:
				d.traces.snap(b)
			}
		})
	}
}

// gather looks for what is known of a run that has ended, while its box is
// there. It does not touch what belongs to the driver's own loop.
func (d *driver) gather(run string, b box, x isolation.Exit) *why.Run {
	r := &why.Run{End: b.End(), Host: d.a.hostNow()}
	r.Trail, r.Before = d.traces.get()
	r.End.Memory = cmp.Or(x.Memory, r.End.Memory)
	if x.Status != 0 { // else nobody asks, and it costs a mount
		r.Disk, _ = b.Disk()
	}
	if (r.End.Memory != nil || r.End.OOMKills > 0) && !r.End.Struck {
		r.Others = d.a.biggest(run)
	}
	r.Lines = lastLines(b.LogDir(), d.runFile(run, manifold.SourceHeroku))
	return r
}

// lastLines reads the end of a run's two streams, by time.
func lastLines(appDir, herokuDir string) []why.Line {
	var lines []why.Line
	for source, dir := range map[string]string{manifold.SourceApp: appDir, manifold.SourceHeroku: herokuDir} {
		list, _ := segment.Last(dir, why.KeptLines) // what cannot be read is not there
		for _, l := range list {
			text := strings.ToValidUTF8(string(l.Text[:min(len(l.Text), why.MaxText)]), "\uFFFD")
			lines = append(lines, why.Line{At: l.Time, Source: source, Text: text})
		}
	}
	slices.SortStableFunc(lines, func(a, b why.Line) int { return a.At.Compare(b.At) })
	return lines[max(len(lines)-why.KeptLines, 0):]
}

// writeDown keeps how the present run ended. effects are the step's, with
// what the platform said of it.
func (d *driver) writeDown(before supervisor.Dyno, e supervisor.Event, effects []supervisor.Effect) {
	dyno, as := d.rec.Dyno, d.assignment
	if dyno.Run == "" {
		return // it ended before it began
	}
	r := why.Run{}
	if d.evidence != nil {
		r = *d.evidence
	}
	r.App, r.AppName, r.Dyno, r.Kind, r.Assignment, r.Run = as.App, as.AppName, as.Dyno, as.Kind, as.ID, dyno.Run
	r.Release, r.Size, r.Command, r.Port = as.Release, as.Size, as.Command, dyno.Port
	r.Began, r.UpAt, r.Result, r.Crashes = d.rec.Began, dyno.UpAt, *dyno.Result, dyno.Crashes
	r.Stopped, r.Withdrawn = before.State == supervisor.Stopping, dyno.Withdrawn
	r.Grace, r.Boot, r.HostLost = cmp.Or(dyno.Grace, dyno.Plan.Grace), dyno.Plan.BootTimeout, e.Exit.HostLost
	if dyno.State == supervisor.Crashed {
		r.NextTry = dyno.Due
	}
	for _, effect := range effects {
		if effect.Do == supervisor.Say {
			r.Lines = append(r.Lines, why.Line{At: effect.At, Source: manifold.SourceHeroku, Text: effect.Text})
		}
	}
	r.Lines = r.Lines[max(len(r.Lines)-why.KeptLines, 0):]
	if err := d.a.ended.Keep(r); err != nil {
		d.log.Warn("why a dyno ended will not be known", "run", r.Run, "error", err)
	}
}

// tell puts a change of state among the events.
func (d *driver) tell(before supervisor.Dyno, e supervisor.Event) {
	dyno, as := d.rec.Dyno, d.assignment
	event := door.Event{
		At: e.At, AppName: as.AppName, Dyno: as.Dyno, Assignment: as.ID, Run: dyno.Run,
		From: before.State, To: dyno.State, On: e.Kind,
	}
	if dyno.Result != before.Result {
		event.Result = dyno.Result
	}
	d.a.events.Add(event)
}

// biggest are the dynos with the most memory, but for one run.
func (a *agent) biggest(run string) []why.Neighbour {
	a.mu.Lock()
	drivers := make([]*driver, 0, len(a.drivers))
	for _, d := range a.drivers {
		drivers = append(drivers, d)
	}
	a.mu.Unlock()
	var list []why.Neighbour
	for _, d := range drivers {
		b, _ := d.running()
		if b == nil || b.Run() == run {
			continue
		}
		if m, err := b.Memory(); err == nil {
			list = append(list, why.Neighbour{Name: d.assignment.AppName + ":" + d.assignment.Dyno, Memory: m.Needed()})
		}
	}
	slices.SortFunc(list, func(a, b why.Neighbour) int { return cmp.Compare(b.Memory, a.Memory) })
	return list[:min(3, len(list))]
}

// hostNow is how the host is.
func (a *agent) hostNow() why.Host {
	h := why.Host{Pressure: isolation.HostPressure()}
	var fs unix.Statfs_t
	if unix.Statfs(a.home.dir, &fs) == nil {
		h.DiskFree = int64(fs.Bavail) * fs.Bsize
	}
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return h
	}
	defer f.Close()
	into := map[string]*int64{"MemAvailable": &h.Available, "SwapFree": &h.SwapFree, "SwapTotal": &h.SwapTotal}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if n := into[key]; n != nil {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			*n = kib << 10
		}
	}
	return h
}
