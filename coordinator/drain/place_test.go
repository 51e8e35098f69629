package drain

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"manifold"
)

// A drain whose place cannot be read begins at the end as it is now, and not at
// that of each time it tries: what is written while its receiver is away counts.
func TestAPlaceThatCannotBeRead(t *testing.T) {
	r := newRig(t)
	r.write(3, "")
	must(t, os.Mkdir(r.cfg.Dir, 0o700))
	must(t, os.WriteFile(filepath.Join(r.cfg.Dir, "torn"), nil, 0o600))
	root, err := os.OpenRoot(r.cfg.Dir)
	must(t, err)
	defer root.Close()
	d := newDrain(&Room{cfg: r.cfg, root: root}, manifold.Drain{ID: "torn", App: r.app.ID, URL: "http://127.0.0.1:1/"})
	if err := d.load(); err == nil || d.place.Next != 4 {
		t.Errorf("%v, it begins at line %d", err, d.place.Next)
	}
	if noted, err := os.ReadFile(filepath.Join(r.cfg.Dir, "torn")); err != nil || !strings.HasPrefix(string(noted), "4 ") {
		t.Errorf("noted: %q, %v", noted, err)
	}
}
