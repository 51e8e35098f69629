package router

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestStoredSocketCanBeClosed: systemd gets the socket that listens, and a
// router that takes connections from it can still be stopped while none comes.
func TestStoredSocketCanBeClosed(t *testing.T) {
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify")})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", systemd.LocalAddr().String())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := store(ln); err != nil {
		t.Fatal(err)
	}
	words, rights := make([]byte, 100), make([]byte, unix.CmsgSpace(4))
	n, _, _, _, err := systemd.ReadMsgUnix(words, rights)
	if want := "FDSTORE=1\nFDPOLL=0\nFDNAME=apps"; err != nil || string(words[:n]) != want {
		t.Fatalf("systemd got %q, %v", words[:n], err)
	}
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	defer unix.Close(fds[0])
	if flags, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Fatalf("the socket blocks: flags %#x, %v", flags, err)
	}
	accepted := make(chan error, 1)
	go func() {
		_, err := ln.Accept()
		accepted <- err
	}()
	ln.Close()
	select {
	case err := <-accepted:
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("the router still waits for a connection")
	}
}

// TestStoredSocketIsTakenBack: whatever way its address is written, a router
// that is started again goes on with the socket systemd kept.
func TestStoredSocketIsTakenBack(t *testing.T) {
	const child = "ROUTER_TEST_LISTENS_AT"
	if host, is := os.LookupEnv(child); is {
		listenAgain(t, host)
		return
	}
	for _, host := range []string{"127.0.0.1", "localhost", "0.0.0.0", "[::]", ""} {
		// A process of its own, since a socket is handed over as descriptor 3; in a
		// network of its own, since some of these are open to all.
		again := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$")
		again.Env = append(os.Environ(), child+"="+host, "LISTEN_FDS=1", "LISTEN_FDNAMES="+storedName)
		again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		again.ExtraFiles = []*os.File{null}
		if out, err := again.CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", host+":port", err, out)
		}
		null.Close()
	}
}

func listenAgain(t *testing.T, host string) {
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	link, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	check(err)
	defer unix.Close(link)
	up, err := unix.NewIfreq("lo")
	check(err)
	up.SetUint16(unix.IFF_UP)
	check(unix.IoctlIfreq(link, unix.SIOCSIFFLAGS, up))

	kept, err := net.Listen("tcp", host+":0")
	check(err)
	defer kept.Close()
	raw, err := kept.(*net.TCPListener).SyscallConn()
	check(err)
	var moved error
	check(raw.Control(func(fd uintptr) { moved = unix.Dup3(int(fd), 3, 0) }))
	check(moved)
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	_, port, err := net.SplitHostPort(kept.Addr().String())
	check(err)
	ln, err := listen(host+":"+port, slog.New(slog.DiscardHandler))
	check(err)
	ln.Close()
}
