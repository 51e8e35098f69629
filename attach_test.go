package manifold

import (
	"bufio"
	"bytes"
	"io"
	"testing"
)

func TestFrames(t *testing.T) {
	var line bytes.Buffer
	long := bytes.Repeat([]byte{7}, MaxFrame)
	for _, f := range []struct {
		kind    FrameKind
		payload []byte
	}{{FrameStarted, nil}, {FrameData, []byte("hello")}, {FrameWindow, WindowPayload(50, 300)}, {FrameData, long}} {
		if err := WriteFrame(&line, f.kind, f.payload...); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteFrame(&line, FrameData, append(long, 1)...); err == nil {
		t.Error("a frame that is too long was written")
	}
	r, buf := bufio.NewReader(&line), make([]byte, MaxFrame)
	read := func(want FrameKind) []byte {
		t.Helper()
		kind, payload, err := ReadFrame(r, buf)
		if err != nil || kind != want {
			t.Fatalf("frame %c, %v; want %c", kind, err, want)
		}
		return payload
	}
	read(FrameStarted)
	if got := read(FrameData); string(got) != "hello" {
		t.Errorf("data %q", got)
	}
	if rows, cols, ok := Window(read(FrameWindow)); !ok || rows != 50 || cols != 300 {
		t.Errorf("window %d×%d", rows, cols)
	}
	if got := read(FrameData); !bytes.Equal(got, long) {
		t.Error("the long frame came back changed")
	}
	if _, _, err := ReadFrame(r, buf); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// Whatever a peer sends, reading it stays within its bounds.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("D\x00\x05hello"))
	f.Add([]byte("X\x00\x04\x00\x00\x00\x07S\x00\x00"))
	f.Add([]byte("D\xff\xff"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r, buf := bufio.NewReader(bytes.NewReader(stream)), make([]byte, MaxFrame)
		for total := 0; ; {
			_, payload, err := ReadFrame(r, buf)
			if err != nil {
				return
			}
			if total += frameHead + len(payload); total > len(stream) {
				t.Fatal("more was read than there is")
			}
			Window(payload)
		}
	})
}
