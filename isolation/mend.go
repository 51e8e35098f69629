package isolation

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Mending is one thing of ours to put right on a host. Each looks again at
// what it touches: what does not carry the instance's mark is refused.
type Mending struct {
	What MendKind
	Name string // run, link, device or mount point
}

// MendKind says what is put right.
type MendKind string

// What can be put right.
const (
	MendRun      MendKind = "run"      // take away what is left of it: processes, link, cgroups, directory
	MendLink     MendKind = "link"     // remove one that belongs to no run
	MendLoop     MendKind = "loop"     // free a device whose run is gone
	MendMount    MendKind = "mount"    // unmount what is below the directory of runs
	MendFirewall MendKind = "firewall" // load our table anew
	MendFreeze   MendKind = "freeze"   // thaw a run
)

// ErrNotOurs is Mend's answer where the mark is missing.
var ErrNotOurs = errors.New("it does not carry this instance's mark, so it is left alone")

// Mend puts one thing right. Like FindTraces it needs no Host; that nobody
// needs what it takes away is the caller's to know.
func Mend(cfg Config, m Mending) error {
	h, err := bare(cfg)
	if err != nil {
		return err
	}
	switch m.What {
	case MendRun:
		err = h.mendRun(m.Name)
	case MendLink:
		err = h.mendLink(m.Name)
	case MendLoop:
		err = cfg.mendLoop(m.Name)
	case MendMount:
		err = cfg.mendMount(m.Name)
	case MendFirewall:
		err = cfg.applyFirewall()
	case MendFreeze:
		err = h.mendFreeze(filepath.Base(m.Name))
	default:
		err = ErrNotOurs
	}
	if err != nil {
		return fmt.Errorf("mend %s %s: %w", m.What, m.Name, err)
	}
	return nil
}

func (h *Host) mendRun(run string) error {
	boxes, err := h.Boxes()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(boxes, func(b *Box) bool { return b.record.Run == run })
	if i < 0 {
		return nil // gone meanwhile
	}
	b := boxes[i]
	for _, other := range boxes {
		switch {
		case other == b:
		case other.record.group() == b.record.group(): // and the processes are, too
			return os.RemoveAll(b.Dir())
		case other.record.Slot == b.record.Slot:
			b.record.Slot = -1 // the link is the other's
		}
	}
	return b.Remove()
}

func (h *Host) mendFreeze(run string) error {
	record, err := h.readRecord(run)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // gone meanwhile
	}
	if err != nil {
		return err
	}
	return h.box(record).Thaw()
}

func (h *Host) mendLink(name string) error {
	links, err := h.cfg.linkTraces()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(links, func(l LinkTrace) bool { return l.Name == name })
	if i < 0 {
		return nil
	}
	s := slot(links[i].Slot)
	if err := h.findSlots(); err != nil {
		return err
	}
	if _, used := h.used[s]; s < 0 || used {
		return ErrNotOurs
	}
	return h.cfg.disconnect(s)
}

func (cfg Config) mendLoop(device string) error {
	if !slices.ContainsFunc(loopsBelow(cfg.Dir), func(l LoopTrace) bool { return l.Device == device }) {
		return ErrNotOurs
	}
	loop, err := os.Open(device)
	if err != nil {
		return err
	}
	defer loop.Close()
	if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return err
	}
	return nil
}

func (cfg Config) mendMount(point string) error {
	mounts, err := mountsBelow(cfg.Dir)
	if err != nil {
		return err
	}
	if !slices.Contains(mounts, point) {
		return ErrNotOurs
	}
	return unix.Unmount(point, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
}
