package isolation

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup1"
	"golang.org/x/sys/unix"
)

// unshared says why the disks that hold the dynos are not shared by weight, or
// "". Filesystems that do not name their disk are taken for shared: there is
// nothing to advise.
func (t *cgroupTree) unshared(dir string) string {
	if len(t.v1) == 0 && !t.io || len(t.v1) > 0 && t.controllerDir(cgroup1.Blkio, "") == "" {
		return "there is no cgroup controller io (blkio on v1)"
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return ""
	}
	for _, disk := range disksOf(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))) {
		if text, err := readSmall(filepath.Join(disk, "queue/scheduler")); err != nil || strings.Contains(text, "[bfq]") {
			continue
		}
		number, _ := readSmall(filepath.Join(disk, "dev"))
		costs, _ := readSmall(filepath.Join(t.root, "io.cost.qos"))
		if !slices.ContainsFunc(strings.Split(costs, "\n"), func(line string) bool {
			return strings.HasPrefix(line, strings.TrimSpace(number)+" ") && strings.Contains(line, " enable=1")
		}) {
			return fmt.Sprintf("disk %s is not scheduled by bfq", filepath.Base(disk))
		}
	}
	return ""
}

// disksOf follows a block device in sysfs to the disks it is on: a partition
// to its disk, a volume or an array to each of its parts.
func disksOf(device string) (disks []string) {
	path, err := filepath.EvalSymlinks(device)
	if err != nil {
		return nil // a filesystem without a disk of its own
	}
	if exists(filepath.Join(path, "partition")) {
		path = filepath.Dir(path)
	}
	parts, _ := filepath.Glob(filepath.Join(path, "slaves/*"))
	if len(parts) == 0 {
		return []string{path}
	}
	for _, part := range parts {
		disks = append(disks, disksOf(part)...)
	}
	return disks
}
