package onemachine

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/nftables"

	"manifold"
)

// goneWithin is how long the kernel may take for what it removes by itself: a
// loop device goes with its last user, and a host has those who look into every
// device for a moment.
const goneWithin = 10 * time.Second

// remains are the leftovers that stay.
func remains(s manifold.Settings, patience time.Duration) []string {
	for until := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if left := leftovers(s); len(left) == 0 || time.Now().After(until) {
			return left
		}
	}
}

// leftovers looks for everything that may carry our mark outside
// $MANIFOLD_HOME and returns a line for each find. It removes nothing: the
// agent does that, and what it could not remove a person should see.
func leftovers(s manifold.Settings) []string {
	var left []string
	add := func(format string, args ...any) { left = append(left, fmt.Sprintf(format, args...)) }

	for _, name := range []string{"coordinator", "router", "agent"} {
		if _, err := os.Stat(recordPath(s, name)); err == nil {
			add("process: %s still has its record %s", name, recordPath(s, name))
		}
	}
	err := eachMount(func(point, fstype, _ string) {
		for _, dir := range []string{s.Home, s.Run} {
			if strings.HasPrefix(point, dir+"/") {
				add("mount: %s (%s)", point, fstype)
			}
		}
	})
	if err != nil {
		add("mounts: %v", err)
	}
	for _, file := range loopFiles() {
		if strings.HasPrefix(file, s.Home+"/") {
			add("loop device: on %s", file)
		}
	}
	for _, dir := range cgroupsNamed(s.Instance) {
		procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		add("cgroup: %s (processes: %s)", dir, strings.Join(strings.Fields(string(procs)), " "))
	}
	links, err := net.Interfaces()
	if err != nil {
		add("links: %v", err)
	}
	for _, link := range links {
		if strings.HasPrefix(link.Name, s.Instance+"-") {
			add("link: %s", link.Name)
		}
	}
	tables, err := listTables()
	if err != nil {
		add("nftables: %v", err)
	}
	for _, table := range tables {
		if table == s.Instance {
			add("nftables table: %s", table)
		}
	}
	return left
}

// loopFiles lists what loop devices stand on.
func loopFiles() []string {
	paths, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var files []string
	for _, path := range paths {
		if text, err := os.ReadFile(path); err == nil { // else it was let go just now
			files = append(files, strings.TrimSpace(string(text)))
		}
	}
	return files
}

// cgroupsNamed finds our root in every hierarchy.
func cgroupsNamed(name string) []string {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil, !d.IsDir():
			return nil // other people's cgroups come and go
		case d.Name() == name:
			found = append(found, path)
			return fs.SkipDir
		}
		return nil
	})
	return found
}

func listTables() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := conn.ListTables()
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.Name
	}
	return names, err
}

func leftoverError(left []string) error {
	return fmt.Errorf("stopped, but this is left on the machine:\n  - %s\nthe end of agent.log says why; the next `manifold run` takes it up again", strings.Join(left, "\n  - "))
}
