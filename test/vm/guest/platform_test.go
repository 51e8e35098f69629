//go:build guest

package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/store"
	"manifold/slugfs"
)

const (
	home   = "/var/lib/manifold"
	socket = "/run/manifold/agent.sock"
	dynos  = "/sys/fs/cgroup/manifold.slice/manifold-dynos.slice/manifold"
)

// patience is for an emulated processor that has what other tests leave of two
// real ones: a dyno that grows by a gigabyte took three minutes there.
const patience = 10 * time.Minute

func TestMain(m *testing.M) {
	if os.Getenv("MANIFOLD_TEST_WORK") == "" {
		fmt.Fprintln(os.Stderr, "these tests change the machine they run on: go test ./test/vm runs them in one of its own")
		os.Exit(1)
	}
	began := time.Now()
	if err := install(os.Getenv("MANIFOLD_TEST_WORK")); err != nil {
		fmt.Fprintln(os.Stderr, "install the platform:", err)
		os.Exit(1)
	}
	fmt.Printf("part: of it, to install and start the platform\t%.1f\n", time.Since(began).Seconds())
	code := m.Run()
	if code != 0 {
		out, _ := exec.Command("journalctl", "--no-pager", "-o", "cat", "-n", "150", "-u", "manifold-*").CombinedOutput()
		fmt.Printf("the journal of our units:\n%s\n", out)
	}
	os.Exit(code)
}

// install installs the package as docs/hosts.md says, unless an earlier test
// program did, and puts a stack and two apps with a slug into the
// coordinator's store: a build would take minutes here.
func install(work string) error {
	if _, err := os.Stat("/usr/bin/manifold-agent"); err == nil {
		return nil
	}
	for _, c := range []string{
		"dpkg -i " + work + "/deb/one.deb",
		"! systemctl is-active 'manifold-*' manifold.slice", // that is the operator's choice
		"mkdir -p " + home, "cp -r " + work + "/stacks " + home + "/",
	} {
		if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", c, err, out)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	image, err := pack(ctx, work)
	if err != nil {
		return err
	}
	if err := fill(ctx, image); err != nil {
		return err
	}
	out, err := exec.Command("systemctl", "enable", "--now", "manifold-coordinator", "manifold-router", "manifold-agent").CombinedOutput()
	if err != nil {
		return fmt.Errorf("enable the units: %w: %s", err, out)
	}
	return nil
}

// processTypes of the two apps: one that answers, and one whose dynos take
// memory, a pair of processes or a neighbour.
var processTypes = map[string]map[string]string{
	"hello": {"web": "exec busybox httpd -f -p $PORT -h /app/www"},
	"eater": {"grow": "sleep 1000000 & exec /app/calls grow 1200", "keep": "exec /app/calls hold"},
}

func fill(ctx context.Context, image manifold.Image) error {
	s, err := store.Open(ctx, home+"/coordinator", slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Bootstrap(ctx, "admin@localhost"); err != nil {
		return err
	}
	user, err := s.User(ctx, "admin@localhost")
	if err != nil {
		return err
	}
	for name, types := range processTypes {
		app, err := s.CreateApp(ctx, manifold.App{Name: name, Stack: "tiny", BuildStack: "tiny"}, user)
		if err != nil {
			return err
		}
		if _, err = s.Deploy(ctx, app.ID, manifold.Slug{Image: image, Stack: "tiny", ProcessTypes: types}, "Deploy", user); err != nil {
			return err
		}
	}
	return nil
}

// pack makes the apps' slug where the coordinator keeps them.
func pack(ctx context.Context, work string) (manifold.Image, error) {
	var none manifold.Image
	tree, err := os.MkdirTemp("", "slug")
	if err != nil {
		return none, err
	}
	defer os.RemoveAll(tree)
	if err := os.MkdirAll(tree+"/app/www", 0o755); err != nil {
		return none, err
	}
	if err := os.WriteFile(tree+"/app/www/index.html", []byte("it works"), 0o644); err != nil {
		return none, err
	}
	if out, err := exec.Command("cp", work+"/probes/calls", tree+"/app/calls").CombinedOutput(); err != nil {
		return none, fmt.Errorf("copy the program that takes memory: %w: %s", err, out)
	}
	if err := os.Chmod(tree, 0o755); err != nil {
		return none, err
	}
	dir, err := os.Open(tree)
	if err != nil {
		return none, err
	}
	defer dir.Close()
	images, err := slugfs.Open(home + "/coordinator/images")
	if err != nil {
		return none, err
	}
	defer images.Close()
	return images.Pack(ctx, dir, slugfs.PackOptions{Owner: manifold.DynoUID})
}

// up starts whatever does not run, and returns the web dyno when it is up.
func up(t *testing.T) dyno {
	t.Helper()
	run(t, "systemctl", "start", "manifold-coordinator", "manifold-router", "manifold-agent")
	d := awaitDyno(t, "hello", "web.1", func(d dyno) bool { return d.State == manifold.StateUp })
	eventually(t, "an answer through the router", func() bool { return ask() == nil })
	return d
}

// dyno is what the agent's socket says of one, and its PID 1 on this host.
type dyno struct {
	manifold.Dyno
	AppName string `json:"app_name"`
	PID     int    `json:"-"`
}

func awaitDyno(t *testing.T, app, name string, good func(dyno) bool) (found dyno) {
	t.Helper()
	eventually(t, name+" of "+app, func() bool {
		found = dyno{}
		list, err := ps()
		if err != nil {
			return false
		}
		for _, d := range list {
			if d.AppName == app && d.Name == name {
				found = d
			}
		}
		text, _ := os.ReadFile(filepath.Join(found.cgroup(), "init", "cgroup.procs"))
		found.PID, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return found.Run != "" && good(found)
	})
	return found
}

// cgroup is the dyno's, as the agent has written down.
func (d dyno) cgroup() string {
	var box struct {
		Cgroup string `json:"cgroup"`
	}
	if text, err := os.ReadFile(filepath.Join(home, "agent/runs", d.Run, "box.json")); err == nil {
		_ = json.Unmarshal(text, &box) // a dyno that is gone meanwhile has none
	}
	return filepath.Join(dynos, box.Cgroup)
}

func ps() (list []dyno, err error) {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	res, err := client.Get("http://agent/v1/ps")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return list, json.NewDecoder(res.Body).Decode(&list)
}

// ask sends the app a request through the router.
func ask() error {
	req, err := http.NewRequest(http.MethodGet, "http://localhost:8080/", nil)
	if err != nil {
		return err
	}
	req.Host = "hello.localhost"
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || string(body) != "it works" {
		return fmt.Errorf("%s, %q, %w", res.Status, body, err)
	}
	return nil
}

// asking sends requests, one after the other, until stop is called, which says
// how many and how long the slowest took, and fails the test if one had no
// answer.
func asking(t *testing.T) (stop func() string) {
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	asked, failed, slowest := 0, []error{}, time.Duration(0)
	group.Go(func() {
		for ctx.Err() == nil {
			asked++
			began := time.Now()
			if err := ask(); err != nil {
				failed = append(failed, err)
			}
			slowest = max(slowest, time.Since(began))
		}
	})
	return func() string {
		t.Helper()
		cancel()
		group.Wait()
		if len(failed) > 0 {
			t.Errorf("%d of %d requests failed, first: %v", len(failed), asked, failed[0])
		}
		return fmt.Sprintf("%d requests answered, the slowest after %.1f s", asked-len(failed), slowest.Seconds())
	}
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return strings.TrimSpace(string(out))
}

// property is what systemd says of a unit.
func property(t *testing.T, unit, name string) string {
	t.Helper()
	return run(t, "systemctl", "show", "-P", name, unit)
}

func eventually(t *testing.T, what string, good func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !good(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come about in %v", what, patience)
		}
	}
}

// api makes a Platform API call as the first user.
func api(t *testing.T, method, path string, body, reply any) {
	t.Helper()
	token, err := os.ReadFile(home + "/coordinator/first-token")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(method, "http://localhost:5000"+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true // tests restart who answers: no connection is kept
	req.Header.Set("Accept", "application/vnd.heroku+json; version=3")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s", method, path, res.Status)
	}
	if reply != nil {
		if err := json.NewDecoder(res.Body).Decode(reply); err != nil {
			t.Fatal(err)
		}
	}
}

// scenario says what the test does to the host, in the words of who would do
// it: the host prints a table of them, with the result and the last figure.
func scenario(t *testing.T, does string) {
	t.Helper()
	t.Log("scenario: " + does)
}

// figure prints a line that the host shows also when all is well.
func figure(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("figure: "+format, args...)
}
