// Command pid1 is the first process of every dyno and its only helper. Inside
// the namespaces Start made it builds the root filesystem, starts the app,
// reaps, keeps the app's output in log segments and writes the exit record.
//
// It runs as root of the dyno's own user namespace, keeps of its capabilities
// only the one to signal the app, and depends on nobody once started. There
// is one per dyno: it must stay small, and never hold more than a buffer of
// output in memory.
//
// The same program is, for a moment, the app's first step ("app", see app.go):
// between fork and exec it gives up everything an app must not have.
package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
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
	msg, fds, err := receive(boot.FD)
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

// descriptors are what came with the message.
type descriptors struct {
	layers  []int
	scratch int
	dir     *os.File
	stdin   *os.File
	procs   []*os.File
	stats   []*os.File
	ooms    *os.File // nil where the kernel ends the whole dyno by itself
}

// receive reads the message and its descriptors.
func receive(socket int) (boot.Message, descriptors, error) {
	var msg boot.Message
	var fds descriptors
	head := make([]byte, 4)
	oob := make([]byte, unix.CmsgSpace(4*64))
	n, oobn, _, _, err := unix.Recvmsg(socket, head, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_WAITALL)
	if err != nil || n != len(head) {
		return msg, fds, fmt.Errorf("receive length: %d bytes, %w", n, errors.Join(err, io.ErrUnexpectedEOF))
	}
	size := binary.BigEndian.Uint32(head)
	if size > boot.MaxMessage {
		return msg, fds, fmt.Errorf("message of %d bytes is too long", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(readerOf(socket), body); err != nil {
		return msg, fds, err
	}
	if err := json.Unmarshal(body, &msg); err != nil {
		return msg, fds, err
	}
	control, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(control) != 1 {
		return msg, fds, fmt.Errorf("%d control messages, %w", len(control), errors.Join(err, io.ErrUnexpectedEOF))
	}
	got, err := unix.ParseUnixRights(&control[0])
	if err != nil {
		return msg, fds, err
	}
	want := msg.Layers + 3 + msg.Procs + len(msg.Stats)
	if msg.OOMs {
		want++
	}
	if len(got) != want {
		return msg, fds, fmt.Errorf("%d descriptors came, want %d", len(got), want)
	}
	fds.layers, got = got[:msg.Layers], got[msg.Layers:]
	fds.scratch = got[0]
	fds.dir = os.NewFile(uintptr(got[1]), "dir")
	fds.stdin = os.NewFile(uintptr(got[2]), "stdin")
	got = got[3:]
	for _, fd := range got[:msg.Procs] {
		fds.procs = append(fds.procs, os.NewFile(uintptr(fd), "cgroup.procs"))
	}
	got = got[msg.Procs:]
	for i, name := range msg.Stats {
		fds.stats = append(fds.stats, os.NewFile(uintptr(got[i]), name))
	}
	if msg.OOMs {
		if err := unix.SetNonblock(got[len(got)-1], true); err != nil {
			return msg, fds, err
		}
		fds.ooms = os.NewFile(uintptr(got[len(got)-1]), "eventfd")
	}
	return msg, fds, nil
}

// readerOf reads a blocking descriptor without handing it to the runtime.
type readerOf int

func (fd readerOf) Read(p []byte) (int, error) {
	n, err := unix.Read(int(fd), p)
	if err == nil && n == 0 {
		return 0, io.EOF
	}
	return max(n, 0), err
}
