package platform

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// NothingLeft fails the test if anything of the instance is left. What the
// host's init has to reap gets its time.
func (p *Instance) NothingLeft(t testing.TB) {
	t.Helper()
	var left []string
	for began := time.Now(); time.Since(began) < time.Minute; <-time.After(100 * time.Millisecond) {
		if left = p.Leftovers(); len(left) == 0 {
			return
		}
	}
	t.Errorf("left on the machine: %q", left)
}

// Leftovers looks with the host's own tools for anything that carries the
// instance's mark.
func (p *Instance) Leftovers() (left []string) {
	find := func(what, mark, command string, args ...string) {
		out, err := exec.Command(command, args...).CombinedOutput()
		if err != nil {
			left = append(left, fmt.Sprintf("%s: %v: %s", what, err, out))
			return
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, mark) {
				left = append(left, what+": "+strings.TrimSpace(line))
			}
		}
	}
	find("mount", p.Dir+"/", "findmnt", "-rno", "TARGET,SOURCE,FSTYPE")
	find("loop device", p.Dir+"/", "losetup", "-nl", "-O", "NAME,BACK-FILE")
	find("link", " "+p.Name+"-", "ip", "-o", "link")
	find("address", " "+p.Name+"-", "ip", "-o", "addr")
	find("route", fmt.Sprintf("10.%d.", 128+p.number), "ip", "route", "show", "table", "all")
	find("rule", " "+p.Name+" ", "nft", "list", "ruleset")
	find("cgroup", "/"+p.Name, "find", "/sys/fs/cgroup", "-ignore_readdir_race", "-type", "d", "-name", p.Name)
	// What ps shows: daemons by MANIFOLD_HOME in their environment, dynos by
	// the user ids that belong to this instance.
	find("process", "MANIFOLD_HOME="+p.Home+" ", "ps", "-eww", "-o", "pid,args", "e")
	out, err := exec.Command("ps", "-eo", "uid,pid,args").CombinedOutput()
	if err != nil {
		left = append(left, err.Error())
	}
	for line := range strings.Lines(string(out)) {
		var uid int
		if _, err := fmt.Sscan(line, &uid); err == nil && p.owns(uid) {
			left = append(left, "dyno's process: "+strings.TrimSpace(line))
		}
	}
	return left
}

// owns says whether a user id is of one of the instance's dynos.
func (p *Instance) owns(uid int) bool {
	base := uidBase + p.number*uidRange
	return base <= uid && uid < base+uidRange
}

func logFiles(p *Instance) []string {
	paths, _ := filepath.Glob(filepath.Join(p.Home, "log", "*.log"))
	return paths
}
