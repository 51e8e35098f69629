package isolation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A frozen dyno's processes are stopped where they are and do not know: unlike
// SIGSTOP nobody in the dyno sees it, and nobody in it can end it. PID 1 is
// spared, so the log of what was written is kept, and the dyno can be stopped.
//
// The switch is cgroup.freeze of the dyno's cgroup in the v2 tree
// (Documentation/admin-guide/cgroup-v2.rst), which init and app have on v1
// hosts too (hybrid layout). The freezer of cgroup v1 is not used: a process it
// has frozen cannot be killed (freezer-subsystem.rst), so a stop, or the kill
// for too much memory, would wait for the thaw.

// freezePatience bounds the wait for processes that are deep in the kernel.
const freezePatience = 5 * time.Second

// Freeze stops every process of the dyno but PID 1 until Thaw or Stop. It
// returns when they stand still; if they do not within five seconds, or ctx
// ends, they run on and it is an error.
func (b *Box) Freeze(ctx context.Context) error {
	ended := fmt.Errorf("freeze run %s: it has ended", b.record.Run)
	select {
	case <-b.done:
		return ended
	default:
	}
	if err := b.host.cgroups.freeze(b.record.group(), true); err != nil {
		return fmt.Errorf("freeze run %s: %w", b.record.Run, err)
	}
	ctx, cancel := context.WithTimeout(ctx, freezePatience)
	defer cancel()
	for {
		still, err := b.Frozen()
		if still && err == nil {
			return nil
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-b.done:
			return ended
		case <-ctx.Done():
			err = errors.Join(err, b.Thaw())
			return fmt.Errorf("freeze run %s: its processes did not stand still within %s, so they run on: %w",
				b.record.Run, freezePatience, errors.Join(err, ctx.Err()))
		}
	}
}

// Thaw lets a frozen dyno go on. One that is not frozen, or has ended, is none
// of its business.
func (b *Box) Thaw() error {
	err := b.host.cgroups.freeze(b.record.group(), false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("thaw run %s: %w", b.record.Run, err)
	}
	return nil
}

// Frozen says whether the dyno's processes all stand still.
func (b *Box) Frozen() (bool, error) {
	events, err := readKeys(filepath.Join(b.host.cgroups.dir(b.record.group()), "app", "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it has ended
	}
	if err != nil {
		return false, fmt.Errorf("see whether run %s is frozen: %w", b.record.Run, err)
	}
	return events["frozen"] == 1, nil
}

// freeze turns the switch of a run's processes.
func (t *cgroupTree) freeze(group string, on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	return os.WriteFile(filepath.Join(t.dir(group), "app", "cgroup.freeze"), []byte(value), 0)
}
