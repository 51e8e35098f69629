package isolation

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"manifold"
	"manifold/isolation/boot"
)

// A dyno's cgroups. PID 1 sits apart from the app, so that the kill for too
// much memory spares it and it can write the exit record:
//
//	<parent>/<instance>/<slot>        its weights among the dynos, of CPU and disk time
//	<parent>/<instance>/<slot>/init   PID 1
//	<parent>/<instance>/<slot>/app    everything else; all limits are here
//
// They are named after the slot, as the links are: a box is made before it is
// known which run it will be, and cgroups of the v2 tree cannot be renamed.
//
// On cgroup v2 both are in the one tree. On v1 the controllers have trees of
// their own, where only app exists, as <slot>, but for CPU time, where both do;
// init and app are in the v2 tree beside them (hybrid layout). The parent is
// somebody else's: a unit's that delegates it to us, or the root.
type cgroupTree struct {
	root string              // of the tree with init and app
	own  string              // the instance's cgroup, in every tree
	v1   []cgroup1.Subsystem // empty on v2
	io   bool                // v2: the controller is there

	cpuCap float64 // Config.CPUCap
}

func findCgroups(parent, instance string) (*cgroupTree, error) {
	parent = filepath.Clean("/" + parent)
	t := &cgroupTree{own: filepath.Join(parent, instance)}
	mode := cgroups.Mode()
	if mode == cgroups.Unified {
		t.root = "/sys/fs/cgroup"
		return t, t.checkDelegation(parent)
	}
	all, err := cgroup1.Default()
	if err != nil {
		return nil, fmt.Errorf("find cgroup v1 controllers: %w", err)
	}
	need := map[cgroup1.Name]bool{cgroup1.Memory: true, cgroup1.Cpu: true, cgroup1.Pids: true, cgroup1.Devices: true}
	for _, s := range all {
		if (need[s.Name()] || s.Name() == cgroup1.Blkio) && isCgroup(s) {
			t.v1 = append(t.v1, s)
			delete(need, s.Name())
		}
	}
	if len(need) > 0 {
		return nil, fmt.Errorf("cgroup controllers memory, cpu, pids and devices are needed, but this kernel does not mount all of them (missing: %v)", slices.Sorted(maps.Keys(need)))
	}
	if mode != cgroups.Hybrid {
		return nil, errors.New("cgroup v1 without a v2 tree at /sys/fs/cgroup/unified: mount one (mount -t cgroup2 none /sys/fs/cgroup/unified)")
	}
	t.root = "/sys/fs/cgroup/unified"
	for _, dir := range append(t.v1Dirs(".."), filepath.Join(t.root, parent)) {
		if _, err := os.Stat(dir); err != nil {
			return nil, noParent(dir)
		}
	}
	return t, nil
}

// isCgroup is false where a controller has a directory and is not mounted there.
func isCgroup(s cgroup1.Subsystem) bool {
	p, ok := s.(interface{ Path(string) string })
	if !ok {
		return false
	}
	var fs unix.Statfs_t
	return unix.Statfs(p.Path("/"), &fs) == nil && fs.Type == unix.CGROUP_SUPER_MAGIC
}

// checkDelegation looks for the parent and what it may hand on (cgroup v2,
// Documentation/admin-guide/cgroup-v2.rst, "Delegation").
func (t *cgroupTree) checkDelegation(parent string) error {
	dir := filepath.Join(t.root, parent)
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if errors.Is(err, fs.ErrNotExist) {
		return noParent(dir)
	}
	if err != nil {
		return fmt.Errorf("find cgroup controllers: %w", err)
	}
	have := strings.Fields(string(text))
	for _, name := range []string{"memory", "cpu", "pids"} {
		if !slices.Contains(have, name) {
			return fmt.Errorf("the cgroup controller %s is needed, but %s has only %q: a unit must delegate it (Delegate=yes), or the kernel lacks it", name, dir, have)
		}
	}
	t.io = slices.Contains(have, "io")
	return nil
}

func noParent(dir string) error {
	return fmt.Errorf("there is no cgroup %s: MANIFOLD_CGROUP_PARENT must name one that exists (systemctl start manifold-dynos.slice), or be unset", dir)
}

func (t *cgroupTree) dir(group string) string { return filepath.Join(t.root, t.own, group) }

// handles are open files of a dyno's cgroups, for PID 1. They are opened here
// since the kernel asks who opened them, not who uses them.
type handles struct {
	procs []*os.File // cgroup.procs files through which the app joins
	stats []*os.File // what tells of memory
	ooms  *os.File   // eventfd that counts OOM kills; nil on v2
}

func (h handles) close() {
	closeAll(h.procs)
	closeAll(h.stats)
	if h.ooms != nil {
		h.ooms.Close()
	}
}

// create makes a dyno's cgroups. The caller closes the handles.
func (t *cgroupTree) create(group string, size manifold.Size) (h handles, err error) {
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	if h.procs, err = t.makeAndLimit(group, size); err != nil {
		return h, err
	}
	dir, names := filepath.Join(t.dir(group), "app"), []string{boot.Events, "memory.stat", "memory.current", "memory.peak", "memory.swap.current", "memory.swap.peak"}
	if v1 := t.v1Memory(group); v1 != "" {
		dir, names = v1, []string{"memory.stat", "memory.max_usage_in_bytes", "memory.memsw.max_usage_in_bytes", "memory.failcnt"}
		if h.ooms, err = oomEvents(v1); err != nil {
			return h, fmt.Errorf("watch the memory limit: %w", err)
		}
	}
	for _, name := range names {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // this kernel does not tell
		}
		if err != nil {
			return h, err
		}
		h.stats = append(h.stats, f)
	}
	return h, nil
}

// oomEvents has the kernel count OOM kills of a v1 memory cgroup into an
// eventfd. It goes on as long as anybody has the eventfd open, agent or not.
func oomEvents(dir string) (*os.File, error) {
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return nil, err
	}
	defer control.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	events := os.NewFile(uintptr(fd), "eventfd")
	order := fmt.Sprintf("%d %d", fd, control.Fd())
	if err := os.WriteFile(filepath.Join(dir, "cgroup.event_control"), []byte(order), 0); err != nil {
		events.Close()
		return nil, err
	}
	return events, nil
}

func (t *cgroupTree) makeAndLimit(group string, size manifold.Size) (procs []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(procs)
			procs = nil
		}
	}()
	if err := mkdirs(t.dir(group), "init", "app"); err != nil {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	open := func(path string) error {
		f, err := os.OpenFile(filepath.Join(path, "cgroup.procs"), os.O_WRONLY, 0)
		if err == nil {
			procs = append(procs, f)
		}
		return err
	}
	if len(t.v1) == 0 {
		limits := limitsV2(size)
		if t.io {
			limits.IO = &cgroup2.IO{} // as with CPU
		}
		if _, err := cgroup2.NewManager(t.root, filepath.Join(t.own, group, "app"), limits); err != nil {
			return procs, fmt.Errorf("set cgroup limits: %w", err)
		}
		if err := os.WriteFile(filepath.Join(t.dir(group), "app", "memory.oom.group"), []byte("1"), 0); err != nil {
			return procs, fmt.Errorf("set memory.oom.group: %w", err)
		}
	} else {
		path := filepath.Join(t.own, group)
		subsystems := func() ([]cgroup1.Subsystem, error) { return t.v1, nil }
		if _, err := cgroup1.New(cgroup1.StaticPath(path), limitsV1(size), cgroup1.WithHierarchy(subsystems)); err != nil {
			return procs, fmt.Errorf("set cgroup limits: %w", err)
		}
		for _, dir := range t.v1Dirs(group) {
			if dir == t.v1Dir(cgroup1.Cpu, group) {
				if err := mkdirs(dir, "init", "app"); err != nil {
					return procs, fmt.Errorf("make cgroup: %w", err)
				}
				dir = filepath.Join(dir, "app")
			}
			if err := open(dir); err != nil {
				return procs, fmt.Errorf("open cgroup: %w", err)
			}
		}
	}
	if err := open(filepath.Join(t.dir(group), "app")); err != nil {
		return procs, fmt.Errorf("open cgroup: %w", err)
	}
	return procs, t.share(group, size) // weights count among siblings: the dyno's are its slot's
}

func mkdirs(parent string, names ...string) error {
	for _, name := range names {
		if err := os.MkdirAll(filepath.Join(parent, name), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// placeInit puts PID 1 into its v1 cgroup of CPU time; on v2 it is there from
// the start. What it does for a dyno, such as keeping a flood of log lines, is
// on the dyno's account.
func (t *cgroupTree) placeInit(group string, pid int) error {
	dir := t.v1Dir(cgroup1.Cpu, group)
	if dir == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, "init", "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// v1Dirs are the run's directories in the controllers' own trees.
func (t *cgroupTree) v1Dirs(group string) []string {
	var dirs []string
	for _, s := range t.v1 {
		if p, ok := s.(interface{ Path(string) string }); ok {
			dirs = append(dirs, p.Path(filepath.Join(t.own, group)))
		}
	}
	return dirs
}

// v1Memory is the run's directory in the v1 memory controller's tree, or "".
func (t *cgroupTree) v1Memory(group string) string {
	for i, s := range t.v1 {
		if s.Name() == cgroup1.Memory {
			return t.v1Dirs(group)[i]
		}
	}
	return ""
}

// devices a dyno may open: the harmless ones and its own terminals
// (Documentation/admin-guide/devices.txt).
func devices() []specs.LinuxDeviceCgroup {
	any := int64(-1)
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Type: "a", Major: &any, Minor: &any, Access: "rwm"}}
	for _, d := range []struct{ major, minor int64 }{
		{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, // null, zero, full, random, urandom
		{5, 0}, {5, 2}, {136, -1}, // tty, ptmx, pts
	} {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &d.major, Minor: &d.minor, Access: "rw"})
	}
	return rules
}

func limitsV1(size manifold.Size) *specs.LinuxResources {
	pids := int64(size.Processes)
	ram, _ := splitMemory(size, hostSwap())
	// v1 counts what connections hold by itself; the kernel has one bound for
	// all of them on the host (tcp_mem), which one dyno could reach.
	tcp := size.Memory / 8
	return &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: &ram, Swap: &size.MemorySwap, KernelTCP: &tcp},
		Pids:    &specs.LinuxPids{Limit: &pids},
		Devices: devices(),
	}
}

func limitsV2(size manifold.Size) *cgroup2.Resources {
	ram, swap := splitMemory(size, hostSwap())
	return &cgroup2.Resources{
		CPU:     &cgroup2.CPU{}, // the controller is needed for the run's weight
		Memory:  &cgroup2.Memory{Max: &ram, Swap: &swap},
		Pids:    &cgroup2.Pids{Max: int64(size.Processes)},
		Devices: devices(),
	}
}

// initPID is PID 1's process id on the host, or 0.
func (t *cgroupTree) initPID(group string) int {
	data, err := os.ReadFile(filepath.Join(t.dir(group), "init", "cgroup.procs"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(data), "\n")
	pid, _ := strconv.Atoi(first)
	return pid
}

// ooms is how many times the memory limit killed a process of the run.
func (t *cgroupTree) ooms(group string) int {
	file := filepath.Join(t.dir(group), "app", boot.Events)
	if v1 := t.v1Memory(group); v1 != "" {
		file = filepath.Join(v1, "memory.oom_control")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), " "); key == "oom_kill" {
			n, _ := strconv.Atoi(value)
			return n
		}
	}
	return 0
}

// kill sends SIGKILL to every process of the run at once (cgroup.kill).
func (t *cgroupTree) kill(group string) error {
	err := os.WriteFile(filepath.Join(t.dir(group), "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// names lists the cgroups of boxes.
func (t *cgroupTree) names() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(t.root, t.own))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// remove removes a run's cgroups, which must have no processes left. A
// process that is just ending keeps its cgroup for a moment: remove waits up
// to a second for that.
func (t *cgroupTree) remove(group string) error {
	dir := t.dir(group)
	var dirs []string
	if cpu := t.v1Dir(cgroup1.Cpu, group); cpu != "" {
		dirs = append(dirs, filepath.Join(cpu, "init"), filepath.Join(cpu, "app"))
	}
	dirs = append(append(dirs, t.v1Dirs(group)...), filepath.Join(dir, "init"), filepath.Join(dir, "app"), dir)
	for _, d := range dirs {
		if err := rmdir(d, removePatience); err != nil {
			return fmt.Errorf("remove cgroup: %w", err)
		}
	}
	return nil
}

// removeAll removes the instance's own, empty cgroups.
func (t *cgroupTree) removeAll() error {
	var errs []error
	for _, d := range append(t.v1Dirs(""), filepath.Join(t.root, t.own)) {
		errs = append(errs, rmdir(d, removePatience))
	}
	return errors.Join(errs...)
}

func rmdir(dir string, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		err := unix.Rmdir(dir)
		switch {
		case err == nil || err == unix.ENOENT:
			return nil
		case err != unix.EBUSY || time.Now().After(deadline):
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
