package onemachine

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"manifold/slugfs/loop"
)

// What goes by itself in a moment is not left over: a loop device lasts as long
// as somebody, such as udev, looks into it.
func TestLeftoversGetAMoment(t *testing.T) {
	m, _ := testMachine(t)
	image := filepath.Join(m.Settings.Home, "scratch.img")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	device, err := loop.Attach(image, false)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	if left := remains(m.Settings, 0); len(left) != 1 {
		t.Errorf("with a loop device on %s there is left %q", image, left)
	}
	time.AfterFunc(300*time.Millisecond, func() { device.Close() })
	if left := remains(m.Settings, time.Minute); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}
