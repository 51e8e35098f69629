package hostile

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"manifold/test/platform"
)

// needSwap adds a swap file for the time of the test: what is there may be
// somebody's for a while only.
func (a *arena) needSwap() {
	a.t.Helper()
	const need = 1024 << 20
	file := filepath.Join(a.t.TempDir(), "swap")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		a.t.Fatal(err)
	}
	for _, command := range []string{fmt.Sprintf("fallocate -l %d %s", need+64<<20, file), "mkswap -q " + file, "swapon " + file} {
		args := strings.Fields(command)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			a.t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	a.t.Cleanup(func() {
		if out, err := exec.Command("swapoff", file).CombinedOutput(); err != nil {
			a.t.Errorf("swapoff: %v: %s", err, out)
		}
	})
}

// memoryContract follows a program that grows 10 MiB a step: past its quota it
// lives on swap and its log says R14 at each sample, at three times the quota
// it dies of R15, and it is started again.
func (a *arena) memoryContract() {
	a.t.Helper()
	a.needSwap()
	a.scale(a.attacker, "memory-steps", 1)
	x := attack{mode: "memory-steps", expect: slices.Concat(
		platformSays("memory-steps.1", memory, `Process running mem=(69|70)[0-9]M\(13[5-8]\.[0-9]%\)`, `Error R14 \(Memory quota exceeded\)`),
		oom("memory-steps"),
		platformSays("memory-steps.1", memory, "State changed from crashed to starting"),
	)}
	var log []string
	platform.Eventually(a.t, 3*time.Minute, func() error {
		log = a.Log(a.t, a.attacker)
		if missing := x.missing(log, true); len(missing) > 0 {
			said := slices.DeleteFunc(slices.Clone(log), func(line string) bool { return strings.Contains(line, ": holds ") })
			return fmt.Errorf("its log does not say %q but\n%s", missing, strings.Join(said, "\n"))
		}
		return nil
	})
	warnings, most := 0, 0
	for _, line := range log {
		var holds int
		if n, _ := fmt.Sscanf(line, "app[memory-steps.1]: holds %d MiB", &holds); n == 1 {
			most = max(most, holds)
		}
		if line == "heroku[memory-steps.1]: Error R14 (Memory quota exceeded)" {
			warnings++
		}
	}
	if most < 1480 || most > 1550 {
		a.t.Errorf("it held %d MiB at most", most)
	}
	if warnings < 2 {
		a.t.Errorf("it rested over its quota for 45 s, and was warned %d times", warnings)
	}
	status, body, err := a.Visit(a.neighbour, "/memory")
	a.t.Logf("it held %d MiB, %d R14, the neighbour's memory afterwards: %q", most, warnings, body)
	if err != nil || status != 200 || !strings.Contains(body, "VmSwap:	       0 kB") {
		a.t.Errorf("the neighbour lost memory: %d %q %v", status, body, err)
	}
	a.scale(a.attacker, "memory-steps", 0)
	platform.Eventually(a.t, deadline, func() error { return a.gone("") })
}
