// Command pid1 is the first process of every dyno and its only helper. Inside
// the namespaces the agent made it builds the root filesystem, starts the app,
// reaps, keeps the app's output in log segments and writes the exit record.
// Between making the box and starting the app it may wait for long (spares).
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
	"unsafe"

	"golang.org/x/sys/unix"

	"manifold/isolation/boot"
)

// What is executed by its descriptor is named by that one's number, and ps(1),
// top(1) and perf(1) would show a process "4". The name is the main thread's,
// and only an init function runs there for certain.
func init() {
	name := []byte("manifold-pid1\x00") // at most 15 bytes: PR_SET_NAME(2const)
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
}

func main() {
	if os.Args[0] == appArg0 {
		becomeApp() // does not return
	}
	unix.Umask(0o022) // the agent's is not for a dyno's files
	socket := os.NewFile(boot.FD, "socket")
	unix.CloseOnExec(boot.FD)
	d, err := prepare()
	tell(socket, err)
	err = d.begin()
	tell(socket, err)
	socket.Close()
	d.run()
}

// prepare makes what it can before it is known what will run.
func prepare() (*dyno, error) {
	var box boot.Box
	got, err := receive(boot.FD, &box)
	if err != nil {
		return nil, fmt.Errorf("read how to make the box: %w", err)
	}
	fds, err := boxDescriptors(box, got)
	if err != nil {
		return nil, fmt.Errorf("read how to make the box: %w", err)
	}
	if err := prepareRoot(box, fds.scratch); err != nil {
		return nil, err
	}
	return newDyno(box.Place, fds)
}

// begin starts the app. It waits for what that is, for as long as there is an
// agent to say it.
func (d *dyno) begin() error {
	got, err := receive(boot.FD, &d.msg)
	if err != nil {
		return fmt.Errorf("read what to start: %w", err)
	}
	app, err := appDescriptors(d.msg, got)
	if err != nil {
		return fmt.Errorf("read what to start: %w", err)
	}
	if err := completeRoot(d.msg, app.layers); err != nil {
		return err
	}
	if err := d.start(app); err != nil {
		return err
	}
	return dropPrivileges()
}

// tell answers the agent: nil is that all went well, and anything else ends
// the dyno. An agent that is gone will find the dyno by its cgroup.
func tell(socket io.Writer, err error) {
	if err != nil {
		_, _ = io.WriteString(socket, err.Error())
		os.Exit(1)
	}
	_, _ = io.WriteString(socket, boot.Started+"\n")
}
