package isolation

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
)

// Usage is what a dyno uses at one moment, as its cgroup's files tell it.
type Usage struct {
	Memory
	CPU       time.Duration // since its start, user and system
	Processes int           // and threads
	// Pressure is the share of the last ten seconds in which some process of
	// the dyno waited for CPU, memory or disk (PSI, "some avg10"), in percent.
	// Zero where the kernel does not count it.
	CPUPressure, MemoryPressure, IOPressure float64
}

// Memory is where a dyno's memory is, in bytes.
type Memory struct {
	RSS    int64 // processes' own
	Shared int64 // shared memory and tmpfs, which cannot be dropped either
	Cache  int64 // of files: the kernel takes it back when it is needed
	Swap   int64
	// PagesIn and PagesOut are how many pages were charged to the dyno and given
	// back since its start. Only cgroup v1 counts them; else zero.
	PagesIn, PagesOut int64
}

// Needed is the memory that counts against the quota: all but the page cache,
// which is there because RAM is free, not because the app needs it.
func (m Memory) Needed() int64 { return m.RSS + m.Shared + m.Swap }

// Usage reads what the dyno uses now. It costs a few reads of small files.
// After the end of the dyno it is what the kernel still counts, or an error.
func (b *Box) Usage() (Usage, error) {
	t, group, run := b.host.cgroups, b.record.group(), b.record.Run
	var u Usage
	memory, err := t.memory(group)
	if err != nil {
		return u, fmt.Errorf("read usage of run %s: %w", run, err)
	}
	u.Memory = memory
	app := filepath.Join(t.dir(group), "app")
	cpu, err := readKeys(filepath.Join(app, "cpu.stat"))
	if err != nil {
		return u, fmt.Errorf("read usage of run %s: %w", run, err)
	}
	u.CPU = time.Duration(cpu["usage_usec"]) * time.Microsecond
	pids := filepath.Join(app, "pids.current")
	if v1 := t.v1Dir(cgroup1.Pids, group); v1 != "" {
		pids = filepath.Join(v1, "pids.current")
	}
	n, err := readNumber(pids)
	if err != nil {
		return u, fmt.Errorf("read usage of run %s: %w", run, err)
	}
	u.Processes = int(n)
	u.CPUPressure = pressure(filepath.Join(app, "cpu.pressure"))
	u.MemoryPressure = pressure(filepath.Join(app, "memory.pressure"))
	u.IOPressure = pressure(filepath.Join(app, "io.pressure"))
	return u, nil
}

// Memory reads only where the dyno's memory is.
func (b *Box) Memory() (Memory, error) {
	m, err := b.host.cgroups.memory(b.record.group())
	if err != nil {
		return m, fmt.Errorf("read memory of run %s: %w", b.record.Run, err)
	}
	return m, nil
}

// memory reads a run's memory.stat, whose words differ: v1 counts shared
// memory as cache and swap in the same file.
func (t *cgroupTree) memory(group string) (Memory, error) {
	if v1 := t.v1Memory(group); v1 != "" {
		stat, err := readKeys(filepath.Join(v1, "memory.stat"))
		if err != nil {
			return Memory{}, err
		}
		shared := stat["shmem"]
		return Memory{
			RSS: stat["rss"], Shared: shared, Cache: stat["cache"] - shared, Swap: stat["swap"],
			PagesIn: stat["pgpgin"], PagesOut: stat["pgpgout"],
		}, nil
	}
	dir := filepath.Join(t.dir(group), "app")
	stat, err := readKeys(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return Memory{}, err
	}
	swap, err := readNumber(filepath.Join(dir, "memory.swap.current"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without swap has none
		return Memory{}, err
	}
	shared := stat["shmem"]
	return Memory{RSS: stat["anon"], Shared: shared, Cache: stat["file"] - shared, Swap: swap}, nil
}

// Runnable counts the dyno's threads that compute or wait for a CPU now (state
// R, proc_pid_stat(5)): what its load average is made of. It costs one read of
// a small file for each thread.
func (b *Box) Runnable() (n int, err error) {
	text, err := readSmall(filepath.Join(b.host.cgroups.dir(b.record.group()), "app", "cgroup.threads"))
	if err != nil {
		return 0, fmt.Errorf("read threads of run %s: %w", b.record.Run, err)
	}
	for thread := range strings.Lines(text) {
		stat, err := readSmall("/proc/" + strings.TrimSpace(thread) + "/stat")
		if err != nil {
			continue // it just ended
		}
		if i := strings.LastIndexByte(stat, ')'); i >= 0 && strings.HasPrefix(stat[i+1:], " R") {
			n++
		}
	}
	return n, nil
}

// v1Dir is the run's directory in the tree of a v1 controller, or "".
func (t *cgroupTree) v1Dir(name cgroup1.Name, group string) string {
	for i, s := range t.v1 {
		if s.Name() == name {
			return t.v1Dirs(group)[i]
		}
	}
	return ""
}

// maxCgroupFile bounds what is read of one of the kernel's files.
const maxCgroupFile = 16 << 10

func readSmall(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCgroupFile))
	return string(data), err
}

// readKeys reads a flat-keyed file: "name number" a line
// (Documentation/admin-guide/cgroup-v2.rst, "Interface Files").
func readKeys(path string) (map[string]int64, error) {
	text, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	keys := map[string]int64{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			keys[key] = n
		}
	}
	return keys, nil
}

func readNumber(path string) (int64, error) {
	text, err := readSmall(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(text), 10, 64)
}

// pressure reads "some avg10=1.23 …" (Documentation/accounting/psi.rst).
func pressure(path string) float64 {
	text, err := readSmall(path)
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(text, "avg10=")
	value, _, _ := strings.Cut(after, " ")
	share, _ := strconv.ParseFloat(value, 64)
	return share
}
