package router

import (
	"errors"
	"net"
	"path/filepath"
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
