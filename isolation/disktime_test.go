package isolation_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"manifold/isolation"
)

// TestDiskTime: whether the disk below the dynos heeds their weights is told
// by what schedules it.
func TestDiskTime(t *testing.T) {
	r := newRig(t)
	above := filepath.Dir(r.cfg.Dir)
	dir, image := filepath.Join(above, "disk"), filepath.Join(above, "disk.img")
	command := func(line string) string {
		t.Helper()
		args := strings.Fields(line)
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	command("mkdir " + dir)
	command("mke2fs -q -t ext4 " + image + " 16M")
	loop := command("losetup -f --show " + image)
	t.Cleanup(func() { command("losetup -d " + loop) })
	command("mount " + loop + " " + dir)
	t.Cleanup(func() { command("umount " + dir) })

	cfg, name := r.cfg, filepath.Base(loop)
	cfg.Dir = dir
	for scheduler, want := range map[string]string{"none": "disk " + name + " is not scheduled by bfq", "bfq": ""} {
		if err := os.WriteFile("/sys/block/"+name+"/queue/scheduler", []byte(scheduler), 0); err != nil {
			t.Fatal(err)
		}
		traces, err := isolation.FindTraces(cfg)
		if err != nil || traces.Unshared != want {
			t.Errorf("scheduled by %s it is told %q, want %q (%v)", scheduler, traces.Unshared, want, err)
		}
	}
}
