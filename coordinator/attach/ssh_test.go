package attach

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"manifold"
)

// upgrade asks for a secret by HTTP, as the CLI does for ssh.
func (r *rig) upgrade(secret string) (*tls.Conn, *http.Response) {
	r.Helper()
	conn, err := tls.Dial("tcp", r.addr, &tls.Config{InsecureSkipVerify: true}) // as the CLI
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		r.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", secret)
	// Byte by byte: what follows the head is ssh's.
	var head []byte
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
		if _, err := conn.Read(one); err != nil {
			r.Fatalf("no answer: %v after %q", err, head)
		}
		head = append(head, one...)
	}
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), nil)
	if err != nil {
		r.Fatal(err)
	}
	return conn, res
}

// ssh opens a session as OpenSSH does.
func (r *rig) ssh(secret string) (*ssh.Client, *ssh.Session) {
	r.Helper()
	conn, res := r.upgrade(secret)
	if res.StatusCode != http.StatusSwitchingProtocols {
		r.Fatalf("answer %s", res.Status)
	}
	link, channels, requests, err := ssh.NewClientConn(conn, "dyno", &ssh.ClientConfig{User: "me", HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err != nil {
		r.Fatal(err)
	}
	client := ssh.NewClient(link, channels, requests)
	r.Cleanup(func() { client.Close() })
	session, err := client.NewSession()
	if err != nil {
		r.Fatal(err)
	}
	return client, session
}

func TestSSHTerminal(t *testing.T) {
	r := newRig(t, nil)
	client, session := r.ssh(open(r, false, nil))
	if err := session.RequestPty("xterm", 33, 101, nil); err != nil {
		t.Fatal(err)
	}
	if err := session.Setenv("LANG", "C"); err != nil {
		t.Error(err)
	}
	in, _ := session.StdinPipe()
	out, _ := session.StdoutPipe()
	if err := session.Shell(); err != nil {
		t.Fatal(err)
	}
	line, err := r.room.Wait(t.Context(), "run", "host")
	if err != nil {
		t.Fatal(err)
	}
	if got := line.Attach(); got != (manifold.Attach{Terminal: true, Rows: 33, Cols: 101}) {
		t.Errorf("the client is %+v", got)
	}
	a := r.carry(line)
	a.send(manifold.FrameStarted, "")
	a.send(manifold.FrameData, "$ ")
	got := make([]byte, 2)
	if _, err := io.ReadFull(out, got); err != nil || string(got) != "$ " {
		t.Errorf("the user got %q, %v", got, err)
	}
	io.WriteString(in, "\x03")
	a.want(manifold.FrameData, "\x03")
	if err := session.WindowChange(50, 150); err != nil {
		t.Fatal(err)
	}
	a.want(manifold.FrameWindow, string(manifold.WindowPayload(50, 150)))
	if _, err := client.NewSession(); err == nil {
		t.Error("a second session was opened")
	}
	a.send(manifold.FrameExit, string(binary.BigEndian.AppendUint32(nil, 7)))
	var exit *ssh.ExitError
	if err := session.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 7 {
		t.Errorf("it ended with %v, want status 7", err)
	}
}

// Bytes go as they are, and an end of input is one.
func TestSSHPipes(t *testing.T) {
	r := newRig(t, nil)
	_, session := r.ssh(open(r, true, nil)) // what the API was told does not count
	blob := make([]byte, 3_000_000)
	_, _ = rand.Read(blob)
	blob = append(blob, ctrlD)
	var out bytes.Buffer
	session.Stdin, session.Stdout = bytes.NewReader(blob), &out
	if err := session.Shell(); err != nil {
		t.Fatal(err)
	}
	line, err := r.room.Wait(t.Context(), "run", "host")
	if err != nil || line.Attach().Terminal {
		t.Fatalf("%+v, %v", line, err)
	}
	a := r.carry(line)
	a.send(manifold.FrameStarted, "")
	for buf := make([]byte, manifold.MaxFrame); ; { // cat
		kind, payload, err := manifold.ReadFrame(a.frames, buf)
		if err != nil {
			t.Fatal(err)
		}
		if kind == manifold.FrameEnd {
			break
		}
		a.send(manifold.FrameData, string(payload))
	}
	a.exit()
	if err := session.Wait(); err != nil || !bytes.Equal(out.Bytes(), blob) {
		t.Errorf("%d bytes in, %d back, %v", len(blob), out.Len(), err)
	}
}

func TestSSHClientGoes(t *testing.T) {
	r := newRig(t, nil)
	client, session := r.ssh(open(r, true, nil))
	if _, err := session.StdinPipe(); err != nil { // its input does not end before it does
		t.Fatal(err)
	}
	if err := session.Shell(); err != nil {
		t.Fatal(err)
	}
	a := r.join("run")
	a.send(manifold.FrameStarted, "")
	client.Close()
	a.gone()

	// One that opens a connection and asks for nothing.
	client, _ = r.ssh(open(r, true, nil))
	client.Close()
	if _, err := r.room.Wait(t.Context(), "run", "host"); err == nil {
		t.Error("a client that asked for nothing is there")
	}
}

func TestSSHWithoutASecret(t *testing.T) {
	r := newRig(t, nil)
	secret := open(r, true, nil)
	_, first := r.ssh(secret)
	if err := first.Shell(); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{secret, "", "x", strings.Repeat("x", 100)} {
		if _, res := r.upgrade(bad); res.StatusCode != http.StatusForbidden {
			t.Errorf("secret %.10q: %s", bad, res.Status)
		}
	}
	a := r.join("run")
	a.send(manifold.FrameStarted, "")
	a.exit()
	if err := first.Wait(); err != nil {
		t.Error(err)
	}
}

// A client whose session is over, and who asks for more than anybody reads, is
// let go all the same.
func TestSSHAsksForMoreThanIsRead(t *testing.T) {
	r := newRig(t, nil)
	_, session := r.ssh(open(r, false, nil))
	r.room.Cancel("run")
	r.room.mu.Lock() // the room finds out after all has come
	if ok, err := session.SendRequest("shell", true, nil); !ok || err != nil {
		t.Errorf("shell: %v, %v", ok, err)
	}
	for range 100 {
		if _, err := session.SendRequest("env", false, nil); err != nil {
			t.Error(err)
		}
	}
	other := r.dial(strings.Repeat("x", 2*maxLine))
	if _, err := other.Read(make([]byte, 1)); err == nil {
		t.Error("a stranger was answered")
	}
	r.room.mu.Unlock()
	r.stop()
}
