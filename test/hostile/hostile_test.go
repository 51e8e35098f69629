// Package hostile attacks a running platform: every attacker is a process type
// of one app, pushed like any other, next to a well-behaved neighbour whose
// requests are timed all along. Each attack must fail in the way written
// beside it in attacks_test.go, be survived, and be told apart in its dyno's
// log. It must never import a room of the platform.
package hostile

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"manifold/test/platform"
)

// Times of one attack.
const (
	aloneFor  = 3 * time.Second
	attackFor = 5 * time.Second  // at least
	mostFor   = 30 * time.Second // until its log says what it must
)

// arena is the platform with the two apps.
type arena struct {
	*target
	attacker, neighbour string // apps
	at                  dyno   // the neighbour's dyno
}

func newArena(t *testing.T) *arena {
	t.Helper()
	program := filepath.Join(t.TempDir(), "attacker")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./attacker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the attacker: %v\n%s", err, out)
	}
	var procfile strings.Builder
	procfile.WriteString("web: ./attacker neighbour\n")
	for _, a := range attacks {
		fmt.Fprintf(&procfile, "%s: ./attacker %s\n", a.mode, a.mode)
	}
	procfile.WriteString("memory-steps: ./attacker memory-steps\n")
	binary, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"Procfile": procfile.String(), "attacker": string(binary), "index.html": "hostile"}

	a := &arena{target: start(t, worldServer)}
	hostAddr := newWorld(t, a.Number(), program)
	a.neighbour, a.attacker = a.CreateApp(t), a.CreateApp(t)
	a.Push(t, platform.Repository(t, files), a.neighbour)
	platform.Eventually(a.t, deadline, func() error {
		if a.at, err = a.dyno(a.neighbour, "web.1"); err == nil && a.at.State != "up" {
			err = fmt.Errorf("is %s", a.at.State)
		}
		return err
	})
	a.Call(a.t, "PATCH", "/apps/"+a.attacker+"/config-vars", a.surroundings(hostAddr), nil)
	a.Push(t, platform.Repository(t, files), a.attacker)
	a.scale(a.attacker, "web", 0)
	platform.Eventually(a.t, deadline, func() error { return a.gone("web.1") })
	return a
}

// surroundings are the config vars that tell the attacker what there is to
// attack: what it could find out, it need not.
func (a *arena) surroundings(hostAddr string) map[string]string {
	a.t.Helper()
	// Something on the host that listens everywhere, by name and by number.
	everywhere, err := net.Listen("tcp", ":0")
	if err != nil {
		a.t.Fatal(err)
	}
	abstract, err := net.Listen("unix", "@"+a.Name+"-hostile")
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { everywhere.Close(); abstract.Close() })
	_, port, _ := net.SplitHostPort(everywhere.Addr().String())
	ports := []string{port, "22", "53", "80", "2379", "5000", "5443", "8080"}
	for _, addr := range []string{a.API, a.TLS, a.Router, a.Fleet} {
		ports = append(ports, addr[strings.LastIndexByte(addr, ':')+1:])
	}
	hosts := []string{hostAddr}
	links, _ := net.Interfaces()
	for _, link := range links {
		// The host's end of our dynos' links and its uplinks; other instances' links come and go.
		if strings.Contains(link.Name, "-") && !strings.HasPrefix(link.Name, a.Name+"-") {
			continue
		}
		addrs, _ := link.Addrs()
		for _, addr := range addrs {
			if ip, ok := addr.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
				hosts = append(hosts, ip.IP.String())
			}
		}
	}
	slices.Sort(hosts)
	hosts = slices.Compact(hosts)
	return map[string]string{
		"HOST_ADDRS": strings.Join(hosts[:min(len(hosts), 6)], ","), "SCAN_PORTS": strings.Join(ports, ","),
		"NEIGHBOUR_ADDR": a.at.Addr, "WORLD_ADDR": worldServer + ":80", "BLACK_HOLE": blackHoleNet, "RESOLVERS": worldServer,
		"MEMORY_REST": "700", "METADATA_ADDRS": metadataHost + ":80", "ABSTRACT_SOCKET": a.Name + "-hostile", "HOST_PIDS": strings.Join(a.daemonPIDs(), ","),
	}
}

func (a *arena) gone(name string) error {
	dynos, err := a.ps()
	if err != nil {
		return err
	}
	for _, d := range dynos {
		if d.App == a.attacker && (name == "" || d.Name == name) {
			return fmt.Errorf("%s is %s", d.Name, d.State)
		}
	}
	return nil
}

// outcome is what became of one attack.
type outcome struct {
	alone, under latency
	log          []string
}

// attack measures the neighbour alone, then has one attacker at it until the
// attacker's log says all it must.
func (a *arena) attack(x attack) outcome {
	a.t.Helper()
	v := visit(a.Router, a.neighbour)
	time.Sleep(aloneFor)
	o := outcome{alone: v.stop()}

	v = visit(a.Router, a.neighbour)
	a.scale(a.attacker, x.mode, 1)
	read := func() []string { return a.LogOf(a.t, a.attacker, x.source()) }
	began := time.Now()
	for time.Since(began) < cmp.Or(x.most, mostFor) {
		time.Sleep(500 * time.Millisecond)
		o.log = read()
		if time.Since(began) > attackFor && len(x.missing(o.log, false)) == 0 {
			break
		}
	}
	if x.during != nil {
		x.during(a)
	}
	o.under = v.stop()
	a.scale(a.attacker, x.mode, 0)
	platform.Eventually(a.t, deadline, func() error { return a.gone("") })
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && len(x.missing(o.log, true)) > 0; time.Sleep(100 * time.Millisecond) {
		o.log = read()
	}
	return o
}

// source is what of the log tells: a test that reads megabytes of an attacker's
// lines twice a second would itself disturb the neighbour it measures.
func (x attack) source() string {
	for _, e := range x.expect {
		if !e.platform {
			return ""
		}
	}
	return "heroku"
}

// missing are the expectations that the log does not meet; before the dyno is
// over some need not be met yet.
func (x attack) missing(log []string, over bool) (patterns []string) {
	for _, e := range x.expect {
		if (over || !e.late) && x.answerTo(log, e) == "" {
			patterns = append(patterns, e.name+": "+e.want)
		}
	}
	return patterns
}

// answerTo finds in the log how an attempt was answered, if it was as it must.
func (x attack) answerTo(log []string, e expectation) string {
	want := regexp.MustCompile("^(?:" + e.want + ")$")
	for _, line := range log {
		text, said := line, false
		if e.platform {
			text, said = strings.CutPrefix(line, "heroku["+e.name+"]: ")
		} else {
			text, said = strings.CutPrefix(line, "app["+x.mode+".1]: attack "+e.name+": ")
		}
		if said && want.MatchString(text) {
			return text
		}
	}
	return ""
}

// TestHostile attacks one platform in many ways, and prints a table of them:
// go test -run TestHostile/spin ./test/hostile tries one.
func TestHostile(t *testing.T) {
	a := newArena(t)
	t.Run("memory-steps", func(t *testing.T) {
		a.t = t
		a.memoryContract()
	})
	var table strings.Builder
	var missed []string
	tried := 0
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "mode\tattack\twhat stopped it\tanswer\talone p50\tp99\tunder attack p50\tp99\tratio p50\tp99")
	for _, x := range attacks {
		t.Run(x.mode, func(t *testing.T) {
			a.t = t
			o := a.attack(x)
			if x.missed(o) { // a guest of the machine's may have passed by
				t.Logf("again: neighbour alone %v ms, under attack %v ms", o.alone, o.under)
				if again := a.attack(x); ratio(again.under.p99, again.alone.p99) < ratio(o.under.p99, o.alone.p99) {
					o = again
				}
			}
			t.Logf("neighbour alone %v ms, under attack %v ms (%d served)", o.alone, o.under, o.under.served)
			a.check(x, o)
			x.rows(w, o)
			if tried++; x.missed(o) {
				missed = append(missed, fmt.Sprintf("%s (%.1f times, goal %d)", x.mode, ratio(o.under.p99, o.alone.p99), x.goal()))
			}
		})
	}
	w.Flush()
	fmt.Print(table.String())
	fmt.Printf("The neighbour's p99 stayed within its goal under %d of %d attacks", tried-len(missed), tried)
	if len(missed) > 0 {
		fmt.Printf("; not under %s", strings.Join(missed, ", "))
	}
	fmt.Println(".")
}

// missed is true if the neighbour was slowed down more than it should.
func (x attack) missed(o outcome) bool { return o.under.p99 > x.goal()*o.alone.p99 }

// goal is how much slower than alone the neighbour's slowest requests should
// be at most: where all attackers do is to compute, on the same few cores,
// more.
func (x attack) goal() time.Duration {
	if x.computes {
		return 3
	}
	return 2
}

// rows writes an attack's part of the table.
func (x attack) rows(w io.Writer, o outcome) {
	for i, e := range x.expect {
		figures := "\t\t\t\t\t"
		if i == 0 {
			figures = fmt.Sprintf("%s\t%s\t%s\t%s\t%.1f\t%.1f", milliseconds(o.alone.p50), milliseconds(o.alone.p99),
				milliseconds(o.under.p50), milliseconds(o.under.p99), ratio(o.under.p50, o.alone.p50), ratio(o.under.p99, o.alone.p99))
			if x.missed(o) {
				figures += " (goal " + strconv.Itoa(int(x.goal())) + ")"
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", x.mode, e.name, e.by, x.answerTo(o.log, e), figures)
	}
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(max(b, time.Microsecond)) }

// check judges what became of an attack.
func (a *arena) check(x attack, o outcome) {
	a.t.Helper()
	if missing := x.missing(o.log, true); len(missing) > 0 {
		a.t.Errorf("%s: its log does not say %q but\n%s", x.mode, missing, strings.Join(o.log[max(0, len(o.log)-100):], "\n"))
	}
	for _, line := range o.log {
		if strings.HasPrefix(line, "app["+x.mode+".1]: ") && strings.Contains(line, "SUCCEEDED") && !strings.Contains(line, "must work") {
			a.t.Errorf("%s: %s", x.mode, line)
		}
	}
	for _, l := range []latency{o.alone, o.under} {
		if len(l.failed) > 0 {
			a.t.Errorf("%s: %d of the neighbour's %d requests failed: %s", x.mode, len(l.failed), l.served, l.failed[0])
		}
	}
	if now, err := a.dyno(a.neighbour, "web.1"); err != nil || now.Run != a.at.Run || now.State != "up" {
		a.t.Errorf("%s: the neighbour is %+v (%v), it was %+v", x.mode, now, err, a.at)
	}
}
