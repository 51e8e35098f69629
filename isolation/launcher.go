package isolation

import (
	"embed"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

//go:generate env CGO_ENABLED=0 go build -trimpath "-ldflags=-s -w" -o launcher/pid1 ./pid1

// The agent carries PID 1 in itself, so that the two are always of one build.
//
//go:embed all:launcher
var launcherFiles embed.FS

// sealLauncher puts PID 1's program into a sealed memory file (memfd_create(2),
// F_ADD_SEALS): what a dyno executes can be written by nobody, and is no file
// of the host's.
func sealLauncher() (*os.File, error) {
	program, err := launcherFiles.ReadFile("launcher/pid1")
	if err != nil {
		return nil, fmt.Errorf("this program was built without a dyno's PID 1: build with make, or run go generate ./isolation first: %w", err)
	}
	fd, err := unix.MemfdCreate("manifold-pid1", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before 6.3 there was no MFD_EXEC
		fd, err = unix.MemfdCreate("manifold-pid1", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "manifold-pid1")
	if _, err := f.Write(program); err != nil {
		f.Close()
		return nil, fmt.Errorf("fill memory file: %w", err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		f.Close()
		return nil, fmt.Errorf("seal memory file: %w", err)
	}
	return f, nil
}
