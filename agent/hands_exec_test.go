package agent

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manifold"
)

// enterByHand asks the door for a process and returns its line, or the answer's
// status where there is none.
func (r *rig) enterByHand(dyno, protocol, body string) (conn net.Conn, from *bufio.Reader, status int) {
	r.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(r.dir, "run", "agent.sock"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "POST /v1/dynos/%s/exec HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: %s\r\nContent-Length: %d\r\n\r\n%s", dyno, protocol, len(body), body)
	from = bufio.NewReader(conn)
	res, err := http.ReadResponse(from, &http.Request{Method: http.MethodPost})
	if err != nil {
		r.t.Fatal(err)
	}
	return conn, from, res.StatusCode
}

func execBody(command string) string {
	text, _ := json.Marshal(manifold.Exec{Command: command})
	return string(text)
}

// TestExecNeedsNoCoordinator: bytes go in and come out, and the status with
// them, while it is away.
func TestExecNeedsNoCoordinator(t *testing.T) {
	r := newRig(t)
	a := r.assignment(`sleep 1000`)
	r.want(a)
	r.awaitState(a.ID, manifold.StateUp)
	r.setDown(true)
	defer r.setDown(false)
	conn, from, status := r.enterByHand("worker.1", manifold.AttachProtocol, execBody(`echo "$GREETING"; cat; exit 5`))
	if status != http.StatusSwitchingProtocols {
		t.Fatalf("status %d", status)
	}
	for _, err := range []error{
		manifold.WriteFrame(conn, manifold.FrameKind('?'), []byte("not known")...),
		manifold.WriteFrame(conn, manifold.FrameWindow, 1), // too short: of no use
		manifold.WriteFrame(conn, manifold.FrameData, []byte("in and out\n")...),
		manifold.WriteFrame(conn, manifold.FrameEnd),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	for buf := make([]byte, manifold.MaxFrame); ; {
		kind, payload, err := manifold.ReadFrame(from, buf)
		if err != nil {
			t.Fatalf("after %q: %v", out.String(), err)
		}
		if kind == manifold.FrameExit {
			if n := binary.BigEndian.Uint32(payload); n != 5 || out.String() != "hello from config\nin and out\n" {
				t.Errorf("status %d, it said %q", n, out.String())
			}
			return
		}
		if kind == manifold.FrameData {
			out.Write(payload)
		}
	}
}

// TestExecRefuses what it cannot do, in words, and survives clients that speak
// something else.
func TestExecRefuses(t *testing.T) {
	r := newRig(t)
	a, b := r.assignment(`sleep 1000`), r.assignment(`sleep 1000`)
	b.AppName = "other-app-1"
	r.want(a, b)
	r.awaitState(a.ID, manifold.StateUp)
	d := r.awaitState(b.ID, manifold.StateUp)
	r.act("/v1/dynos/"+d.Run+"/freeze", http.StatusOK)
	for _, c := range []struct {
		dyno, protocol, body string
		want                 int
	}{
		{"worker.1", "websocket", execBody("true"), http.StatusUpgradeRequired},
		{"worker.1", manifold.AttachProtocol, execBody("true"), http.StatusConflict}, // two of that name
		{"worker.9", manifold.AttachProtocol, execBody("true"), http.StatusNotFound},
		{d.Run, manifold.AttachProtocol, execBody("true"), http.StatusConflict}, // frozen
		{a.ID, manifold.AttachProtocol, execBody(""), http.StatusBadRequest},
		{a.ID, manifold.AttachProtocol, "garbage", http.StatusBadRequest},
		{a.ID, manifold.AttachProtocol, execBody(strings.Repeat("x", manifold.MaxCommand+1)), http.StatusBadRequest},
	} {
		if _, _, status := r.enterByHand(c.dyno, c.protocol, c.body); status != c.want {
			t.Errorf("%s %s %.20q: status %d, want %d", c.dyno, c.protocol, c.body, status, c.want)
		}
	}
	conn, from, status := r.enterByHand(a.ID, manifold.AttachProtocol, execBody("sleep 1000"))
	if status != http.StatusSwitchingProtocols {
		t.Fatalf("status %d", status)
	}
	_, _ = conn.Write(bytes.Repeat([]byte{0xff}, 1<<16)) // it may hang up before it has all
	if _, err := io.Copy(io.Discard, from); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("a client that speaks garbage is not let go: %v", err)
	}
	if list := r.ps(); len(list) != 2 {
		t.Errorf("then ps says %+v", list)
	}
}
