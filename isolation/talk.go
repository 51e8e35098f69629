package isolation

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"manifold/isolation/boot"
)

// launchTimeout bounds the time PID 1 may take for each of its two steps.
const launchTimeout = 30 * time.Second

// converse sends PID 1 a message and waits for its answer, at the latest until
// deadline.
func converse(ctx context.Context, socket *net.UnixConn, msg any, files []*os.File) (deadline time.Time, err error) {
	body, err := encode(msg)
	if err != nil {
		return deadline, err
	}
	deadline, done, err := bound(ctx, socket)
	if err != nil {
		return deadline, err
	}
	defer done()
	sent := send(socket, body, files)
	// A PID 1 that refused before it read everything has left its answer.
	text, err := answer(socket)
	switch {
	case text == boot.Started+"\n":
		return deadline, nil
	case text != "":
		return deadline, errors.New(text)
	case sent == nil && err == io.EOF:
		return deadline, errors.New("PID 1 died without a word")
	}
	return deadline, fmt.Errorf("talk to PID 1: %w", errors.Join(context.Cause(ctx), sent, err))
}

// maxAnswer bounds what PID 1 says.
const maxAnswer = 4096

// answer reads what PID 1 says: that all went well, or else everything up to
// its end.
func answer(socket io.Reader) (string, error) {
	text := make([]byte, 0, maxAnswer)
	for len(text) < maxAnswer {
		n, err := socket.Read(text[len(text):maxAnswer])
		text = text[:len(text)+n]
		if err != nil || string(text) == boot.Started+"\n" {
			return string(text), err
		}
	}
	return string(text), nil
}

// bound gives a conversation with PID 1 launchTimeout, or what ctx leaves of it.
func bound(ctx context.Context, socket *net.UnixConn) (deadline time.Time, done func() bool, err error) {
	deadline = time.Now().Add(launchTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := socket.SetDeadline(deadline); err != nil {
		return deadline, nil, err
	}
	return deadline, context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Now()) }), nil
}

// encode is a message as boot.Box says, without its descriptors.
func encode(msg any) ([]byte, error) {
	body, err := json.Marshal(msg)
	if err == nil && len(body) > boot.MaxMessage {
		err = fmt.Errorf("command and environment are %d bytes; at most %d fit", len(body), boot.MaxMessage)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...), err
}

// send writes a message with its descriptors beside the first byte.
func send(socket *net.UnixConn, msg []byte, files []*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	n, _, err := socket.WriteMsgUnix(msg, unix.UnixRights(fds...), nil)
	if err != nil {
		return err
	}
	_, err = socket.Write(msg[n:])
	return err
}
