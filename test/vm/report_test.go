package vm

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// report makes a subtest of each test in the guest's output, as it comes, and
// says whether every program ran to its end.
func report(t *testing.T, results io.Reader, tb *table) bool {
	lines := bufio.NewReader(results)
	next, step := 0, tb.timer()
	for {
		line, err := lines.ReadString('\n')
		if pkg, ok := strings.CutPrefix(strings.TrimSpace(line), beginMark); ok {
			if next >= len(runs) || pkg != runs[next].pkg {
				t.Fatalf("the guest ran %s out of turn", pkg)
			}
			switch {
			case next == 0:
				step("boot")
			case runs[next].reboot != "":
				step("reboot")
			}
			next++
			t.Run(strings.TrimPrefix(pkg, "manifold/"), func(t *testing.T) { reportPackage(t, pkg, lines, tb) })
			step(pkg)
		} else if strings.TrimSpace(line) != "" {
			t.Logf("the guest says: %s", line)
		}
		if err != nil {
			break
		}
	}
	step("power off")
	if next != len(runs) {
		t.Errorf("the guest ended after %d of %d test programs", next, len(runs))
	}
	return next == len(runs)
}

func reportPackage(t *testing.T, pkg string, lines *bufio.Reader, tb *table) {
	status := "none: the guest ended"
	raw, in := io.Pipe()
	go func() {
		defer in.Close()
		for {
			line, err := lines.ReadString('\n')
			if s, ok := strings.CutPrefix(strings.TrimSpace(line), endMark); ok {
				status = s
				return
			}
			if _, wrong := io.WriteString(in, line); err != nil || wrong != nil {
				return
			}
		}
	}()
	convert := exec.Command("go", "tool", "test2json", "-t", "-p", pkg)
	var said bytes.Buffer
	convert.Stdin, convert.Stderr = raw, &said
	events, err := convert.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := convert.Start(); err != nil {
		t.Fatal(err)
	}
	tests := reportEvents(t, events, tb)
	if err := convert.Wait(); err != nil {
		t.Fatalf("test2json: %v: %s", err, said.String())
	}
	if tests == 0 {
		t.Error("no test ran")
	}
	if status != "0" {
		t.Errorf("exit status %s", status)
	}
}

// reportEvents returns how many tests it saw end.
func reportEvents(t *testing.T, events io.Reader, tb *table) (tests int) {
	type event struct { // go doc test2json
		Action, Test, Output string
		Elapsed              float64
	}
	output := map[string]string{}
	decoder := json.NewDecoder(events)
	for {
		var e event
		if err := decoder.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		switch e.Action {
		case "output":
			output[e.Test] += e.Output
		case "pass", "fail", "skip":
			if e.Test == "" {
				continue
			}
			tests++
			t.Run(e.Test, func(t *testing.T) {
				tb.take(e.Action, e.Elapsed, output[e.Test])
				if e.Action != "pass" {
					t.Errorf("%s\n%s", e.Action, output[e.Test])
				}
			})
			delete(output, e.Test)
		}
	}
	tb.take("", 0, output[""])
	// What no test claims, and tests that never ended: a crash, or the time was up.
	for test, text := range output {
		if t.Failed() || test != "" {
			t.Errorf("%s did not end:\n%s", test, text[max(0, len(text)-16<<10):])
		}
	}
	return tests
}
