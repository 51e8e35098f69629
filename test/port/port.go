// Package port gives a test an address where nobody listens. One that was
// listened at and closed again may be anybody's the next moment: other tests run
// beside this one. It must hold nothing else.
package port

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Closed returns an address of loopback where connections are refused, unless
// the test itself listens there, as often as it likes. Nobody else is given its
// port before the test ends.
func Closed(t testing.TB) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	// A port that is bound is not drawn for others; who asks for it by number may
	// listen there if both sides have this option, which net.Listen sets.
	name, err := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err := errors.Join(err, unix.Bind(fd, name)); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", bound.(*unix.SockaddrInet4).Port)
}
