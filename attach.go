package manifold

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// Attach makes a client's terminal, or its pipes, the standard streams of a
// process in a dyno.
type Attach struct {
	Terminal bool   `json:"terminal"`
	Rows     uint16 `json:"rows,omitempty"` // of the terminal's window; 0: 24
	Cols     uint16 `json:"cols,omitempty"` // 0: 80
}

// Exec is one more process in a running dyno, for a client that is attached
// to it. It is desired as long as its session lasts; an agent starts it once,
// when the coordinator lets it into the session.
type Exec struct {
	ID         string            `json:"id"` // UUID, of the session
	Assignment string            `json:"assignment"`
	Command    string            `json:"command"`
	Env        map[string]string `json:"env,omitempty"` // over the dyno's own; secret
	Attach     Attach            `json:"attach"`
}

// A session joins a client with one process. Agent and coordinator speak
// frames over a connection of its own, so that a client that does not read
// holds back its own process and nobody else: TCP is the only buffer. The
// connection is a POST that asks for an upgrade to AttachProtocol.
//
//	agent                                         coordinator
//	  POST /fleet/v1/attach/{session} ─────────▶  waits for the client
//	                         ◀──────────── 101    it is there, and AttachHeader says what it is;
//	                                              410: it did not come (R13);
//	                                              404: no such session, or it was joined before
//	  starts the process
//	  FrameStarted ────────────────────────────▶  the client may send
//	  FrameData ───────────────────────────────▶  output
//	                         ◀────── FrameData    input
//	                         ◀─────── FrameEnd    of input; for pipes
//	                         ◀──── FrameWindow    rows and columns
//	  FrameExit ───────────────────────────────▶  the process has ended and this was all
//
// A connection that ends without FrameExit is a lost client to the agent and
// a lost dyno to the coordinator.
const AttachProtocol = "manifold-attach/1"

// AttachHeader holds an Attach as JSON.
const AttachHeader = "X-Manifold-Attach"

// FrameKind is a frame's first byte. A reader ignores kinds it does not know.
type FrameKind byte

// The frames.
const (
	FrameStarted FrameKind = 'S'
	FrameData    FrameKind = 'D'
	FrameEnd     FrameKind = 'E'
	FrameWindow  FrameKind = 'W' // rows and columns, 2 bytes each, big endian
	FrameExit    FrameKind = 'X' // exit code or 128 + signal, 4 bytes, big endian
)

// MaxFrame bounds a frame's payload.
const MaxFrame = 32 << 10

// frameHead is the kind and the payload's length, 2 bytes, big endian.
const frameHead = 3

// WriteFrame writes one frame in one Write.
func WriteFrame(w io.Writer, kind FrameKind, payload ...byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("a frame of %d bytes is too long", len(payload))
	}
	frame := make([]byte, frameHead, frameHead+len(payload))
	frame[0] = byte(kind)
	binary.BigEndian.PutUint16(frame[1:], uint16(len(payload)))
	_, err := w.Write(append(frame, payload...))
	return err
}

// ReadFrame reads one frame. The payload lies in buf, which must hold
// MaxFrame bytes.
func ReadFrame(r *bufio.Reader, buf []byte) (FrameKind, []byte, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(head[1:]))
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes is too long", n)
	}
	_, err := io.ReadFull(r, buf[:n])
	return FrameKind(head[0]), buf[:n], err
}

// Window reads a FrameWindow's payload, WindowPayload makes it.
func Window(payload []byte) (rows, cols uint16, ok bool) {
	if len(payload) != 4 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]), true
}

// WindowPayload is what Window reads.
func WindowPayload(rows, cols uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, rows), cols)
}
