package isolation

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/cgroups/v3/cgroup1"

	"manifold"
)

// weights are what a size's shares are worth, among the dynos of this host,
// when there is not enough for all. CPU time is shared so by every kernel. Disk
// time is by whichever part of it does that, which is a matter of the disk and
// so of the host's owner; the weights are there for it in any case:
//
//	io.weight           v2    heeded where blk-iocost is on for the disk (io.cost.qos)
//	io.bfq.weight       v2    where the disk is scheduled by BFQ
//	blkio.bfq.weight    v1    likewise; what the kernel writes back by itself is on nobody's account
//
// (Documentation/admin-guide/cgroup-v2.rst, "CPU" and "IO"; Documentation/block/bfq-iosched.rst.)
var weights = []struct {
	controller cgroup1.Name
	file       string
	share      int // what one share is worth
	most       int // that the kernel takes
}{
	{cgroup1.Cpu, "cpu.weight", 100, 10_000},
	{cgroup1.Cpu, "cpu.shares", 1024, 262_144},
	{cgroup1.Blkio, "io.weight", 100, 10_000},
	{cgroup1.Blkio, "io.bfq.weight", 10, 1000},
	{cgroup1.Blkio, "blkio.bfq.weight", 10, 1000},
}

// capPeriod is in which time a cap on CPU time is counted, in microseconds;
// the kernel's default.
const capPeriod = 100_000

// share gives a run's cgroup what its size's shares are worth: weights, and
// the cap if there is one.
func (t *cgroupTree) share(group string, size manifold.Size) error {
	for _, w := range weights {
		if dir := t.controllerDir(w.controller, group); dir != "" {
			if err := writeIfThere(filepath.Join(dir, w.file), strconv.Itoa(min(w.share*size.Shares, w.most))); err != nil {
				return err
			}
		}
	}
	if t.cpuCap == 0 {
		return nil
	}
	quota, cpu := strconv.Itoa(int(t.cpuCap*float64(size.Shares)*capPeriod)), t.controllerDir(cgroup1.Cpu, group)
	if len(t.v1) > 0 {
		return os.WriteFile(filepath.Join(cpu, "cpu.cfs_quota_us"), []byte(quota), 0)
	}
	return os.WriteFile(filepath.Join(cpu, "cpu.max"), []byte(quota), 0)
}

// controllerDir is the run's directory where a controller's files are, or "".
func (t *cgroupTree) controllerDir(name cgroup1.Name, group string) string {
	if len(t.v1) > 0 {
		return t.v1Dir(name, group)
	}
	return t.dir(group)
}

// writeIfThere leaves out what this kernel does not have.
func writeIfThere(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = f.WriteString(value)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("set %s: %w", filepath.Base(file), err)
	}
	return nil
}
