package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// storedName is our listening socket's name in systemd's store.
const storedName = "apps"

// listen opens the socket for apps' requests. Under systemd it lies in the
// unit's file descriptor store too (sd_pid_notify_with_fds(3)): while a router
// restarts, clients wait in its queue and none is refused.
//
//	first start   listen ──▶ store
//	restart       store ──▶ the same socket, unless it is for another address
//	stop          systemd closes it
func listen(addr string, log *slog.Logger) (net.Listener, error) {
	want, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	stored, err := activation.ListenersWithNames()
	if err != nil {
		log.Warn("what systemd keeps for the router cannot be taken back", "err", err)
	}
	var found net.Listener
	for _, l := range stored[storedName] {
		if l == nil {
			continue
		}
		if found == nil && isAt(l.Addr(), want) {
			found = l
			continue
		}
		l.Close()
		forget(log)
	}
	if found != nil {
		return found, nil
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := store(ln); err != nil {
		log.Warn("systemd does not keep the router's socket: requests are refused during a restart", "err", err)
	}
	return ln, nil
}

// isAt says whether a socket listens where it should. For Go "", 0.0.0.0 and [::]
// are one: all addresses of the host.
func isAt(addr net.Addr, want *net.TCPAddr) bool {
	at, ok := addr.(*net.TCPAddr)
	if !ok || at.Port != want.Port || at.Zone != want.Zone {
		return false
	}
	all := func(ip net.IP) bool { return len(ip) == 0 || ip.IsUnspecified() }
	return at.IP.Equal(want.IP) || all(at.IP) && all(want.IP)
}

// store hands systemd a copy of the socket, where there is a systemd.
func store(ln net.Listener) error {
	path := os.Getenv("NOTIFY_SOCKET")
	tcp, ok := ln.(*net.TCPListener)
	if path == "" || !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// FDPOLL=0: a socket that listens is never "hung up".
	words := []byte("FDSTORE=1\nFDPOLL=0\nFDNAME=" + storedName)
	// Not by way of File: its Fd makes the socket a blocking one, and a router
	// that waits for a connection in accept(2) could not be stopped.
	var sent error
	err = raw.Control(func(socket uintptr) {
		sent = unix.Sendmsg(fd, words, unix.UnixRights(int(socket)), &unix.SockaddrUnix{Name: path}, 0)
	})
	return errors.Join(err, sent)
}

// forget has systemd drop what it keeps of ours.
func forget(log *slog.Logger) { tell(log, "FDSTOREREMOVE=1\nFDNAME="+storedName) }

func tell(log *slog.Logger, state string) (told bool) {
	told, err := daemon.SdNotify(false, state)
	if err != nil {
		log.Warn("systemd could not be told how the router is", "err", err)
	}
	return told
}

// notify tells systemd that the router is ready, and feeds the unit's watchdog
// while connections are taken, until ctx ends.
func notify(ctx context.Context, ln net.Listener, log *slog.Logger) {
	if !tell(log, daemon.SdNotifyReady+"\nSTATUS=takes requests on "+ln.Addr().String()) {
		return
	}
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog's setting cannot be read", "err", err)
	}
	for every > 0 {
		if err := served(ctx, ln.Addr().String()); err == nil {
			tell(log, daemon.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			log.Error("the watchdog is not fed: a connection to ourselves was not served", "err", err)
		}
		if sleep(ctx, every/3); ctx.Err() != nil {
			break
		}
	}
	<-ctx.Done()
	tell(log, daemon.SdNotifyStopping+"\nSTATUS=open requests end")
}

// served makes a connection to ourselves and says nothing on it, until the
// router ends it as it must. To connect would prove little: the kernel's queue
// does that.
func served(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	closeWrite(conn)
	until, _ := ctx.Deadline()
	_ = conn.SetReadDeadline(until)
	if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("not closed but %d bytes and %w", n, err)
	}
	return nil
}
