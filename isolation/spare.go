package isolation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"manifold"
	"manifold/isolation/boot"
)

// spare is a box without a run: everything of it is there but what depends on
// what it will run, and its PID 1 waits for that. Nearly all of a start's time
// goes into making one. Its directory is named after its slot; it ends with
// the process that made it, and the next one takes away what it left.
type spare struct {
	box    *Box
	socket *net.UnixConn // to PID 1
}

const sparePrefix = "spare-"

func (s slot) spareName() string { return sparePrefix + s.String() }

// close lets go of PID 1: one that has nothing to run then ends.
func (s *spare) close() { s.socket.Close() }

// makeSpare makes a box for a dyno of that size. On an error nothing is left.
func (h *Host) makeSpare(ctx context.Context, size manifold.Size) (*spare, error) {
	n, err := h.take()
	if err != nil {
		return nil, err
	}
	return h.makeSpareIn(ctx, n, size)
}

// makeSpareIn makes it in a slot that was taken for it.
func (h *Host) makeSpareIn(ctx context.Context, n slot, size manifold.Size) (*spare, error) {
	b := h.box(boxRecord{Run: n.spareName(), Slot: n, Size: size, Cgroup: n.String()})
	if err := os.Mkdir(b.Dir(), 0o700); err != nil { // what is there already is not ours to remove
		h.release(n, b.record.Run)
		return nil, err
	}
	s := &spare{box: b}
	if err := h.build(ctx, s); err != nil {
		if s.socket != nil {
			s.close()
		}
		return nil, errors.Join(err, b.Remove())
	}
	return s, nil
}

func (h *Host) build(ctx context.Context, s *spare) error {
	h.reach("directory")
	b := s.box
	scratch, dir, err := h.prepare(b)
	if err != nil {
		return err
	}
	defer scratch.Close()
	defer dir.Close()
	h.reach("scratch")
	group, err := h.cgroups.create(b.record.Cgroup, b.record.Size)
	if err != nil {
		return err
	}
	defer group.close()
	h.reach("cgroups")

	process, socket, err := h.clone(b)
	if err != nil {
		return err
	}
	s.socket = socket
	h.reach("clone")
	if err := b.watch(process.Pid, process); err != nil {
		_ = process.Kill()
		_, _ = process.Wait()
		return err
	}
	if err := h.cgroups.placeInit(b.record.Cgroup, process.Pid); err != nil {
		return fmt.Errorf("place PID 1: %w", err)
	}
	if err := dieFirst(process.Pid); err != nil {
		return err
	}
	if err := h.cfg.connect(b.record.Slot, process.Pid); err != nil {
		return err
	}
	h.reach("link")
	size := b.record.Size
	msg := boot.Box{
		Procs: len(group.procs), Memory: size.Memory,
		Place: boot.Place{UID: manifold.DynoUID, Processes: size.Processes, OpenFiles: size.Files, Filter: h.filter},
	}
	files := append([]*os.File{scratch, dir}, group.procs...)
	for _, f := range group.stats {
		msg.Stats = append(msg.Stats, filepath.Base(f.Name()))
		files = append(files, f)
	}
	if group.ooms != nil {
		msg.OOMs = true
		files = append(files, group.ooms)
	}
	_, err = converse(ctx, socket, msg, files)
	h.reach("spare")
	return err
}

// prepare fills the box's directory.
func (h *Host) prepare(b *Box) (scratch, dir *os.File, err error) {
	owner := b.record.Slot.uid(h.cfg)
	path := filepath.Join(b.Dir(), pid1Name)
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, nil, err
	}
	if err := os.Chown(path, owner, owner); err != nil {
		return nil, nil, err
	}
	if dir, err = os.Open(path); err != nil {
		return nil, nil, err
	}
	if scratch, err = h.newScratch(b.Dir(), b.record.Size, owner); err != nil {
		dir.Close()
		return nil, nil, err
	}
	return scratch, dir, nil
}

// dyingFirst is how much likelier than others a dyno's processes are to be
// killed when the whole host is out of memory: half of it counts as theirs.
const dyingFirst = "500"

// dieFirst has the kernel kill dynos, the largest first, before the daemons
// that serve all of them (proc_pid_oom_score_adj(5)). PID 1 and the app
// inherit it, and cannot take it back where the agent has CAP_SYS_RESOURCE.
func dieFirst(pid int) error {
	if err := os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(dyingFirst), 0); err != nil {
		return fmt.Errorf("have the dyno die before the host's daemons: %w", err)
	}
	return nil
}

// clone starts PID 1 in its namespaces and its cgroup. The cgroup namespace
// is not among them: it would begin at this process's cgroup; the app makes
// its own when it is in place.
func (h *Host) clone(b *Box) (*os.Process, *net.UnixConn, error) {
	conn, theirs, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	cgroup, err := os.Open(filepath.Join(h.cgroups.dir(b.record.Cgroup), "init"))
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	defer cgroup.Close()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: b.record.Slot.uid(h.cfg), Size: idsPerSlot}}
	cmd := &exec.Cmd{
		Path:       "/proc/self/fd/4",
		Args:       []string{"manifold-pid1"},
		Env:        []string{"GOMAXPROCS=1", "GOGC=50"},
		Dir:        "/",
		ExtraFiles: []*os.File{theirs, h.launcher}, // boot.FD and the one above it
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
				unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
			UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
			Credential:  &syscall.Credential{}, // the host's root has no id in there: become theirs
			UseCgroupFD: true, CgroupFD: int(cgroup.Fd()),
			Setsid: true, // a terminal's Ctrl-C is for the agent, not for dynos
		},
	}
	// One at a time: a clone waits for its id maps on a pipe, and two at once
	// would each hold the other's open. If this process died then, neither
	// would end, and both would keep all its locks.
	h.cloning.Lock()
	err = cmd.Start()
	h.cloning.Unlock()
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("clone into new namespaces: %w", err)
	}
	return cmd.Process, conn, nil
}

// spareSlots are the slots of the spare boxes that have a directory.
func (h *Host) spareSlots() (slots []slot) {
	dirs, _ := filepath.Glob(filepath.Join(h.cfg.Dir, sparePrefix+"*"))
	for _, dir := range dirs {
		if s, err := parseSlot(strings.TrimPrefix(filepath.Base(dir), sparePrefix)); err == nil {
			slots = append(slots, s)
		}
	}
	return slots
}

// sweep removes the spares of a process before this one. Their PID 1s have
// ended with it, or will at once.
func (h *Host) sweep() error {
	for _, s := range h.spareSlots() {
		b := h.box(boxRecord{Run: s.spareName(), Slot: s, Cgroup: s.String()})
		if err := b.find(); err != nil {
			return fmt.Errorf("remove a spare box: %w", err)
		}
		if err := b.Remove(); err != nil {
			return err
		}
	}
	return nil
}
