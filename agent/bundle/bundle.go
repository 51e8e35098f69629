// Package bundle gathers what a bug report about a host needs into one tar.gz,
// and leaves out what nobody else may see.
//
// It must never put in a config var's value, a token, a key, or what an app
// logged or wrote. Everything goes in by one door, (*writer).add, which takes
// out every secret of this host's that it knows, in whatever text it turns up,
// and what looks like one.
package bundle

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"manifold/agent"
	"manifold/agent/doctor"
	"manifold/agent/door"
)

const (
	maxFile  = 2 << 20  // bytes of one file; of logs the last ones
	maxTotal = 64 << 20 // of all
	maxRuns  = 500
)

// Config says what to gather.
type Config struct {
	Agent   agent.Config
	Version string
}

// Write writes the bundle. It needs root; the agent may be dead. What cannot
// be read is named in missing.txt; an error is w's.
func Write(ctx context.Context, w io.Writer, cfg Config) error {
	packed := gzip.NewWriter(w)
	out := &writer{tar: tar.NewWriter(packed), scrub: newScrubber(), now: time.Now()}
	out.learn(cfg.Agent)
	facts := agent.Examine(ctx, cfg.Agent)
	out.addJSON("about.json", about(cfg))
	out.addJSON("doctor/findings.json", doctor.Examine(facts))
	out.addJSON("doctor/facts.json", facts)
	out.addDoor(ctx, cfg.Agent)
	out.addRecords(filepath.Join(cfg.Agent.Home, "agent"))
	out.addKernel(facts)
	out.addLogs(ctx, cfg.Agent)
	out.add("missing.txt", []byte(strings.Join(out.missing, "\n")+"\n"))
	out.add("README.txt", []byte(readme))
	return errors.Join(out.err, out.tar.Close(), packed.Close())
}

const readme = `A bundle for a bug report about a Manifold host.

about.json       versions, kernel, settings
doctor/          what manifold host doctor found, and the facts it found it from
agent/           what the agent said on its socket
records/         the agent's records: config vars by name, without values
runs/            what is on disk of each run, without what the app wrote
kernel/          the kernel's view
logs/            the last lines of the platform's own logs; none of the apps'
missing.txt      what could not be read

Config values, tokens and keys of this host were taken out of every text.
Read it before you pass it on all the same.
`

// writer is the bundle in the making.
type writer struct {
	tar     *tar.Writer
	scrub   *scrubber
	now     time.Time
	total   int
	missing []string
	err     error // the first of tar's
}

// add puts a text in, without its secrets.
func (o *writer) add(name string, text []byte) {
	text = o.scrub.scrub(text)
	if o.total+len(text) > maxTotal {
		o.miss(name, errors.New("the bundle is full"))
		return
	}
	o.total += len(text)
	header := &tar.Header{Name: "manifold-bundle/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: o.now, Format: tar.FormatPAX}
	err := o.tar.WriteHeader(header)
	if err == nil {
		_, err = o.tar.Write(text)
	}
	if o.err == nil {
		o.err = err
	}
}

func (o *writer) addJSON(name string, v any) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		o.miss(name, err)
		return
	}
	o.add(name, text)
}

// addFile puts the end of a file in.
func (o *writer) addFile(name, path string) {
	text, err := readEnd(path)
	if err != nil {
		o.miss(path, err)
		return
	}
	o.add(name, text)
}

func (o *writer) miss(what string, err error) {
	o.missing = append(o.missing, what+": "+err.Error())
}

// readEnd reads the last maxFile bytes of a regular file, or all of one of the
// kernel's.
func readEnd(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if info.Size() > maxFile {
		if _, err := f.Seek(-maxFile, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// learn gathers this host's secrets, so that they can be taken out.
func (o *writer) learn(cfg agent.Config) {
	home := filepath.Join(cfg.Home, "agent")
	records, _ := filepath.Glob(filepath.Join(home, "dynos", "*", "record.json*"))
	for _, path := range append(records, filepath.Join(home, "desired.json"), filepath.Join(home, "desired.json.corrupt")) {
		if text, err := os.ReadFile(path); err == nil {
			o.scrub.learnEnv(text)
		}
	}
	var identity struct{ Key string }
	if text, err := os.ReadFile(filepath.Join(home, "identity.json")); err == nil && json.Unmarshal(text, &identity) == nil {
		o.scrub.learn(identity.Key)
	}
	// The coordinator's tokens and keys, where it lives on this host.
	small, _ := filepath.Glob(filepath.Join(cfg.Home, "coordinator", "*"))
	for _, path := range append(small, cfg.JoinTokenFile) {
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || info.Size() > 16<<10 {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		o.scrub.learn(string(text))
		secret, _, _ := strings.Cut(strings.TrimSpace(string(text)), ".") // of a join token
		o.scrub.learn(secret)
	}
}

func about(cfg Config) map[string]any {
	kernel, _ := os.ReadFile("/proc/version")
	release, _ := os.ReadFile("/etc/os-release")
	name, _ := os.Hostname()
	built, _ := debug.ReadBuildInfo()
	all := map[string]any{
		"version": cfg.Version, "go": runtime.Version(), "cpus": runtime.NumCPU(), "host": name, "at": time.Now(),
		"kernel": strings.TrimSpace(string(kernel)), "os": string(release), "settings": cfg.Agent.Settings,
		"pool": cfg.Agent.Pool.String(), "uid_base": cfg.Agent.UIDBase, "resolvers": cfg.Agent.Resolvers, "cgroup_parent": cfg.Agent.CgroupParent,
	}
	if built != nil {
		all["module"] = built.Main
	}
	return all
}

// addDoor asks the agent what it can say.
func (o *writer) addDoor(ctx context.Context, cfg agent.Config) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", door.SocketPath(cfg.Run))
		},
	}}
	for name, path := range map[string]string{
		"health.json": "/healthz", "ps.json": "/v1/ps", "autopsies.json": "/v1/autopsies", "metrics.txt": "/metrics",
		"goroutines.txt": "/debug/pprof/goroutine?debug=2",
	} {
		text, err := ask(ctx, client, path)
		if err != nil {
			o.miss("agent/"+name, err)
			continue
		}
		o.add("agent/"+name, text)
	}
}

func ask(ctx context.Context, client *http.Client, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return nil, errors.New(res.Status)
	}
	return io.ReadAll(io.LimitReader(res.Body, maxFile))
}

// addRecords puts in what the agent wrote, without config values.
func (o *writer) addRecords(home string) {
	for _, pattern := range []string{
		"desired.json", "dynos/*/record.json", "runs/*/box.json", "runs/*/agent-*", "runs/*/pid1/exit.json", "autopsies/*/autopsy.json",
	} {
		paths, _ := filepath.Glob(filepath.Join(home, pattern))
		if more := len(paths) - maxRuns; more > 0 {
			o.miss(pattern, fmt.Errorf("%d more", more))
			paths = paths[:maxRuns]
		}
		for _, path := range paths {
			text, err := readEnd(path)
			if err != nil {
				o.miss(path, err)
				continue
			}
			name, _ := filepath.Rel(home, path) // below it, by the pattern
			o.add("records/"+name, withoutEnv(text))
		}
	}
	o.addFile("records/host.json", filepath.Join(home, "host.json"))
}

// addKernel puts in the host's state and that of our cgroups.
func (o *writer) addKernel(facts doctor.Facts) {
	for _, path := range []string{
		"/proc/meminfo", "/proc/loadavg", "/proc/uptime", "/proc/self/mountinfo", "/proc/cgroups", "/proc/net/dev", "/proc/swaps",
		"/proc/pressure/cpu", "/proc/pressure/memory", "/proc/pressure/io", "/proc/sys/net/netfilter/nf_conntrack_count",
	} {
		o.addFile("kernel"+strings.ReplaceAll(strings.TrimPrefix(path, "/proc"), "self/", ""), path)
	}
	for i, t := range facts.Traces.Runs {
		if i == maxRuns {
			break
		}
		if t.PID1 == 0 {
			continue
		}
		o.addFile("runs/"+t.Run+"/pid1-status", fmt.Sprintf("/proc/%d/status", t.PID1))
		o.addFile("runs/"+t.Run+"/mountinfo", fmt.Sprintf("/proc/%d/mountinfo", t.PID1))
		o.addFile("runs/"+t.Run+"/sockets", fmt.Sprintf("/proc/%d/net/tcp", t.PID1))
	}
}

// addLogs puts in the ends of our daemons' own logs.
func (o *writer) addLogs(ctx context.Context, cfg agent.Config) {
	paths, _ := filepath.Glob(filepath.Join(cfg.Home, "log", "*"))
	paths = append(paths, filepath.Join(cfg.Home, "agent", "audit.log"))
	slices.Sort(paths)
	for _, path := range paths {
		o.addFile("logs/"+filepath.Base(path), path)
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	text, err := exec.CommandContext(ctx, "journalctl", "--no-pager", "-o", "short-iso", "-n", "5000", "-u", "manifold-*").Output()
	if err != nil {
		o.miss("logs/journal.txt", err)
		return
	}
	o.add("logs/journal.txt", text[max(0, len(text)-maxFile):])
}
