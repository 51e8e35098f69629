package agent

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"manifold"
	"manifold/slugfs"
)

// BenchmarkStart is the time from a request to the first instruction of the
// app. Ours is from what is desired, as the coordinator says it, through the
// agent to a dyno with network, firewall, seccomp, limits, quota and log;
// beside it, in turns, runc and bubblewrap start the same root with what they
// give by default: no network, no quota.
func BenchmarkStart(b *testing.B) {
	r := newRig(b)
	root := clockRoot(b)
	r.stack = []manifold.Image{r.pack(root, "")}
	runc := runcBundle(b, root)
	ways := []struct {
		name  string
		start func(i int) time.Duration
	}{
		{"dyno", func(int) time.Duration { return r.startClock("") }},
		{"runc", func(i int) time.Duration {
			return commandClock(b, "runc", "run", "--bundle", runc, fmt.Sprintf("%s-%d", r.instance, i))
		}},
		{"bwrap", func(int) time.Duration {
			return commandClock(b, "bwrap", "--unshare-all", "--ro-bind", root, "/", "--proc", "/proc", "--dev", "/dev", "/bin/bash")
		}},
	}
	for _, way := range ways { // warm
		way.start(-1)
	}
	times := map[string][]time.Duration{}
	for i := 0; b.Loop(); i++ {
		for _, way := range ways {
			times[way.name] = append(times[way.name], way.start(i))
		}
	}
	for _, way := range ways {
		b.ReportMetric(millis(percentile(times[way.name], 50)), way.name+"-ms-p50")
		b.ReportMetric(millis(percentile(times[way.name], 99)), way.name+"-ms-p99")
	}
	for _, way := range ways[1:] {
		b.ReportMetric(ratio(times["dyno"], times[way.name]), "dyno/"+way.name)
	}
	b.ReportMetric(0, "ns/op") // of all three together: of no use
}

// BenchmarkSlug is how much longer an app in a slug of 200 MB takes to its
// first instruction than one in a slug of 1 MB, both on the host already.
func BenchmarkSlug(b *testing.B) {
	r := newRig(b)
	stack := r.stack
	small, big := r.slug(1), r.slug(200)
	start := func(slug manifold.Image) time.Duration {
		r.stack = append([]manifold.Image{slug}, stack...)
		return r.startClock("/app/clock")
	}
	var ofSmall, ofBig []time.Duration
	start(small)
	start(big)
	for b.Loop() {
		ofSmall, ofBig = append(ofSmall, start(small)), append(ofBig, start(big))
	}
	b.ReportMetric(millis(percentile(ofSmall, 50)), "1MB-ms-p50")
	b.ReportMetric(millis(percentile(ofBig, 50)), "200MB-ms-p50")
	b.ReportMetric(ratio(ofBig, ofSmall), "200MB/1MB")
	b.ReportMetric(0, "ns/op")
}

func ratio(a, b []time.Duration) float64 {
	return float64(percentile(a, 50)) / float64(percentile(b, 50))
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func percentile(times []time.Duration, p int) time.Duration {
	slices.Sort(times)
	return times[min(len(times)*p/100, len(times)-1)]
}

// clockRoot is a root filesystem in which the shell, which is the first thing
// of an app that runs, is testdata/clock.
func clockRoot(b *testing.B) string {
	root := b.TempDir()
	for _, dir := range []string{"app", "bin", "dev", "etc", "proc", "sys", "tmp"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	buildClock(b, filepath.Join(root, "bin/bash"))
	return root
}

func buildClock(b *testing.B, path string) {
	build := exec.Command("go", "build", "-ldflags=-s -w -E=main.start", "-o", path, "./testdata/clock")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build testdata/clock: %v: %s", err, out)
	}
}

// slug packs an app of so many MB that do not compress.
func (r *rig) slug(mb int) manifold.Image {
	b := r.t.(*testing.B)
	dir := b.TempDir()
	app := filepath.Join(dir, "app")
	if err := os.Mkdir(app, 0o755); err != nil {
		b.Fatal(err)
	}
	buildClock(b, filepath.Join(app, "clock"))
	data := make([]byte, 1<<20)
	noise := rand.NewChaCha8([32]byte{byte(mb)})
	for i := range mb {
		_, _ = noise.Read(data)
		if err := os.WriteFile(filepath.Join(app, fmt.Sprint("part-", i)), data, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return r.pack(dir, fmt.Sprint(mb))
}

// pack makes an image of dir that the coordinator hands out.
func (r *rig) pack(dir, name string) manifold.Image {
	tree, err := os.Open(dir)
	if err != nil {
		r.t.Fatal(err)
	}
	defer tree.Close()
	images := filepath.Join(r.dir, "images-"+name)
	store, err := slugfs.Open(images)
	if err != nil {
		r.t.Fatal(err)
	}
	defer store.Close()
	img, err := store.Pack(r.t.Context(), tree, slugfs.PackOptions{Owner: -1})
	if err != nil {
		r.t.Fatal(err)
	}
	r.images = append(r.images, images)
	return img
}

// startClock has the agent run a one-off dyno that says when it began, and
// waits until all of it is gone.
func (r *rig) startClock(command string) time.Duration {
	a := r.assignment(command + " ")
	a.Kind, a.Dyno, a.ID = manifold.KindOneOff, "run.1", uuid.NewString()
	asked := monotonic(r.t)
	r.want(a)
	d := r.await(a.ID, "its end", func(d manifold.Dyno) bool { return d.State == manifold.StateComplete })
	r.awaitLine(d.Run, "app", "")
	r.want()
	r.awaitGone(a.ID)
	return readClock(r.t, r.lines(d.Run, "app")[0]) - asked
}

// commandClock runs a program that runs the clock.
func commandClock(b *testing.B, name string, args ...string) time.Duration {
	cmd := exec.Command(name, args...)
	var out, failed bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failed
	asked := monotonic(b)
	if err := cmd.Run(); err != nil {
		b.Fatalf("%s: %v: %s", name, err, failed.String())
	}
	return readClock(b, out.String()) - asked
}

// readClock reads what testdata/clock prints: a struct timespec.
func readClock(t testing.TB, text string) time.Duration {
	text = string(bytes.TrimSpace([]byte(text)))
	if len(text) != 32 {
		t.Fatalf("the clock says %q", text)
	}
	var spec [16]byte
	for i := range spec {
		spec[i] = (text[2*i]-'A')<<4 + (text[2*i+1] - 'A')
	}
	seconds, nanos := binary.LittleEndian.Uint64(spec[:8]), binary.LittleEndian.Uint64(spec[8:])
	return time.Duration(seconds)*time.Second + time.Duration(nanos)
}

func monotonic(t testing.TB) time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// runcBundle is runc's own default with the clock as its process.
func runcBundle(b *testing.B, root string) string {
	dir := b.TempDir()
	spec := exec.Command("runc", "spec")
	spec.Dir = dir
	if out, err := spec.CombinedOutput(); err != nil {
		b.Fatalf("runc spec (is runc installed?): %v: %s", err, out)
	}
	config := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(config)
	if err != nil {
		b.Fatal(err)
	}
	for _, change := range [][2]string{
		{`"terminal": true`, `"terminal": false`}, {`"sh"`, `"/bin/bash"`}, {`"path": "rootfs"`, fmt.Sprintf(`"path": %q`, root)},
	} {
		if !bytes.Contains(text, []byte(change[0])) {
			b.Fatalf("runc's default has no %s", change[0])
		}
		text = bytes.ReplaceAll(text, []byte(change[0]), []byte(change[1]))
	}
	if err := os.WriteFile(config, text, 0o644); err != nil {
		b.Fatal(err)
	}
	return dir
}
