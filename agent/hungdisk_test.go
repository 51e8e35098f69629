package agent

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"manifold"
)

// TestHungDisk: the disk with $MANIFOLD_HOME takes no writes for a while, as a
// controller or a network volume that hangs. The dyno serves on and is not
// restarted, whether the agent waits for the disk or is killed over it; what
// was wanted meanwhile comes when the disk is back, and no line is lost.
func TestHungDisk(t *testing.T) {
	r := newRig(t)
	disk := r.ownDisk()
	a := r.assignment(`mkdir /tmp/www && echo fine > /tmp/www/index.html; (i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done) & exec busybox httpd -f -p $PORT -h /tmp/www`)
	a.Dyno, a.Web = "web.1", true
	r.want(a)
	before := r.awaitState(a.ID, manifold.StateUp)
	serves := func(when string) {
		t.Helper()
		client := http.Client{Timeout: patience}
		for range 10 {
			res, err := client.Get("http://" + before.Addr + "/")
			if err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || string(body) != "fine\n" {
				t.Fatalf("%s it answers %q, %v", when, body, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	later := r.assignment("sleep 1000")
	for _, when := range []string{"while the agent waits", "while the agent dies"} {
		disk.hang(true)
		r.want(a, later) // which needs a record
		serves(when)
		if when == "while the agent dies" {
			if err := r.agent.Process.Signal(syscall.SIGKILL); err != nil { // it may end only when the disk is back
				t.Fatal(err)
			}
			serves("with the agent dead")
		}
		if d, ok := r.dyno(later.ID); ok && d.State != manifold.StateStarting {
			t.Errorf("%s a dyno that no record names is %s", when, d.State)
		}
		disk.hang(false)
		if when == "while the agent dies" {
			_ = r.agent.Wait() // it was killed
			r.start()
		}
		r.awaitState(later.ID, manifold.StateUp)
		r.want(a)
		r.awaitGone(later.ID)
		later = r.assignment("sleep 1000")
	}
	serves("afterwards")
	if d := r.awaitState(a.ID, manifold.StateUp); d.Run != before.Run || d.Crashes != 0 {
		t.Errorf("it was %+v and is %+v", before, d)
	}
	r.want()
	r.awaitGone(a.ID)
	r.awaitLine(before.Run, "heroku", "Process exited")
	checkCount(t, r, before.Run)
}

// ownDisk moves the rig's home to a file system of its own.
func (r *rig) ownDisk() *disk {
	r.t.Helper()
	r.teardown()
	home, image := filepath.Join(r.dir, "home"), filepath.Join(r.dir, "disk")
	stacks, err := os.Readlink(filepath.Join(home, "stacks"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, cmd := range [][]string{
		{"truncate", "-s", "1G", image}, {"mke2fs", "-q", "-F", "-t", "ext4", image}, {"mount", "-o", "loop", image, home},
	} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			r.t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
	}
	d := &disk{t: r.t, dir: home}
	r.t.Cleanup(func() { d.hang(false) }) // before the agent is to end: it could not
	r.atEnd = func() {
		eventually(r.t, "the rig's disk can be unmounted", func() bool { return unix.Unmount(home, 0) == nil }, nil)
	}
	if err := os.Symlink(stacks, filepath.Join(home, "stacks")); err != nil {
		r.t.Fatal(err)
	}
	r.start()
	return d
}

type disk struct {
	t    testing.TB
	dir  string
	hung bool
}

// hang has every write to the disk wait (ioctl_fs, FIFREEZE), or go on.
func (d *disk) hang(hang bool) {
	d.t.Helper()
	if d.hung == hang {
		return
	}
	f, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	const fifreeze, fithaw = 0xc0045877, 0xc0045878 // linux/fs.h
	request := uintptr(fithaw)
	if hang {
		request = fifreeze
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, 0); errno != 0 {
		d.t.Fatal(fmt.Errorf("freeze %t: %w", hang, errno))
	}
	d.hung = hang
}
