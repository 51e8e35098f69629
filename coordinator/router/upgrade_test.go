package router

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// wsEcho is a dyno that answers a WebSocket handshake (RFC 6455, 4.2) and
// sends every frame's payload back unmasked. Its first frame comes with the
// handshake's answer in one write.
func wsEcho(t testing.TB) string {
	return rawDyno(t, func(c net.Conn, br *bufio.Reader) {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if !strings.EqualFold(req.Header.Get("Upgrade"), "websocket") || !strings.EqualFold(req.Header.Get("Connection"), "upgrade") {
			fmt.Fprint(c, "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")
			return
		}
		sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n\x81\x05hello",
			base64.StdEncoding.EncodeToString(sum[:]))
		for {
			payload, err := readFrame(br)
			if err != nil {
				return
			}
			if _, err := c.Write(append([]byte{0x82, 127, 0, 0, 0, 0}, append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)...)); err != nil {
				return
			}
		}
	})
}

func readFrame(br *bufio.Reader) ([]byte, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(br, head); err != nil {
		return nil, err
	}
	n := uint64(head[1] & 0x7f)
	if n == 127 {
		var long [8]byte
		if _, err := io.ReadFull(br, long[:]); err != nil {
			return nil, err
		}
		n = binary.BigEndian.Uint64(long[:])
	}
	var mask [4]byte
	if head[1]&0x80 != 0 {
		if _, err := io.ReadFull(br, mask[:]); err != nil {
			return nil, err
		}
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(br, payload); err != nil {
		return nil, err
	}
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return payload, nil
}

func maskedFrame(payload string) []byte {
	mask := [4]byte{1, 2, 3, 4}
	b := append(binary.BigEndian.AppendUint64([]byte{0x82, 0x80 | 127}, uint64(len(payload))), mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

const handshake = "GET /chat HTTP/1.1\r\nHost: " + appHost + "\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

func TestWebSocketEcho(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, wsEcho(t))
	c, br := r.dial(handshake + string(maskedFrame("early"))) // the client does not wait either
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" ||
		!strings.EqualFold(res.Header.Get("Connection"), "upgrade") || res.Header.Get("Upgrade") != "websocket" {
		t.Fatal(res, err)
	}
	expect := func(want string) {
		t.Helper()
		if got, err := readFrame(br); string(got) != want {
			t.Fatalf("%.60q %v", got, err)
		}
	}
	expect("hello")
	expect("early")
	for _, text := range []string{"a", "", strings.Repeat("x", 1<<20)} {
		if _, err := c.Write(maskedFrame(text)); err != nil {
			t.Fatal(err)
		}
		expect(text)
	}
	// A new table does not end it, and the dyno it holds counts as draining.
	r.routes(nil, dynoServer(t, hello("new")))
	if ack := r.srv.tables.ack(); len(ack.Draining) != 1 {
		t.Fatalf("%+v", ack)
	}
	if _, err := c.Write(maskedFrame("still")); err != nil {
		t.Fatal(err)
	}
	expect("still")
	c.Close()
	until(t, "drained", func() bool { return len(r.srv.tables.ack().Draining) == 0 })
	r.logged("at=info", `path="/chat"`, "status=101", "dyno=web.1")
}

func TestUpgradeIsEndedWhenBothAreSilent(t *testing.T) {
	const idle = 2500 * ms // this test may have to wait for its turn
	r := newRig(t, func(c *Config) { c.Timeouts.Idle = idle })
	r.routes(nil, wsEcho(t))
	c, br := r.dial(handshake)
	if _, err := http.ReadResponse(br, nil); err != nil {
		t.Fatal(err)
	}
	// Bytes one way only keep it open well past the window.
	if _, err := readFrame(br); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, b := range []byte{0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 0} { // never a whole frame
		time.Sleep(idle / 8)
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := br.ReadByte(); err != io.EOF {
		t.Fatal(b, err)
	}
	if took := time.Since(began); took < 2*idle {
		t.Fatalf("ended after %s", took)
	}
	r.logged("code=H15", "status=503", "dyno=web.1")
}

func TestUpgradeRefusedByTheApp(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, dynoServer(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }))
	_, br := r.dial(handshake + "GET / HTTP/1.1\r\nHost: " + appHost + "\r\n\r\n")
	for range 2 { // and the connection is good for another request
		if res, body := answer(t, br, "GET"); res.StatusCode != 403 || body != "no\n" {
			t.Fatalf("%v %q", res, body)
		}
	}
}

// TestPipeHalfClose: one side's end reaches the other, whose last bytes come
// back.
func TestPipeHalfClose(t *testing.T) {
	r := newRig(t, nil)
	r.routes(nil, rawDyno(t, func(c net.Conn, br *bufio.Reader) {
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		fmt.Fprint(c, "HTTP/1.1 101 ok\r\nUpgrade: bytes\r\nConnection: upgrade\r\n\r\n")
		all, _ := io.ReadAll(br)
		fmt.Fprintf(c, "got %d", len(all))
	}))
	c, br := r.dial("POST /x HTTP/1.1\r\nHost: " + appHost + "\r\nUpgrade: bytes\r\nConnection: Upgrade\r\n\r\n")
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	if _, err := c.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(br); string(rest) != "got 100000" {
		t.Fatalf("%q %v", rest, err)
	}
	r.logged("at=info", "status=101", "method=POST")
}
