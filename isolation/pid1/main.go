// Command pid1 is the first process of every dyno and its only helper. Inside
// the namespaces Start made it builds the root filesystem, starts the app,
// reaps, keeps the app's output in log segments and writes the exit record.
//
// It runs as root of the dyno's own user namespace, keeps of its capabilities
// only those to signal the app and to become it, and depends on nobody once
// started. There is one per dyno: it must stay small, and never hold more than
// a buffer of output in memory.
//
// The same program is, for a moment, the first step of the app and of each
// process that is started beside it later ("app", see app.go): between fork
// and exec it gives up everything an app must not have. That step is the only
// way into a dyno: nobody enters its namespaces from outside.
//
//	main.go    build the dyno, then let it run
//	wire.go    messages and descriptors from the agent
//	root.go    root filesystem
//	app.go     the step between PID 1 and a command; privileges
//	dyno.go    the running dyno: signals, reaping, log, exit record
//	exec.go    more processes in it
//	memory.go  what an OOM kill left to see
package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"manifold/isolation/boot"
)

func main() {
	if os.Args[0] == appArg0 {
		becomeApp() // does not return
	}
	socket := os.NewFile(boot.FD, "socket")
	unix.CloseOnExec(boot.FD)
	var msg boot.Message
	got, err := receive(boot.FD, &msg)
	if err != nil {
		refuse(socket, fmt.Errorf("read what to start: %w", err))
	}
	fds, err := sort(msg, got)
	if err != nil {
		refuse(socket, fmt.Errorf("read what to start: %w", err))
	}
	if err := buildRoot(msg, fds); err != nil {
		refuse(socket, err)
	}
	d, err := start(msg, fds)
	if err != nil {
		refuse(socket, err)
	}
	if err := dropPrivileges(); err != nil {
		refuse(socket, err)
	}
	_, _ = io.WriteString(socket, boot.Started) // an agent that is gone will find the dyno by its cgroup
	socket.Close()
	d.run()
}

// refuse tells Start why there is no dyno, and ends it.
func refuse(socket io.Writer, err error) {
	_, _ = io.WriteString(socket, err.Error())
	os.Exit(1)
}
