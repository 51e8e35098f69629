//go:build guest

package guest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"manifold"
)

func TestPackageIsWhole(t *testing.T) {
	scenario(t, "dpkg -i one.deb; dpkg --verify manifold")
	run(t, "dpkg", "--verify", "manifold") // the guest has no /usr/share/doc, which it does not hold against us
	for _, path := range []string{"/usr/share/bash-completion/completions/manifold", "/usr/lib/sysusers.d/manifold.conf", "/etc/manifold/agent.env"} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if group := run(t, "getent", "group", "manifold"); !strings.HasSuffix(group, ":") {
		t.Errorf("the group has members: %s", group)
	}
}

// After the host has started anew, with a coordinator that does not, the agent
// starts what it last knew and the router routes to it. When the coordinator
// comes, it finds all as it should be. The host was rebooted before this test,
// see runs in test/vm.
func TestReboot(t *testing.T) {
	scenario(t, "systemctl disable manifold-coordinator; systemctl reboot")
	d := awaitDyno(t, "hello", "web.1", func(d dyno) bool { return d.State == manifold.StateUp })
	eventually(t, "the router", func() bool { return property(t, "manifold-router", "ActiveState") == "active" })
	eventually(t, "the new run's answer", func() bool { return ask() == nil })
	if state := property(t, "manifold-coordinator", "ActiveState"); state != "inactive" {
		t.Errorf("the coordinator is %s", state)
	}
	uptime, _ := os.ReadFile("/proc/uptime")
	figure(t, "the dyno is up and routed without a coordinator %.4s s after the kernel began", uptime)
	run(t, "systemctl", "enable", "--now", "manifold-coordinator")
	eventually(t, "the coordinator's answer", func() bool {
		return property(t, "manifold-agent", "StatusText") == "dynos: 1 up; the coordinator answers"
	})
	if now := up(t); now.Run != d.Run || now.PID != d.PID {
		t.Errorf("with the coordinator %+v became %+v", d, now)
	}
}

// What was installed, enabled, started and deployed goes without a trace.
func TestPurge(t *testing.T) {
	scenario(t, "dpkg --remove manifold; dpkg --purge manifold")
	d := up(t)
	run(t, "dpkg", "--remove", "manifold")
	// Whoever started it has ended as well: init reaps it, in its own time.
	eventually(t, "the end of the dyno", func() bool { return unix.Kill(d.PID, 0) == unix.ESRCH })
	if _, err := os.Stat(home + "/coordinator"); err != nil {
		t.Errorf("a removal that is no purge took the state: %v", err)
	}
	run(t, "dpkg", "--purge", "manifold")
	for what, command := range map[string]string{
		"processes":       "pgrep -af manifold- | grep -v -e pgrep -e tests/manifold-",
		"units":           "systemctl list-units --all --no-legend 'manifold*' | grep -v not-found",
		"files":           "find / -xdev -path /work -prune -o -path /proc -prune -o -iname '*manifold*' -print 2>/dev/null | grep -v ^/var/log/journal",
		"dpkg's memory":   "dpkg-query -s manifold 2>/dev/null",
		"a group":         "getent group manifold",
		"links":           "ip -o link | grep manifold",
		"firewall tables": "nft list tables | grep manifold",
		"cgroups":         "find /sys/fs/cgroup -name '*manifold*'",
		"mounts":          "findmnt -rn | grep manifold",
		"loop devices":    "losetup -ln | grep manifold",
	} {
		var left []byte
		look := func() bool {
			left, _ = exec.Command("sh", "-c", command).Output()
			return len(left) == 0
		}
		// udev and the kernel let go of some of it a moment later.
		for deadline := time.Now().Add(patience); !look() && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		}
		if len(left) > 0 {
			t.Errorf("%s are left:\n%s", what, left)
		}
	}
}
