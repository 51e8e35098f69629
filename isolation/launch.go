package isolation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"manifold/isolation/boot"
)

// Start builds a box, or takes one that is ready, and starts the app in it.
// When it returns without error the app's first process exists, and nothing of
// it depends on this process any more. On an error nothing is left behind.
func (h *Host) Start(ctx context.Context, spec Spec) (*Box, error) {
	if err := spec.check(); err != nil {
		return nil, fmt.Errorf("start dyno: %w", err)
	}
	fail := func(err error) (*Box, error) { return nil, fmt.Errorf("start dyno %s: %w", spec.Run, err) }
	if _, err := os.Lstat(filepath.Join(h.cfg.Dir, spec.Run)); err == nil {
		return fail(fs.ErrExist)
	}
	s, err := h.spares.take(ctx, spec.Size, spec.Addr)
	if err != nil {
		return fail(err)
	}
	defer s.close()
	if err := h.start(ctx, s, spec); err != nil {
		return fail(errors.Join(err, s.box.Remove()))
	}
	return s.box, nil
}

func (h *Host) start(ctx context.Context, s *spare, spec Spec) error {
	if err := h.name(s.box, spec); err != nil {
		return err
	}
	h.reach("name")
	if err := mapLayers(spec.Layers, s.box.pid); err != nil {
		return err
	}
	h.reach("layers")
	var attached *ends
	var err error
	stdin := spec.Stdin
	if spec.Attach != nil {
		if attached, err = newEnds(*spec.Attach, s.box.record.Slot.appUID(h.cfg)); err != nil {
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
	files := append(append([]*os.File{}, spec.Layers...), stdin)
	if attached != nil {
		msg.Terminal, msg.Output = attached.terminal, attached.terminal == nil
		files = append(files, attached.theirs[len(attached.theirs)-1])
	}
	deadline, err := converse(ctx, s.socket, msg, files)
	h.reach("app")
	if err == nil && attached != nil {
		s.box.attached, err = attached.take(deadline)
	}
	return err
}

// name makes a box the run's: first its record, then the name of its
// directory. A death of this process in between leaves a spare.
func (h *Host) name(b *Box, spec Spec) error {
	spare := b.Dir()
	record := b.record
	record.Run, record.Size = spec.Run, spec.Size
	data, err := json.Marshal(record)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(spare, boxName), data, 0o600); err != nil {
		return err
	}
	h.reach("record")
	if err := unix.Renameat2(unix.AT_FDCWD, spare, unix.AT_FDCWD, filepath.Join(h.cfg.Dir, spec.Run), unix.RENAME_NOREPLACE); err != nil {
		return fmt.Errorf("name the run's directory: %w", err)
	}
	h.give(b.record.Slot, spec.Run)
	b.record = record
	return nil
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
		Run: spec.Run, Argv: spec.Argv, Env: spec.Env, Dir: spec.Dir, Layers: len(spec.Layers),
		Files: []boot.File{
			{Path: "/etc/hostname", Content: spec.Run + "\n"},
			{Path: "/etc/hosts", Content: "127.0.0.1 localhost " + spec.Run + "\n::1 localhost ip6-localhost\n"},
			{Path: "/etc/resolv.conf", Content: resolv.String()},
		},
		Grace: spec.Grace, TTL: spec.TTL, LogLimit: logLimit,
	}
}
