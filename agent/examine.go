package agent

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"manifold"
	"manifold/agent/doctor"
	"manifold/isolation"
	"manifold/slugfs"
)

// hostSettings are what an examination without the agent must know of how the
// last one ran. They lie in the agent's home as host.json; none is secret.
type hostSettings struct {
	Instance     string
	Pool         string
	UIDBase      uint32
	Resolvers    []string
	CgroupParent string
}

// leaveSettings writes them at the agent's start.
func (a *agent) leaveSettings() error {
	s := hostSettings{Instance: a.cfg.Instance, Pool: a.cfg.Pool.String(), UIDBase: a.cfg.UIDBase, CgroupParent: a.cfg.CgroupParent}
	for _, r := range a.cfg.Resolvers {
		s.Resolvers = append(s.Resolvers, r.String())
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return writeFile(a.home.settings(), text)
}

// asLastRun is cfg with what the last agent ran with in the place of the
// environment's. An error leaves cfg as it was.
func (cfg Config) asLastRun() (Config, error) {
	var s hostSettings
	text, err := os.ReadFile(home{filepath.Join(cfg.Home, "agent")}.settings())
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return cfg, err
	}
	was := cfg
	was.Instance, was.UIDBase, was.CgroupParent, was.Resolvers = s.Instance, s.UIDBase, s.CgroupParent, nil
	if err := was.Pool.UnmarshalText([]byte(s.Pool)); err != nil {
		return cfg, err
	}
	if len(s.Resolvers) > 0 {
		if was.Resolvers, err = resolvers(strings.Join(s.Resolvers, ",")); err != nil {
			return cfg, err
		}
	}
	return was, nil
}

// Isolation is the part of the configuration that isolation needs, as the last
// agent on this host had it where it is known.
func (cfg Config) Isolation() isolation.Config {
	cfg, _ = cfg.asLastRun()
	return cfg.isolation(home{filepath.Join(cfg.Home, "agent")})
}

func (cfg Config) isolation(h home) isolation.Config {
	return isolation.Config{
		Instance: cfg.Instance, Dir: h.runs(), Pool: cfg.Pool, UIDBase: cfg.UIDBase, Resolvers: cfg.Resolvers, CPUCap: cfg.CPUCap,
		CgroupParent: cfg.CgroupParent, Spares: spareBoxes, Log: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)),
	}
}

// spareBoxes are kept ready for the dynos that are wanted next: enough for a
// command somebody waits for, and for an app's first dyno beside it.
const spareBoxes = 2

// Examine gathers the facts of this host for the doctor, from the disk and
// the kernel: it works without the agent, changes nothing, and needs root.
// What cannot be looked at is told in Facts.Blind.
func Examine(ctx context.Context, cfg Config) doctor.Facts {
	h := home{filepath.Join(cfg.Home, "agent")}
	f := doctor.Facts{Now: time.Now(), Frozen: map[string]time.Time{}, Pressure: map[string]doctor.Pressure{}, Blind: map[string]string{}}
	see := func(what string, err error) {
		if err != nil {
			f.Blind[what] = err.Error()
		}
	}
	was, err := cfg.asLastRun()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.Agent.Settings = err.Error()
	}
	f.Boot, err = bootID()
	see("the boot id", err)
	see("the agent", examineAgent(ctx, cfg, h, &f.Agent))
	in := was.isolation(h)
	f.Traces, err = isolation.FindTraces(in)
	see("the kernel's side of dynos", err)
	f.UIDs = doctor.Range{Owner: cfg.Instance, First: int64(in.UIDBase), Count: int64(in.UIDs())}
	f.Records, f.Clock.Newest, err = examineRecords(h)
	see("the dynos' records", err)
	f.Images = examineImages(cfg, h, f.Records)
	for _, t := range f.Traces.Runs {
		if order, err := readFreeze(filepath.Join(h.runs(), t.Run)); err == nil {
			f.Frozen[t.Run] = order.Until
		}
	}
	f.SubUIDs, err = readSubUIDs("/etc/subuid")
	see("/etc/subuid", err)
	f.Memory, err = readMemory()
	see("the host's memory", err)
	for _, what := range []string{"cpu", "memory", "io"} {
		p, err := readPressure("/proc/pressure/" + what)
		see("pressure on "+what, err)
		f.Pressure[what] = p
	}
	state, err := unix.Adjtimex(&unix.Timex{})
	see("the clock", err)
	f.Clock.Unsynchronized = state == unix.TIME_ERROR
	disk, err := readDisk(h.dir)
	see("the disk", err)
	f.Disks = append(f.Disks, disk)
	return f
}

// examineAgent asks whether somebody holds the home, and answers.
func examineAgent(ctx context.Context, cfg Config, h home, a *doctor.Agent) error {
	_, err := readIdentity(h)
	a.Joined = err == nil
	if info, err := os.Stat(h.draining()); err == nil {
		a.Drained = info.ModTime()
	}
	if a.Alive, err = slugfs.InUse(h.images()); err != nil || !a.Alive {
		return err
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(cfg.Run, "agent.sock"))
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/healthz", nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		a.Error = err.Error()
		return nil
	}
	defer res.Body.Close()
	a.Answers = res.StatusCode == http.StatusOK
	var failure manifold.ErrorBody
	if !a.Answers && json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&failure) == nil {
		a.Error = failure.Message
	}
	return nil
}

// examineRecords reads what shelf.load would, and sets nothing aside. newest
// is when the last one was written.
func examineRecords(h home) (found []doctor.Record, newest time.Time, err error) {
	entries, err := os.ReadDir(h.dynos())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, newest, nil
	}
	if err != nil {
		return nil, newest, err
	}
	s := shelf{dir: h.dynos()}
	for _, e := range entries {
		if !e.IsDir() || uuid.Validate(e.Name()) != nil {
			continue
		}
		if info, err := os.Stat(s.path(e.Name())); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
		if _, err := os.Lstat(s.path(e.Name()) + ".corrupt"); err == nil {
			found = append(found, doctor.Record{Assignment: e.Name(), Error: s.path(e.Name()) + ".corrupt", Aside: true})
		}
		r, err := s.read(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			found = append(found, doctor.Record{Assignment: e.Name(), Error: err.Error()})
			continue
		}
		one := doctor.Record{
			Assignment: r.Assignment.ID, App: r.Assignment.AppName, Dyno: r.Assignment.Dyno, Run: r.Dyno.Run,
			State: r.Dyno.State, Boot: r.Boot, Since: r.Dyno.Since, Crashes: r.Dyno.Crashes,
		}
		for _, img := range r.Assignment.Layers {
			one.Digests = append(one.Digests, img.Digest)
		}
		found = append(found, one)
	}
	return found, newest, nil
}

func examineImages(cfg Config, h home, records []doctor.Record) map[string]bool {
	have := map[string]bool{}
	for _, r := range records {
		for _, d := range r.Digests {
			_, err := slugfs.Find(manifold.Image{Digest: d}, h.images(), filepath.Join(cfg.Home, "stacks"))
			have[d] = err == nil
		}
	}
	return have
}

// readSubUIDs reads subuid(5): "name:first:count" a line.
func readSubUIDs(path string) (ranges []doctor.Range, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) != 3 {
			continue
		}
		first, err1 := strconv.ParseInt(fields[1], 10, 64)
		count, err2 := strconv.ParseInt(fields[2], 10, 64)
		if err1 == nil && err2 == nil {
			ranges = append(ranges, doctor.Range{Owner: fields[0], First: first, Count: count})
		}
	}
	return ranges, lines.Err()
}

// readMemory reads /proc/meminfo (proc(5)).
func readMemory() (m doctor.Memory, err error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "MemTotal:":
			m.Total = kib << 10
		case "MemAvailable:":
			m.Available = kib << 10
		case "SwapTotal:":
			m.SwapTotal = kib << 10
		case "SwapFree:":
			m.SwapFree = kib << 10
		}
	}
	return m, nil
}

// readPressure reads "some avg10=0.00 avg60=1.23 …" and "full …"
// (Documentation/accounting/psi.rst).
func readPressure(path string) (p doctor.Pressure, err error) {
	text, err := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		_, after, _ := strings.Cut(line, "avg60=")
		value, _, _ := strings.Cut(after, " ")
		share, _ := strconv.ParseFloat(value, 64)
		if strings.HasPrefix(line, "some ") {
			p.Some = share
		} else {
			p.Full = share
		}
	}
	return p, err
}

func readDisk(path string) (doctor.Disk, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return doctor.Disk{}, fmt.Errorf("statfs %s: %w", path, err)
	}
	block := s.Bsize
	return doctor.Disk{
		Path: path, Bytes: int64(s.Blocks) * block, FreeBytes: int64(s.Bavail) * block,
		Inodes: int64(s.Files), FreeInodes: int64(s.Ffree),
	}, nil
}
