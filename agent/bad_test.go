package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"manifold"
	"manifold/test/bubble"
)

func TestUnknownBoxIsKilledAndBadRecordSetAside(t *testing.T) {
	r := newRig(t)
	lost, corrupt, newer := r.assignment(`sleep 1000`), r.assignment(`sleep 1000`), r.assignment(`sleep 1000`)
	r.want(lost, corrupt, newer)
	runs := map[string]bool{}
	for _, a := range []manifold.Assignment{lost, corrupt, newer} {
		runs[r.awaitState(a.ID, manifold.StateUp).Run] = true
	}
	r.end(syscall.SIGKILL)
	dynos := filepath.Join(r.dir, "home", "agent", "dynos")
	if err := os.RemoveAll(filepath.Join(dynos, lost.ID)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dynos, corrupt.ID, "record.json"), []byte(`{"version":1,"assig`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dynos, newer.ID, "record.json"), []byte(`{"version":99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	for _, a := range []manifold.Assignment{lost, corrupt, newer} {
		d := r.await(a.ID, "a new run", func(d manifold.Dyno) bool { return d.State == manifold.StateUp && !runs[d.Run] })
		delete(runs, d.Run)
	}
	eventually(t, "only the new boxes", func() bool {
		dirs, _ := filepath.Glob(filepath.Join(r.dir, "home", "agent", "runs", "*-*-*-*-*"))
		return len(dirs) == 3
	}, nil)
	for _, text := range []string{"record cannot be used", "it is of version 99, this agent reads version 1", "no record names"} {
		if !strings.Contains(r.agentLog(), text) {
			t.Errorf("the agent does not say %q", text)
		}
	}
}

func TestTwoAgentsOnOneHome(t *testing.T) {
	r := newRig(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	second := exec.Command(self)
	second.Env = r.env
	out, err := second.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another agent runs on") {
		t.Errorf("the second agent: %v, %s", err, out)
	}
}

func TestSocketAgainstGarbage(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(r.dir, "run", "agent.sock")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	for _, garbage := range []string{"\x00\x01\x02", "GET / HTTP/9\r\n\r\n", "POST /v1/teardown HTTP/1.1\r\n", strings.Repeat("A", 1<<20)} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte(garbage)) // it may hang up on us
		c.Close()
	}
	var idle []net.Conn
	for range 200 { // more than it serves at once: they wait, and give way
		c, err := net.Dial("unix", path)
		if err != nil {
			break // the backlog is full
		}
		idle = append(idle, c)
	}
	for _, c := range idle {
		c.Close()
	}
	if list := r.ps(); len(list) != 0 {
		t.Errorf("ps says %+v", list)
	}
}

func TestJoinWithAWrongToken(t *testing.T) {
	for name, c := range map[string]struct{ token, says string }{
		"unknown":       {"wrong." + strings.Repeat("0", 64), "not the one the join token names"},
		"malformed":     {"nonsense", "malformed"},
		"wrong secret":  {"", "wrong join token"},
		"no token file": {"-", "manifold-coordinator join-token"},
	} {
		t.Run(name, func(t *testing.T) {
			coord := newCoordinator(t)
			if c.token == "" {
				c.token = "other." + coord.token[strings.IndexByte(coord.token, '.')+1:]
			}
			file := filepath.Join(t.TempDir(), "token")
			if c.token != "-" {
				if err := os.WriteFile(file, []byte(c.token), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			a := newAgent(Config{JoinTokenFile: file, Settings: manifold.Settings{FleetAddr: coord.addr()}, Log: slog.New(slog.DiscardHandler)}, home{t.TempDir()}, "")
			_, err := a.identify(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("it says %v", err)
			}
			if err != nil && c.token != "-" && strings.Contains(err.Error(), c.token) {
				t.Errorf("the token is in the error: %v", err)
			}
		})
	}
}

func TestDesiredThatIsNotForUs(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		a := fakeAssignment()
		w.start()
		w.want(a)
		time.Sleep(time.Second)
		run := w.dyno(a).Run
		for name, d := range map[string]manifold.Desired{
			"of another cluster": {Cluster: "other", Revision: 100},
			"older":              {Cluster: testCluster, Revision: 0},
		} {
			if err := w.agent.accept(d); err == nil {
				t.Errorf("what is %s was accepted", name)
			}
		}
		bad := fakeAssignment()
		bad.ID = "../../etc"
		noImage := fakeAssignment()
		noImage.Layers = nil
		w.want(a, bad, noImage)
		time.Sleep(time.Minute)
		if d := w.dyno(a); d.State != manifold.StateUp || d.Run != run {
			t.Errorf("the dyno is %+v", d)
		}
		if n := len(w.agent.observation().Dynos); n != 1 {
			t.Errorf("%d dynos", n)
		}
	})
}

// TestDesiredFileIsCorrupt: then nothing may be stopped for not being in it.
func TestDesiredFileIsCorrupt(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		a := fakeAssignment()
		w.start()
		w.want(a)
		time.Sleep(time.Second)
		run := w.dyno(a).Run
		w.stop()
		if err := os.WriteFile(w.home.desired(), []byte(`{"cluster":`), 0o600); err != nil {
			t.Fatal(err)
		}
		w.start()
		time.Sleep(time.Hour)
		if d := w.dyno(a); d.State != manifold.StateUp || d.Run != run {
			t.Errorf("the dyno is %+v", d)
		}
		if _, err := os.Stat(w.home.desired() + ".corrupt"); err != nil {
			t.Errorf("the bad file: %v", err)
		}
	})
}

func TestSecretsStayOutOfLogsAndModes(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		var log bytes.Buffer
		a := fakeAssignment()
		a.Env = map[string]string{"TOKEN": "s3cr3t"}
		w.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		w.start()
		w.want(a)
		time.Sleep(time.Second)
		w.want()
		time.Sleep(time.Second)
		w.stop()
		if strings.Contains(log.String(), "s3cr3t") {
			t.Errorf("the log tells a config var:\n%s", log.String())
		}
		for _, file := range []string{w.home.desired()} {
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", file, info, err)
			}
		}
	})
}

// TestWrongBytesOnTheStream: what is known stays, and a coordinator that
// goes on like that is not asked all the time.
func TestWrongBytesOnTheStream(t *testing.T) {
	for name, line := range map[string]string{
		"garbage":         `{"revision":"nine"}`,
		"another cluster": `{"cluster":"other","revision":9}`,
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				a := newAgent(Config{Log: slog.New(slog.DiscardHandler)}, home{t.TempDir()}, "")
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				a.desired, a.known = manifold.Desired{Cluster: "c", Revision: 5}, true
				calls := 0
				a.up = &streamUp{stream: func(each func([]byte) error) error {
					calls++
					return each([]byte(line))
				}}
				a.follow(ctx)
				if calls < 100 || calls > 130 {
					t.Errorf("it asked %d times in ten minutes", calls)
				}
				if a.desired.Revision != 5 {
					t.Errorf("revision %d", a.desired.Revision)
				}
				if _, err := os.Stat(a.home.desired()); err == nil {
					t.Error("it was saved")
				}
			})
		})
	}
}

type streamUp struct {
	fakeUp
	stream func(each func([]byte) error) error
}

func (u *streamUp) Stream(_ context.Context, _ string, each func([]byte) error) error {
	return u.stream(each)
}

func TestRecordsThatCannotBeUsed(t *testing.T) {
	good := record{Version: recordVersion, Assignment: fakeAssignment()}
	good.Dyno.State = "up"
	edit := func(change func(*record)) []byte {
		r := good
		change(&r)
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for name, text := range map[string][]byte{
		"empty":         nil,
		"cut short":     edit(func(*record) {})[:200],
		"newer":         edit(func(r *record) { r.Version++ }),
		"another's":     edit(func(r *record) { r.Assignment.ID = uuid.NewString() }),
		"unknown state": edit(func(r *record) { r.Dyno.State = "flying" }),
		"run a path":    edit(func(r *record) { r.Dyno.Run = "../../x" }),
		"no command":    edit(func(r *record) { r.Assignment.Command = "" }),
		"binary":        bytes.Repeat([]byte{0xff}, 1000),
	} {
		s := shelf{t.TempDir(), slog.New(slog.DiscardHandler)}
		path := s.path(good.Assignment.ID)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		records, err := s.load()
		if err != nil || len(records) != 0 {
			t.Errorf("%s: %d records, %v", name, len(records), err)
		}
		if kept, err := os.ReadFile(path + ".corrupt"); err != nil || !bytes.Equal(kept, text) {
			t.Errorf("%s: it was not set aside: %v", name, err)
		}
	}
}

// TestJoinOnAFullDisk: an identity that cannot be written down is not asked for
// again: each would be another host to the coordinator.
func TestJoinOnAFullDisk(t *testing.T) {
	coord := newCoordinator(t)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(coord.token), 0o600); err != nil {
		t.Fatal(err)
	}
	h := home{t.TempDir()}
	smallDisk(t, h.dir)
	fill := filepath.Join(h.dir, "filler")
	if err := os.WriteFile(fill, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill: %v", err)
	}
	a := newAgent(Config{JoinTokenFile: file, Settings: manifold.Settings{FleetAddr: coord.addr()}, Log: slog.New(slog.DiscardHandler)}, h, "")
	for range 3 {
		if _, err := a.identify(t.Context()); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("on a full disk: %v", err)
		}
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	id, err := a.identify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := readIdentity(h); err != nil || kept != id {
		t.Errorf("it is %s, and written down is %s, %v", id.ID, kept.ID, err)
	}
	coord.mu.Lock()
	defer coord.mu.Unlock()
	if len(coord.requests) != 1 {
		t.Errorf("it asked %q", coord.requests)
	}
}

// smallDisk puts a file system with room for little over dir.
func smallDisk(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatalf("mount a small tmpfs (this test needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
}

// TestImageThatIsWantedWhileOthersAreCollected: an app goes back to an old
// slug at the very moment at which what nobody needs is thrown away.
func TestImageThatIsWantedWhileOthersAreCollected(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		agent := w.start()
		a := fakeAssignment()
		a.Layers = []manifold.Image{{Digest: "sha256:old"}}
		kept := make(chan bool)
		w.images.collect = func(keep func(string) bool) {
			kept <- keep("sha256:old")
			w.want(a)
			kept <- keep("sha256:old")
		}
		ctx, cancel := context.WithCancel(agent.ctx)
		defer cancel()
		agent.work.Go(func() { agent.collectImages(ctx) })
		if before, after := <-kept, <-kept; before || !after {
			t.Errorf("it is kept before it is wanted: %v; when it is: %v", before, after)
		}
	})
}
