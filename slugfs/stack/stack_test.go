package stack

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"manifold"
	"manifold/slugfs"
)

// steps calls each at every line of progress.
type steps func(line string)

func (s steps) Write(p []byte) (int, error) { s(string(p)); return len(p), nil }

// Two builds at once take turns, also those of different stacks.
func TestBuildsTakeTurns(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "stacks")
	other, err := slugfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var said []string
	_, err = Build(ctx, "tiny", dir, steps(func(line string) {
		said = append(said, line)
		if strings.Contains(line, "waiting") {
			if err := other.Close(); err != nil {
				t.Error(err)
			}
		} else {
			cancel() // it is its turn
		}
	}))
	if !errors.Is(err, context.Canceled) || len(said) < 2 || !strings.Contains(said[1], "install") {
		t.Errorf("a build that found another at work: %q, %v", said, err)
	}
	if other, err = slugfs.Open(dir); err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ctx, cancel = context.WithCancel(t.Context())
	_, err = Build(ctx, "tiny", dir, steps(func(string) { cancel() }))
	if !errors.Is(err, context.Canceled) || !errors.Is(err, slugfs.ErrInUse) {
		t.Errorf("one that was told to stop waiting: %v", err)
	}
}

// A tiny stack is built for real, broken off at its second step first.
func TestBuildIsAtomicAndIdempotent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "stacks")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := Build(ctx, "tiny", dir, steps(func(line string) {
		if strings.Contains(line, "install") {
			cancel()
		}
	}))
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("broken off: %v", err)
	}
	if stacks, err := Load(dir); len(stacks) != 0 || err != nil {
		t.Fatalf("half a stack can be read: %+v, %v", stacks, err)
	}

	built, err := Build(t.Context(), "tiny", dir, steps(func(line string) { t.Log(strings.TrimSpace(line)) }))
	if err != nil {
		t.Fatal(err)
	}
	again, err := Build(t.Context(), "tiny", dir, io.Discard)
	if err != nil || !again.BuiltAt.Equal(built.BuiltAt) {
		t.Errorf("a second build made it anew (%v)", err)
	}
	stacks, err := Load(dir)
	if err != nil || len(stacks) != 1 || stacks[0].Name != "tiny" || stacks[0].Packages["bash"] == "" {
		t.Errorf("Load: %+v, %v", stacks, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 { // image, tiny.json, lock
		t.Errorf("the directory holds %v (%v)", entries, err)
	}
	tree, images := open(t, dir, built.Run[0])
	checkLayer(t, tree)
	if text, err := fs.ReadFile(tree, "etc/passwd"); err != nil || !strings.Contains(string(text), "dyno:x:1000:1000::/app:/bin/bash\n") {
		t.Errorf("etc/passwd: %q, %v", text, err)
	}
	if info, err := fs.Stat(tree, "app"); err != nil || info.Sys().(*syscall.Stat_t).Uid != manifold.DynoUID {
		t.Errorf("/app: %+v, %v", info, err)
	}
	if err := images.Close(); err != nil {
		t.Error(err)
	}

	// Another recipe is another stack.
	old := built
	old.Recipe = "sha256:other"
	if err := save(dir, old); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(ctx, "tiny", dir, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("a changed recipe was not built again: %v", err)
	}
}

func TestBuildRefusesUnknownNames(t *testing.T) {
	_, err := Build(t.Context(), "../../etc", t.TempDir(), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "the stacks are cedar, tiny") {
		t.Errorf("got %v", err)
	}
}

// open mounts an image; its files are read through the descriptor.
func open(t *testing.T, dir string, img manifold.Image) (fs.FS, *slugfs.Store) {
	t.Helper()
	images, err := slugfs.Open(filepath.Join(t.TempDir(), "images"), dir)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := images.Mount(img)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return os.DirFS("/proc/self/fd/" + strconv.Itoa(int(tree.Fd()))), images
}

// checkLayer looks for what must not be in any layer.
func checkLayer(t *testing.T, tree fs.FS) {
	t.Helper()
	err := fs.WalkDir(tree, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		mode := info.Mode()
		if mode.IsRegular() && mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			t.Errorf("%s has mode %v", path, mode)
		}
		if device := mode&fs.ModeDevice != 0 && info.Sys().(*syscall.Stat_t).Rdev != 0; device || mode&(fs.ModeSocket|fs.ModeNamedPipe) != 0 {
			t.Errorf("%s is a %v", path, mode)
		}
		for _, dir := range []string{"etc/apt/sources.list", "var/lib/apt/lists/", "var/cache/apt/", "dev/", "proc/", "tmp/", "root/", "usr/local/share/ca-certificates/"} {
			if strings.HasPrefix(path, dir) && (!entry.IsDir() || dir == "tmp/") {
				t.Errorf("%s is left of the machine that built it", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/machine-id"} {
		if text, err := fs.ReadFile(tree, name); len(text) > 0 || err != nil {
			t.Errorf("%s: %q, %v; want it empty", name, text, err)
		}
	}
}

// cedar is built once for all tests on this machine.
func cedar(t *testing.T) (string, Stack) {
	t.Helper()
	dir := os.Getenv("MANIFOLD_CACHE")
	if dir == "" {
		dir = "/var/cache/manifold"
	}
	dir = filepath.Join(dir, "stacks")
	s, err := Build(t.Context(), "cedar", dir, steps(func(line string) { t.Log(strings.TrimSpace(line)) }))
	if err != nil {
		t.Fatal(err)
	}
	return dir, s
}

func TestCedarHoldsNothingOfTheBuilder(t *testing.T) {
	dir, s := cedar(t)
	tree, images := open(t, dir, s.Run[0])
	defer images.Close()
	checkLayer(t, tree)

	// Every certificate that is trusted came with Debian's package.
	known := map[string]bool{}
	err := fs.WalkDir(tree, "usr/share/ca-certificates/mozilla", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(tree, path)
		block, _ := pem.Decode(text)
		known[string(block.Bytes)] = true
		return err
	})
	if err != nil || len(known) < 100 {
		t.Fatalf("%d certificates in the package (%v)", len(known), err)
	}
	bundle, err := fs.ReadFile(tree, "etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		t.Fatal(err)
	}
	trusted := 0
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if trusted++; !known[string(block.Bytes)] {
			t.Error("a certificate of another origin is trusted")
		}
	}
	if trusted < 100 {
		t.Errorf("%d trusted certificates", trusted)
	}
}

// inside runs a shell script as a dyno's user in the layers, top first, merged
// as a dyno sees them, in namespaces of its own without a network.
func inside(t *testing.T, dir string, layers []manifold.Image, script string) string {
	t.Helper()
	const setup = `
cd "$1"; script=$2; shift 2
mount -t tmpfs tmpfs .
mkdir upper work root; lower= n=0
for image; do
	n=$((n+1)); mkdir $n; mount -t erofs -o ro "$image" $n; lower=$lower:$n
done
mount -t overlay overlay -o lowerdir=${lower#:},upperdir=upper,workdir=work root
mount -t proc proc root/proc
for node in null zero urandom; do : >root/dev/$node; mount --bind /dev/$node root/dev/$node; done
exec chroot --userspec=1000:1000 root /bin/bash -euc "cd /tmp; $script"
`
	argv := []string{"-eu", "-c", setup, "sh", t.TempDir(), script}
	for _, img := range layers {
		argv = append(argv, filepath.Join(dir, strings.TrimPrefix(img.Digest, "sha256:")+".erofs"))
	}
	cmd := exec.Command("/bin/sh", argv...)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LANG=en_US.UTF-8", "GOFLAGS=-mod=mod", "GOPROXY=off"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET, Unshareflags: unix.CLONE_NEWNS}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		t.Fatalf("%q: %v\n%s%s", script, err, &out, &complaint)
	}
	return out.String()
}

func TestCedarRuns(t *testing.T) {
	dir, s := cedar(t)
	for script, want := range map[string]string{
		"python3 -c 'import ssl, sqlite3; print(6*7)'": "42\n",
		"python -c 'print(6*7)'":                       "42\n",
		"node -e 'console.log(6*7)'":                   "42\n",
		"ruby -rjson -ropenssl -e 'puts 6*7'":          "42\n",
		"whoami; echo ~":                               "dyno\n/tmp\n",
		"locale charmap":                               "UTF-8\n",
		"echo '{\"a\":[42]}' | jq '.a[0]'":             "42\n",
		"java --version | head -1 | cut -d. -f1":       "openjdk 17\n",
		"for p in curl git ssh psql ip ps zip unzip xz bzip2 less sqlite3 nc; do command -v $p >/dev/null || echo no $p; done": "",
		"command -v gcc npm go apt-key || echo none of the build layer":                                                        "/usr/bin/apt-key\n",
	} {
		if got := inside(t, dir, s.Run, script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	if s.Run[0].Bytes > 700<<20 {
		t.Errorf("the run image has %d MB", s.Run[0].Bytes>>20)
	}
}

func TestCedarBuilds(t *testing.T) {
	dir, s := cedar(t)
	if len(s.Build) != 2 || !slices.Equal(s.Build[1:], s.Run) {
		t.Fatalf("layers %+v over %+v", s.Build, s.Run)
	}
	for script, want := range map[string]string{
		"echo 'int main(void){return 42;}' >a.c; gcc -o a a.c; ./a || echo $?":                                                                                      "42\n",
		"echo '#include <openssl/ssl.h>\n#include <libpq-fe.h>\n#include <yaml.h>\nint main(void){return 0;}' >a.c; gcc -I$(pg_config --includedir) -c a.c; ls a.o": "a.o\n",
		"echo 'package main; func main(){println(42)}' >a.go; go run a.go 2>&1":                                                                                     "42\n",
		"go env GOTOOLCHAIN":                                                                       "auto\n",
		"npm --version | cut -d. -f1":                                                              "9\n",
		"bundle --version | cut -d' ' -f1-2":                                                       "Bundler version\n",
		"python3 -m venv v; v/bin/pip --version | cut -d' ' -f1":                                   "pip\n",
		"echo 'require \"mkmf\"; puts have_header(\"ruby.h\")' >x.rb; ruby x.rb | tail -1":         "true\n",
		"make --version | head -c 8; pkg-config --exists libssl sqlite3 zlib; cp /bin/true t; ./t": "GNU Make",
	} {
		if got := inside(t, dir, s.Build, script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
}
