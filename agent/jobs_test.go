package agent

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"manifold"
	"manifold/slugfs"
)

func (r *rig) job(command string, outputs ...manifold.Output) manifold.Assignment {
	a := r.assignment(command)
	a.Kind, a.Dyno, a.Size = manifold.KindOneOff, "build.1", manifold.BuildSize
	a.Job = &manifold.Job{Outputs: outputs}
	return a
}

func TestJobBringsItsOutputsHome(t *testing.T) {
	r := newRig(t)
	r.input = bytes.Repeat([]byte("line\n"), 50_000)
	a := r.job(`wc -l > /tmp/result.json && mkdir -p /tmp/slug/app && echo code > /tmp/slug/app/main && chmod 600 /tmp/slug/app/main && echo built`,
		manifold.Output{Name: "slug", Path: "/tmp/slug", Image: true, Limit: 64 << 20},
		manifold.Output{Name: "result.json", Path: "/tmp/result.json", Limit: 1 << 20})
	r.want(a)
	d := r.awaitState(a.ID, manifold.StateComplete)
	if d.Result.Cause != manifold.CauseExit || d.Result.Status != 0 || d.OutputSeq != 1 {
		t.Fatalf("result %+v, %d lines", d.Result, d.OutputSeq)
	}
	r.awaitLine(d.Run, "app", "built")
	if lines := r.lines(d.Run, "heroku"); len(lines) > 0 {
		t.Errorf("in the app's log the platform said %q", lines)
	}
	if got := strings.TrimSpace(string(r.outputs["result.json"])); got != "50000" {
		t.Errorf("it read %q lines", got)
	}
	store, err := slugfs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	img, err := store.Add(t.Context(), bytes.NewReader(r.outputs["slug"]), "", 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	m, err := store.Mount(img)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(m.Fd()), "app/main", &st, 0); err != nil || st.Uid != manifold.DynoUID || st.Size != 5 {
		t.Errorf("app/main in the image: %v, owner %d, %d bytes", err, st.Uid, st.Size)
	}
}

func TestJobsThatFail(t *testing.T) {
	r := newRig(t)
	slug := manifold.Output{Name: "slug", Path: "/tmp/slug", Image: true, Limit: 1 << 20}
	file := manifold.Output{Name: "result.json", Path: "/tmp/result.json", Limit: 1000}
	cases := map[string]struct {
		command string
		output  manifold.Output
		cause   manifold.Cause
		detail  string
	}{
		"exit 1":       {`exit 1`, slug, manifold.CauseExit, ""},
		"no slug":      {`true`, slug, manifold.CauseOutput, "output slug: the job did not make /tmp/slug"},
		"huge slug":    {`mkdir /tmp/slug; head -c 4000000 /dev/urandom > /tmp/slug/big`, slug, manifold.CauseOutput, "output slug: too large: over 1048576 bytes"},
		"slug a file":  {`touch /tmp/slug`, slug, manifold.CauseOutput, "is not a directory"},
		"slug a link":  {`ln -s /etc /tmp/slug`, slug, manifold.CauseOutput, "symbolic link"},
		"huge file":    {`head -c 1001 /dev/zero > /tmp/result.json`, file, manifold.CauseOutput, "output result.json: too large: 1001 bytes, the limit is 1000"},
		"file a link":  {`ln -s /etc/passwd /tmp/result.json`, file, manifold.CauseOutput, "symbolic link"},
		"file a pipe":  {`mkfifo /tmp/result.json`, file, manifold.CauseOutput, "is not a regular file"},
		"through link": {`rm -rf /tmp/x; ln -s / /tmp/x`, manifold.Output{Name: "o", Path: "/tmp/x/etc/passwd", Limit: 1000}, manifold.CauseOutput, "symbolic link"},
		"out of it":    {`true`, manifold.Output{Name: "o", Path: "/../../../etc/shadow", Limit: 1000}, manifold.CauseOutput, "did not make"},
	}
	var all []manifold.Assignment
	ids := map[string]string{}
	for name, c := range cases {
		a := r.job(c.command, c.output)
		ids[name] = a.ID
		all = append(all, a)
	}
	r.want(all...)
	for name, c := range cases {
		d := r.awaitState(ids[name], manifold.StateComplete)
		if d.Result.Cause != c.cause || !strings.Contains(d.Result.Detail, c.detail) || d.Result.Status == 0 {
			t.Errorf("%s: result %+v", name, d.Result)
		}
	}
	if len(r.outputs) > 0 {
		t.Errorf("%d outputs were sent", len(r.outputs))
	}
}

func TestJobInputCannotBeWritten(t *testing.T) {
	r := newRig(t)
	r.input = []byte("read me")
	a := r.job(`echo x >&0 || echo refused; echo y > /proc/self/fd/0 || echo refused`)
	r.want(a)
	d := r.awaitState(a.ID, manifold.StateComplete)
	eventually(t, "two refusals", func() bool {
		return strings.Count(strings.Join(r.lines(d.Run, "app"), "\n"), "refused") == 2
	}, func() string { return fmt.Sprint(r.lines(d.Run, "app")) })
}

func TestOutputThatTheCoordinatorRefuses(t *testing.T) {
	r := newRig(t)
	r.refuse = 422
	a := r.job(`echo {} > /tmp/result.json`, manifold.Output{Name: "result.json", Path: "/tmp/result.json", Limit: 1000})
	r.want(a)
	d := r.awaitState(a.ID, manifold.StateComplete)
	if d.Result.Cause != manifold.CauseOutput || !strings.Contains(d.Result.Detail, "refused by the test") {
		t.Errorf("result %+v", d.Result)
	}
}

func TestImageComesFromTheCoordinator(t *testing.T) {
	r := newRig(t)
	store, err := slugfs.Open(filepath.Join(r.dir, "coordinator-images"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	src := t.TempDir()
	if err := os.MkdirAll(filepath.Join(src, "app"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "app", "hello"), []byte("from the slug\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(src)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	img, err := store.Pack(t.Context(), dir, slugfs.PackOptions{Owner: manifold.DynoUID})
	if err != nil {
		t.Fatal(err)
	}
	good, bad, gone := r.assignment(`cat hello; sleep 1000`), r.assignment(`true`), r.assignment(`true`)
	good.Layers = append([]manifold.Image{img}, r.stack...)
	wrong := manifold.Image{Digest: "sha256:" + strings.Repeat("ab", 32), Bytes: img.Bytes}
	name := strings.Repeat("ab", 32) + ".erofs"
	path, err := store.Path(img)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, name), text, 0o600); err != nil { // bytes that do not match
		t.Fatal(err)
	}
	r.mu.Lock()
	r.images = append(r.images, filepath.Dir(path), other)
	r.mu.Unlock()
	bad.Layers = append([]manifold.Image{wrong}, r.stack...)
	gone.Layers = append([]manifold.Image{{Digest: "sha256:" + strings.Repeat("cd", 32), Bytes: 1}}, r.stack...)
	r.want(good, bad, gone)
	d := r.awaitState(good.ID, manifold.StateUp)
	r.awaitLine(d.Run, "app", "from the slug")
	for _, a := range []manifold.Assignment{bad, gone} {
		if d := r.await(a.ID, "two crashes", func(d manifold.Dyno) bool { return d.State == manifold.StateCrashed && d.Crashes == 2 }); d.Result.Cause != manifold.CauseLaunch || d.Result.Detail == "" {
			t.Errorf("result %+v", d.Result)
		}
	}
	d, _ = r.dyno(bad.ID)
	r.awaitLine(d.Run, "heroku", "Error R17 (Checksum error) -> Failed to launch the dyno: ")
	d, _ = r.dyno(gone.ID)
	r.awaitLine(d.Run, "heroku", "Error R99 (Platform error) -> Failed to launch the dyno: ")
}

func TestOpenOutput(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	scratch, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer scratch.Close()
	for _, name := range []string{"/f", "f", "//./f", "/../f"} {
		f, err := openOutput(scratch, name, 0)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if b, _ := io.ReadAll(f); string(b) != "x" {
			t.Errorf("%s holds %q", name, b)
		}
		f.Close()
	}
}
