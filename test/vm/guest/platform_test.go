//go:build guest

package guest

import (
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

// patience is for an emulated processor.
const patience = 90 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv("MANIFOLD_TEST_WORK") == "" {
		fmt.Fprintln(os.Stderr, "these tests change the machine they run on: go test ./test/vm runs them in one of its own")
		os.Exit(1)
	}
	if err := install(os.Getenv("MANIFOLD_TEST_WORK")); err != nil {
		fmt.Fprintln(os.Stderr, "install the platform:", err)
		os.Exit(1)
	}
	code := m.Run()
	if code != 0 {
		out, _ := exec.Command("journalctl", "--no-pager", "-o", "cat", "-n", "150", "-u", "manifold-*").CombinedOutput()
		fmt.Printf("the journal of our units:\n%s\n", out)
	}
	os.Exit(code)
}

// install puts programs, units and a stack in place, and an app with a slug
// into the coordinator's store: a build would take minutes here.
func install(work string) error {
	for _, c := range []string{
		"cp " + work + "/bin/* /usr/bin/", "cp " + work + "/units/* /etc/systemd/system/",
		"mkdir -p " + home, "cp -r " + work + "/stacks " + home + "/", "systemctl daemon-reload",
	} {
		if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", c, err, out)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	image, err := pack(ctx)
	if err != nil {
		return err
	}
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
	app, err := s.CreateApp(ctx, manifold.App{Name: "hello", Stack: "tiny", BuildStack: "tiny"}, user)
	if err != nil {
		return err
	}
	_, err = s.Deploy(ctx, app.ID, manifold.Slug{
		Image: image, Stack: "tiny", ProcessTypes: map[string]string{"web": "exec busybox httpd -f -p $PORT -h /app/www"},
	}, "Deploy", user)
	return err
}

// pack makes the app's slug where the coordinator keeps them.
func pack(ctx context.Context) (manifold.Image, error) {
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
	d := awaitDyno(t, func(d dyno) bool { return d.State == manifold.StateUp })
	eventually(t, "an answer through the router", func() bool { return ask() == nil })
	return d
}

// dyno is what the agent's socket says of one, and its PID 1 on this host.
type dyno struct {
	manifold.Dyno
	PID int
}

func awaitDyno(t *testing.T, good func(dyno) bool) (found dyno) {
	t.Helper()
	eventually(t, "the dyno", func() bool {
		found = dyno{}
		list, err := ps()
		if err != nil || len(list) != 1 {
			return false
		}
		found.Dyno = list[0]
		text, _ := os.ReadFile(filepath.Join(found.cgroup(), "init", "cgroup.procs"))
		found.PID, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return good(found)
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

func ps() (list []manifold.Dyno, err error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
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
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
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

// asking sends requests, one after the other, until stop is called, which
// fails the test if one had no answer.
func asking(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	asked, failed := 0, []error{}
	group.Go(func() {
		for ctx.Err() == nil {
			asked++
			if err := ask(); err != nil {
				failed = append(failed, err)
			}
		}
	})
	return func() {
		t.Helper()
		cancel()
		group.Wait()
		t.Logf("%d requests meanwhile", asked)
		if len(failed) > 0 {
			t.Errorf("%d of %d requests failed, first: %v", len(failed), asked, failed[0])
		}
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
