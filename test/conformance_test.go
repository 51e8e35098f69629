package test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"manifold/test/platform"
)

// The commands that must do what they are asked to, in the order they are
// shown: those of level 1 in every generation of the CLI, those of level 2 in
// the newest. "builds" has no command in the newest CLI, whose plugins are
// others: there its endpoints are asked as curl would.
var levels = [2][]string{
	{
		"create", "git:remote", "git push heroku main", "git:clone", "whoami", "stack", "stack:set", "open",
		"ps", "ps:scale", "ps:type", "ps:restart", "ps:restart DYNO", "ps:restart TYPE", "ps:wait",
		"run", "run bash", "run:detached",
		"logs -n", "logs -s", "logs -d", "logs -p", "logs --tail",
		"config", "config:set", "config:get", "config:unset", "config:edit",
		"releases", "releases:info", "rollback", "rollback vN",
		"maintenance", "maintenance:on", "maintenance:off", "apps:rename",
	},
	{
		"apps", "apps:info", "apps:destroy", "ps:stop DYNO", "ps:stop TYPE", "run:inside", "releases:output",
		"domains", "domains:add", "domains:info", "domains:wait", "domains:remove", "domains:clear",
		"drains", "drains:add", "drains:remove",
		"buildpacks", "buildpacks:search", "buildpacks:set", "buildpacks:add", "buildpacks:remove", "buildpacks:clear",
		"features", "features:info", "features:enable", "features:disable", "labs", "labs:info", "labs:enable", "labs:disable",
		"access", "access:add", "access:remove", "keys", "keys:add", "keys:remove", "keys:clear",
		"login", "login -i", "logout", "auth:token", "auth:whoami",
		"authorizations", "authorizations:create", "authorizations:info", "authorizations:update", "authorizations:rotate", "authorizations:revoke",
		"builds: create", "builds: list", "builds: info", "builds: output", "builds: cancel", "builds: cache purge",
		"regions", "addons", "local", "status",
	},
}

// conformance is the table of all that the CLIs were seen to do.
var conformance = struct {
	sync.Mutex
	rows map[string]*row
}{rows: map[string]*row{}}

type row struct {
	checked string
	passed  map[string]bool // by version
}

// claim enters into the table that a CLI of a version was given a command, and
// what was looked at to see that it did it. The row holds if t ends well.
func claim(t *testing.T, version, command, checked string) {
	t.Helper()
	if !slices.Contains(slices.Concat(levels[0], levels[1]), command) {
		t.Errorf("%q has no row in the table of commands", command)
	}
	t.Cleanup(func() {
		conformance.Lock()
		defer conformance.Unlock()
		r := conformance.rows[command]
		if r == nil {
			r = &row{checked: checked, passed: map[string]bool{}}
			conformance.rows[command] = r
		}
		before, known := r.passed[version]
		r.passed[version] = !t.Failed() && (before || !known)
	})
}

// claims is claim of several commands with the newest CLI: command, what was
// checked, command …
func claims(t *testing.T, pairs ...string) {
	t.Helper()
	for pair := range slices.Chunk(pairs, 2) {
		claim(t, platform.HerokuVersions[0], pair[0], pair[1])
	}
}

// conformanceTable shows the table and counts the rows that do not hold. Where
// no test was left out, a row that nobody claimed is one of them.
func conformanceTable() (text string, bad int) {
	conformance.Lock()
	defer conformance.Unlock()
	var b strings.Builder
	versions := platform.HerokuVersions
	fmt.Fprintf(&b, "What heroku CLI %s was seen to do\n", strings.Join(versions, ", "))
	for i, commands := range levels {
		if i == 1 {
			versions = versions[:1]
		}
		fmt.Fprintf(&b, "\n%-24s", fmt.Sprint("Level ", i+1))
		for _, v := range versions {
			major, _, _ := strings.Cut(v, ".")
			fmt.Fprintf(&b, "%-4s", major)
		}
		fmt.Fprintln(&b, "what was checked to have happened")
		held := make([]int, len(versions))
		for _, command := range commands {
			r := conformance.rows[command]
			if r == nil {
				r = &row{}
			}
			fmt.Fprintf(&b, "  %-22s", command)
			for j, v := range versions {
				passed, known := r.passed[v]
				switch {
				case passed:
					held[j]++
				case known || allTests():
					bad++
				}
				fmt.Fprintf(&b, "%-4s", map[[2]bool]string{{true, true}: "yes", {false, true}: "NO", {false, false}: "-"}[[2]bool{passed, known}])
			}
			fmt.Fprintln(&b, r.checked)
		}
		fmt.Fprintf(&b, "  %-22s", fmt.Sprintf("passed of %d", len(commands)))
		for _, n := range held {
			fmt.Fprintf(&b, "%-4d", n)
		}
		fmt.Fprintln(&b)
	}
	return b.String(), bad
}

// allTests says whether every test runs that has rows: all there are, or those
// of make test-cli.
func allTests() bool {
	return flag.Lookup("test.run").Value.String() == "" || os.Getenv("MANIFOLD_TEST_CLIS") != ""
}

// showConformance prints the table and, where no test was left out, keeps it
// beside the transcripts. It returns an error if a row does not hold.
func showConformance() error {
	if len(conformance.rows) == 0 {
		return nil
	}
	text, bad := conformanceTable()
	fmt.Println(text)
	if allTests() {
		dir := filepath.Join(platform.Cache, "transcripts")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "conformance.txt"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d rows of the table of commands do not hold", bad)
	}
	return nil
}
