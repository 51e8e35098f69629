package isolation

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"manifold"
	"manifold/isolation/boot"
)

// launchTimeout bounds the time PID 1 may take to start the app.
const launchTimeout = 30 * time.Second

// Start builds a box and starts the app in it. When it returns without error
// the app's first process exists, and nothing of it depends on this process
// any more. On an error nothing is left behind.
func (h *Host) Start(ctx context.Context, spec Spec) (*Box, error) {
	if err := spec.check(); err != nil {
		return nil, fmt.Errorf("start dyno: %w", err)
	}
	s, err := h.take(spec.Run, spec.Addr)
	if err != nil {
		return nil, err
	}
	b := h.box(boxRecord{Run: spec.Run, Slot: s, Size: spec.Size})
	if err := os.Mkdir(b.Dir(), 0o700); err != nil { // the run's, or nobody's: whose it is must not be removed
		h.release(s, spec.Run)
		return nil, fmt.Errorf("start dyno %s: %w", spec.Run, err)
	}
	if err := h.start(ctx, b, spec); err != nil {
		return nil, errors.Join(fmt.Errorf("start dyno %s: %w", spec.Run, err), b.Remove())
	}
	return b, nil
}

func (h *Host) start(ctx context.Context, b *Box, spec Spec) error {
	h.reach("directory")
	scratch, dir, err := h.prepare(b)
	if err != nil {
		return err
	}
	defer scratch.Close()
	defer dir.Close()
	h.reach("scratch")
	group, err := h.cgroups.create(b.record.Run, b.record.Size)
	if err != nil {
		return err
	}
	defer group.close()
	h.reach("cgroups")

	process, socket, err := h.clone(b)
	if err != nil {
		return err
	}
	defer socket.Close()
	h.reach("clone")
	if err := b.watch(process.Pid, process); err != nil {
		_ = process.Kill()
		_, _ = process.Wait()
		return err
	}
	if err := h.cgroups.placeInit(b.record.Run, process.Pid); err != nil {
		return fmt.Errorf("place PID 1: %w", err)
	}
	if err := h.cfg.connect(b.record.Slot, process.Pid); err != nil {
		return err
	}
	h.reach("link")
	if err := mapLayers(spec.Layers, process.Pid); err != nil {
		return err
	}
	h.reach("layers")
	var attached *ends
	stdin := spec.Stdin
	if spec.Attach != nil {
		if attached, err = newEnds(*spec.Attach, b.record.Slot.appUID(h.cfg)); err != nil {
			return err
		}
		defer attached.close()
		if !spec.Attach.Terminal {
			stdin = attached.theirs[0]
		}
	}
	if stdin == nil {
		if stdin, err = os.Open(os.DevNull); err != nil {
			return err
		}
		defer stdin.Close()
	}
	msg := h.message(spec)
	files := append(append([]*os.File{}, spec.Layers...), scratch, dir, stdin)
	files = append(append(files, group.procs...), group.stats...)
	msg.Layers, msg.Procs = len(spec.Layers), len(group.procs)
	for _, f := range group.stats {
		msg.Stats = append(msg.Stats, filepath.Base(f.Name()))
	}
	if group.ooms != nil {
		msg.OOMs = true
		files = append(files, group.ooms)
	}
	if attached != nil {
		msg.Terminal, msg.Output = attached.terminal, attached.terminal == nil
		files = append(files, attached.theirs[len(attached.theirs)-1])
	}
	deadline, err := converse(ctx, socket, msg, files)
	h.reach("app")
	if err == nil && attached != nil {
		b.attached, err = attached.take(deadline)
	}
	return err
}

// prepare fills the run's directory. box.json comes first: a death of this
// process at any point leaves a run that Boxes finds.
func (h *Host) prepare(b *Box) (scratch, dir *os.File, err error) {
	data, err := json.Marshal(b.record)
	if err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(filepath.Join(b.Dir(), boxName), data, 0o600); err != nil {
		return nil, nil, err
	}
	h.reach("record")
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

// clone starts PID 1 in its namespaces and its cgroup. The cgroup namespace
// is not among them: it would begin at this process's cgroup; the app makes
// its own when it is in place.
func (h *Host) clone(b *Box) (*os.Process, *net.UnixConn, error) {
	conn, theirs, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	cgroup, err := os.Open(filepath.Join(h.cgroups.dir(b.record.Run), "init"))
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

// mapLayers gives each layer's mount the ids of the process's user namespace:
// files of root in an image belong to root in the dyno (mount_setattr(2),
// MOUNT_ATTR_IDMAP). A mount takes ids once, which is why it is one start's;
// it is not cloned here since kernels before 6.15 do not clone what is mounted
// nowhere (open_tree(2)).
func mapLayers(layers []*os.File, pid int) error {
	userns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/user")
	if err != nil {
		return fmt.Errorf("open user namespace: %w", err)
	}
	defer userns.Close()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())}
	for i, layer := range layers {
		if err := unix.MountSetattr(int(layer.Fd()), "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fmt.Errorf("map ids of layer %d: %w", i, err)
		}
	}
	return nil
}

func (h *Host) message(spec Spec) boot.Message {
	var resolv strings.Builder
	// Name servers lose questions under load: ask again soon, and more often
	// than resolv.conf(5)'s twice within ten seconds.
	resolv.WriteString("options timeout:2 attempts:5\n")
	for _, r := range h.cfg.Resolvers {
		fmt.Fprintf(&resolv, "nameserver %s\n", r)
	}
	logLimit := spec.LogLimit
	if logLimit == 0 {
		logLimit = DefaultLogLimit
	}
	return boot.Message{
		Run: spec.Run, Argv: spec.Argv, Env: spec.Env, Dir: spec.Dir, UID: manifold.DynoUID,
		Files: []boot.File{
			{Path: "/etc/hostname", Content: spec.Run + "\n"},
			{Path: "/etc/hosts", Content: "127.0.0.1 localhost " + spec.Run + "\n::1 localhost ip6-localhost\n"},
			{Path: "/etc/resolv.conf", Content: resolv.String()},
		},
		Filter:    h.filter,
		Processes: spec.Size.Processes, OpenFiles: spec.Size.Files, Memory: spec.Size.Memory,
		Grace: spec.Grace, TTL: spec.TTL, LogLimit: logLimit,
	}
}

// converse sends PID 1 its message and waits for its answer, at the latest
// until deadline.
func converse(ctx context.Context, socket *net.UnixConn, msg boot.Message, files []*os.File) (deadline time.Time, err error) {
	body, err := encode(msg)
	if err != nil {
		return deadline, err
	}
	deadline, done, err := bound(ctx, socket)
	if err != nil {
		return deadline, err
	}
	defer done()
	err = send(socket, body, files)
	// A PID 1 that refused before it read everything has left its answer.
	answer, readErr := io.ReadAll(io.LimitReader(socket, 4096))
	switch err = errors.Join(err, readErr); {
	case err != nil && len(answer) == 0:
		err = fmt.Errorf("talk to PID 1: %w", errors.Join(context.Cause(ctx), err))
	case string(answer) == boot.Started:
		err = nil
	case len(answer) == 0:
		err = errors.New("PID 1 died without a word")
	default:
		err = errors.New(string(answer))
	}
	return deadline, err
}

// bound gives a conversation with PID 1 launchTimeout, or what ctx leaves of it.
func bound(ctx context.Context, socket *net.UnixConn) (deadline time.Time, done func() bool, err error) {
	deadline = time.Now().Add(launchTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := socket.SetDeadline(deadline); err != nil {
		return deadline, nil, err
	}
	return deadline, context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Now()) }), nil
}

// encode is a message as boot.Message says, without its descriptors.
func encode(msg any) ([]byte, error) {
	body, err := json.Marshal(msg)
	if err == nil && len(body) > boot.MaxMessage {
		err = fmt.Errorf("command and environment are %d bytes; at most %d fit", len(body), boot.MaxMessage)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...), err
}

// send writes a message with its descriptors beside the first byte.
func send(socket *net.UnixConn, msg []byte, files []*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	n, _, err := socket.WriteMsgUnix(msg, unix.UnixRights(fds...), nil)
	if err != nil {
		return err
	}
	_, err = socket.Write(msg[n:])
	return err
}
