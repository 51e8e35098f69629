//go:build guest

package guest

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"manifold"
)

// The memory contract on cgroup v2, with the agent as its unit: a dyno lives
// on swap past its quota, with R14; past three times the quota all of it dies
// together, with R15, and is started again; its neighbour keeps its memory.
func TestMemoryContract(t *testing.T) {
	scenario(t, "a dyno grows past 512 MiB and past 1,536, on cgroup v2")
	up(t)
	api(t, http.MethodPatch, "/apps/eater/formation/keep", map[string]int{"quantity": 1}, nil)
	neighbour := awaitDyno(t, "eater", "keep.1", func(d dyno) bool { return d.State == manifold.StateUp })
	eventually(t, "the neighbour's memory", func() bool { return number(t, neighbour, "memory.current") > 64<<20 })
	api(t, http.MethodPatch, "/apps/eater/formation/grow", map[string]int{"quantity": 1}, nil)
	first := awaitDyno(t, "eater", "grow.1", func(d dyno) bool { return d.State == manifold.StateUp })
	t.Cleanup(func() {
		for _, process := range []string{"grow", "keep"} {
			api(t, http.MethodPatch, "/apps/eater/formation/"+process, map[string]int{"quantity": 0}, nil)
		}
		eventually(t, "the end of the eater", func() bool { list, err := ps(); return err == nil && len(list) == 1 })
	})
	var ram, swap int64
	eventually(t, "its life on swap", func() bool {
		ram, swap = max(ram, number(t, first, "memory.current")), max(swap, number(t, first, "memory.swap.current"))
		return swap > 512<<20
	})
	members := processes(first)
	figure(t, "memory contract: alive with up to %d MiB of RAM and %d MiB of swap (memory.current, memory.swap.current), %d processes",
		ram>>20, swap>>20, len(members))
	// The kernel lets single pages pass, such as those it needs to free others.
	if ram > 513<<20 || len(members) < 2 {
		t.Errorf("it has %d bytes of RAM and the processes %v", ram, members)
	}
	second := awaitDyno(t, "eater", "grow.1", func(d dyno) bool { return d.State == manifold.StateUp && d.Run != first.Run })
	for _, pid := range append(members, first.PID) {
		if err := unix.Kill(pid, 0); err != unix.ESRCH {
			t.Errorf("process %d outlived its dyno: %v", pid, err)
		}
	}
	var lines []string
	eventually(t, "its last words and R15 in the log", func() bool { // they come by different ways
		lines = log(t, "eater")
		return slices.ContainsFunc(lines, r15.MatchString) && grown(lines) > 1450
	})
	checkWords(t, lines)
	if kept := number(t, neighbour, "memory.current"); kept < 64<<20 || number(t, neighbour, "memory.swap.current") > 0 {
		t.Errorf("the neighbour has %d bytes of RAM left", kept)
	}
	figure(t, "memory contract: run %.8s died whole, run %.8s took its place; the neighbour has %d MiB of RAM and %d of swap",
		first.Run, second.Run, number(t, neighbour, "memory.current")>>20, number(t, neighbour, "memory.swap.current"))
}

var (
	r14  = regexp.MustCompile(`heroku\[grow\.1\]: Error R14 \(Memory quota exceeded\)`)
	r15  = regexp.MustCompile(`heroku\[grow\.1\]: Error R15 \(Memory quota vastly exceeded\)`)
	used = regexp.MustCompile(`heroku\[grow\.1\]: Process running mem=(\d+)M\((\d+\.\d)%\)`)
	held = regexp.MustCompile(`app\[grow\.1\]: holds (\d+) MiB`)
)

// grown is the most it said it holds, in MiB. Its second life has not come that far.
func grown(lines []string) (most int) {
	for _, line := range lines {
		if m := held.FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[1])
			most = max(most, n)
		}
	}
	return most
}

// checkWords looks at what the dyno's log says of its first life.
func checkWords(t *testing.T, lines []string) {
	t.Helper()
	warned, killed, last := 0, 0, ""
	for _, line := range lines {
		switch {
		case r14.MatchString(line):
			warned++
			figure(t, "memory contract: %s; %s", line, last)
		case r15.MatchString(line):
			killed++
			figure(t, "memory contract: %s; %s", line, last)
		case used.MatchString(line):
			last = line
		}
		if killed > 0 {
			break
		}
	}
	mib, most := 0, grown(lines)
	if m := used.FindStringSubmatch(last); m != nil {
		mib, _ = strconv.Atoi(m[1])
	}
	if warned == 0 || killed != 1 || mib < 1500 || mib > 1560 || most < 1450 || most > 1550 {
		t.Errorf("R14 %d times, R15 %d times at %d MiB, and its own last word was %d MiB, of:\n%s", warned, killed, mib, most, strings.Join(lines, "\n"))
	}
	figure(t, "memory contract: R14 %d times; R15 at %d MiB, its own last word was %d MiB", warned, mib, most)
}

func number(t *testing.T, d dyno, file string) int64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(d.cgroup(), "app", file))
	if err != nil {
		return 0 // it is being restarted
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func processes(d dyno) (pids []int) {
	text, _ := os.ReadFile(filepath.Join(d.cgroup(), "app", "cgroup.procs"))
	for field := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// log returns what the coordinator has of an app's log, without times.
func log(t *testing.T, app string) (lines []string) {
	t.Helper()
	var session struct {
		URL string `json:"logplex_url"`
	}
	api(t, http.MethodPost, fmt.Sprintf("/apps/%s/log-sessions", app), map[string]int{"lines": 1500}, &session)
	res, err := http.Get(session.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, words, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			lines = append(lines, words)
		}
	}
	return lines
}
