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

// maxDescriptors bounds what may come beside one message.
const maxDescriptors = 64

// receive reads one JSON message behind its length, and the descriptors beside
// its first byte, from a blocking socket.
func receive(socket int, into any) (fds []int, err error) {
	head := make([]byte, 4)
	oob := make([]byte, unix.CmsgSpace(4*maxDescriptors))
	n, oobn, err := 0, 0, error(unix.EINTR)
	for err == unix.EINTR { // the runtime's own signals come at any time
		n, oobn, _, _, err = unix.Recvmsg(socket, head, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_WAITALL)
	}
	if err != nil || n != len(head) {
		return nil, fmt.Errorf("receive length: %d bytes, %w", n, errors.Join(err, io.ErrUnexpectedEOF))
	}
	control, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(control) != 1 {
		return nil, fmt.Errorf("%d control messages, %w", len(control), errors.Join(err, io.ErrUnexpectedEOF))
	}
	if fds, err = unix.ParseUnixRights(&control[0]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head)
	if size > boot.MaxMessage {
		return fds, fmt.Errorf("message of %d bytes is too long", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(readerOf(socket), body); err != nil {
		return fds, err
	}
	return fds, json.Unmarshal(body, into)
}

// descriptors are what came with boot.Box.
type descriptors struct {
	scratch int
	dir     *os.File
	procs   []*os.File
	stats   []*os.File
	ooms    *os.File // nil where the kernel ends the whole dyno by itself
}

// boxDescriptors gives each descriptor its meaning, by its place.
func boxDescriptors(box boot.Box, got []int) (descriptors, error) {
	var fds descriptors
	want := 2 + box.Procs + len(box.Stats)
	if box.OOMs {
		want++
	}
	if len(got) != want {
		return fds, fmt.Errorf("%d descriptors came, want %d", len(got), want)
	}
	fds.scratch, got = got[0], got[1:]
	fds.dir = next(&got, "dir")
	for range box.Procs {
		fds.procs = append(fds.procs, next(&got, "cgroup.procs"))
	}
	for _, name := range box.Stats {
		fds.stats = append(fds.stats, next(&got, name))
	}
	if box.OOMs {
		if err := unix.SetNonblock(got[0], true); err != nil {
			return fds, err
		}
		fds.ooms = next(&got, "eventfd")
	}
	return fds, nil
}

// appFiles are the descriptors that came with boot.Message.
type appFiles struct {
	layers []int
	stdin  *os.File
	attach *os.File // the app's output or the socket for its terminal, or nil
}

func appDescriptors(msg boot.Message, got []int) (appFiles, error) {
	var fds appFiles
	attached := msg.Output || msg.Terminal != nil
	want := msg.Layers + 1
	if attached {
		want++
	}
	if len(got) != want {
		return fds, fmt.Errorf("%d descriptors came, want %d", len(got), want)
	}
	fds.layers, got = got[:msg.Layers], got[msg.Layers:]
	fds.stdin = next(&got, "stdin")
	if attached {
		fds.attach = next(&got, "attach")
	}
	return fds, nil
}

func next(got *[]int, name string) *os.File {
	f := os.NewFile(uintptr((*got)[0]), name)
	*got = (*got)[1:]
	return f
}

// send writes one message as receive reads it.
func send(socket *os.File, msg any, files []*os.File) error {
	body, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	if err := unix.Sendmsg(int(socket.Fd()), head, unix.UnixRights(fds...), nil, 0); err != nil {
		return err
	}
	_, err = socket.Write(body)
	return err
}

// readerOf reads a blocking descriptor without handing it to the runtime.
type readerOf int

func (fd readerOf) Read(p []byte) (int, error) {
	n, err := unix.Read(int(fd), p)
	for err == unix.EINTR {
		n, err = unix.Read(int(fd), p)
	}
	if err == nil && n == 0 {
		return 0, io.EOF
	}
	return max(n, 0), err
}
