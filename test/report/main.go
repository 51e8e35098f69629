// Command report reads what `go test -json` writes and says what a person
// wants to know: each package with its tests and time, what tests measured,
// every failure with its output, and at the end the totals and the failures
// once more. It fails when a test failed, was skipped, or when nothing ran at
// all: a green line must mean that everything was tried.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// event is one line of test2json (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output
	Test       string
	Output     string
	Elapsed    float64
}

// tally counts tests, subtests among them.
type tally struct{ passed, failed, skipped int }

type report struct {
	out      io.Writer
	kernel   []string // packages whose tests work on the kernel, as root; those below them, too
	live     string   // package whose tests are shown as they end; those below it, too
	total    tally
	onKernel tally
	packages map[string]*tally
	begun    map[string]bool     // packages that did not end yet
	output   map[string][]string // by package and test, until it ended
	failures []string
	broken   bool
}

func main() {
	kernel := flag.String("kernel", "", "packages whose tests need root and the kernel, by comma")
	live := flag.String("live", "", "package whose tests are shown as they end")
	flag.Parse()
	r := &report{
		out: os.Stdout, kernel: strings.Split(*kernel, ","), live: *live,
		packages: map[string]*tally{}, begun: map[string]bool{}, output: map[string][]string{},
	}
	began := time.Now()
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	if !r.sum(time.Since(began)) {
		os.Exit(1)
	}
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintf(r.out, "%s\n", lines.Bytes()) // a tool spoke in between
			continue
		}
		r.take(e)
	}
	return lines.Err()
}

func (r *report) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "start":
		r.begun[e.Package] = true
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "build-fail":
		r.broken = true
	case "output":
		switch said := strings.TrimSpace(e.Output); {
		case strings.HasPrefix(said, "=== "):
		case e.Test == "" && within(e.Package, r.live): // tables, when its tests have ended
			fmt.Fprint(r.out, e.Output)
		default:
			r.output[key] = append(r.output[key], e.Output)
		}
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.packageEnded(e)
		} else {
			r.testEnded(e)
		}
		delete(r.output, key)
	}
}

func (r *report) testEnded(e event) {
	t := r.packages[e.Package]
	if t == nil {
		t = &tally{}
		r.packages[e.Package] = t
	}
	counts := []*tally{t, &r.total}
	if slices.ContainsFunc(r.kernel, func(k string) bool { return within(e.Package, k) }) {
		counts = append(counts, &r.onKernel)
	}
	for _, c := range counts {
		switch e.Action {
		case "pass":
			c.passed++
		case "fail":
			c.failed++
		case "skip":
			c.skipped++
		}
	}
	said := r.output[e.Package+" "+e.Test]
	switch {
	case e.Action != "pass":
		r.failure(strings.ToUpper(e.Action), e.Package, e.Test, said)
	case within(e.Package, r.live):
		r.liveEnded(e, said)
	}
}

// liveEnded shows a test that passed, and what it measured.
func (r *report) liveEnded(e event, said []string) {
	for _, line := range said {
		if _, figure, ok := strings.Cut(line, "measured: "); ok {
			fmt.Fprintf(r.out, "        %s", figure)
		}
	}
	if !strings.Contains(e.Test, "/") {
		fmt.Fprintf(r.out, "passed  %-48s %6.1f s\n", e.Test, e.Elapsed)
	}
}

// failure shows what a test said that did not pass, and keeps the end of it
// for the end.
func (r *report) failure(how, pkg, test string, said []string) {
	fmt.Fprintf(r.out, "%s: %s %s\n%s", how, pkg, test, strings.Join(said, ""))
	const most = 60
	r.failures = append(r.failures, fmt.Sprintf("%s: %s %s\n%s", how, pkg, test, strings.Join(said[max(0, len(said)-most):], "")))
}

func within(pkg, top string) bool { return pkg == top || strings.HasPrefix(pkg, top+"/") }

func (r *report) packageEnded(e event) {
	t := r.packages[e.Package]
	delete(r.begun, e.Package)
	switch {
	case e.Action == "fail":
		r.broken = true
		fmt.Fprintf(r.out, "FAIL  %-40s %6.1f s\n%s", e.Package, e.Elapsed, strings.Join(r.output[e.Package+" "], ""))
		r.unfinished(e.Package)
	case t != nil:
		fmt.Fprintf(r.out, "ok    %-40s %6.1f s  %d tests\n", e.Package, e.Elapsed, t.passed)
	}
}

// unfinished shows the tests of a package that it took down with it, or was
// taken down by: what they said is all there is to find out why.
func (r *report) unfinished(pkg string) {
	for key, lines := range r.output {
		name, ok := strings.CutPrefix(key, pkg+" ")
		if !ok || name == "" {
			continue
		}
		r.failure("UNFINISHED", pkg, name, lines)
		r.total.failed++
		delete(r.output, key)
	}
}

// sum prints the totals and says whether all is well.
func (r *report) sum(took time.Duration) bool {
	for pkg := range r.begun { // whoever ran it was ended
		r.broken = true
		fmt.Fprintf(r.out, "FAIL  %-40s did not end\n", pkg)
		r.unfinished(pkg)
	}
	if len(r.failures) > 0 {
		fmt.Fprintf(r.out, "\nWhat did not pass, once more:\n%s", strings.Join(r.failures, ""))
	}
	fmt.Fprintf(r.out, "\n%d tests ran as root against the kernel; all took %s\n", r.onKernel.passed+r.onKernel.failed, took.Round(time.Second))
	if r.broken && r.total.failed == 0 {
		r.total.failed++ // a package that did not build or did not end
	}
	fmt.Fprintf(r.out, "%d passed, %d failed", r.total.passed, r.total.failed)
	if r.total.skipped > 0 {
		fmt.Fprintf(r.out, ", %d skipped", r.total.skipped)
	}
	fmt.Fprintln(r.out)
	return !r.broken && r.total.failed == 0 && r.total.skipped == 0 && r.total.passed > 0
}
