package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"manifold/slugfs/stack"
)

// A suite of tests that the guest runs: those of a package, by its own test
// program.
type guestTests struct {
	pkg    string
	only   string // -test.run; "" is all
	skip   string // -test.skip
	tags   string
	reboot string // commands after which the guest reboots before this suite; "" is none
}

// runs is what the guest runs, in this order. An emulated processor is ten
// times slower than this host's, so it runs what another kernel and cgroup v2
// alone could have fail, and nothing else:
//
//	slugfs     6.1 mounts EROFS by loop devices only, newer ones from files:
//	           read-only, idmapped, shared, unseen; images that are in use
//	isolation  v2's own files and verbs: limits and what is used of them, kill,
//	           freeze; 6.1's mounts, seccomp and nftables as a dyno meets them
//	guest      systemd: units, slices, watchdog, sockets, journal, packages, a
//	           reboot; on v2 the memory contract, by the agent as its unit
//
// Terminals, the bounds of a dyno's disk, images' digests, records, the agent's
// logs and its dealings with a coordinator are the same on any kernel: they are
// tested on this host alone.
var runs = []guestTests{
	{pkg: "manifold/slugfs", only: "^Test(Mount.*|Collect(LeavesWhatIsInUse|DropsItsOwnMount))$"},
	{pkg: "manifold/isolation", only: "^(TestWhatADynoSees|TestSystemCalls|TestUsage|TestDiskTime|TestStopIsGentleThenNot|TestFreezeStopsAndThawGoesOn|" +
		"TestRoutersReachPortAlone|TestDynosCannotReachEachOtherNorTheHost)$"},
	{pkg: guestPkg, tags: "guest", skip: "^Test(Reboot|Purge)$"},
	{pkg: guestPkg, tags: "guest", only: "^TestReboot$", reboot: "systemctl disable manifold-coordinator"},
	{pkg: guestPkg, tags: "guest", only: "^TestPurge$"},
}

const guestPkg = "manifold/test/vm/guest"

// Marks around each program's output on its way home.
const (
	beginMark = "@@ begin "
	endMark   = "@@ end "
)

// makeWork makes the second disk: test programs, the platform as Debian
// packages, a stack, and the script that runs it all.
//
//	run              the script
//	tests/<package>  test programs, slashes as dashes
//	probes/          what isolation's tests run inside dynos
//	deb/             one.deb, and two.deb, an upgrade of it
//	stacks/          the tiny stack
func makeWork(ctx context.Context, repo, cache, disk string) error {
	dir, err := os.MkdirTemp(filepath.Dir(disk), "work-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := makePackages(ctx, repo, filepath.Join(dir, "deb")); err != nil {
		return err
	}
	build, building := errgroup.WithContext(ctx)
	build.SetLimit(2)
	made := map[string]bool{}
	for _, t := range runs {
		if made[t.pkg] {
			continue
		}
		made[t.pkg] = true
		build.Go(func() error {
			return goBuild(building, repo, "test", "-c", "-tags="+t.tags, "-o", filepath.Join(dir, "tests", program(t.pkg)), t.pkg)
		})
	}
	probes, err := filepath.Glob(filepath.Join(repo, "isolation", "testdata", "*"))
	if err != nil {
		return err
	}
	build.Go(func() error {
		return goBuild(building, repo, append([]string{"build", "-o", filepath.Join(dir, "probes") + "/"}, probes...)...)
	})
	build.Go(func() error { return copyStack(building, filepath.Join(cache, "stacks"), filepath.Join(dir, "stacks")) })
	if err := build.Wait(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "run"), []byte(script()), 0o644); err != nil {
		return err
	}
	if err := run(ctx, dir, nil, "truncate", "-s", "1G", disk); err != nil {
		return err
	}
	return run(ctx, dir, nil, "mke2fs", "-q", "-t", "ext4", "-L", "work", "-E", "lazy_itable_init=1,nodiscard", "-d", dir, disk)
}

// makePackages makes them as an operator would, away from the repository's bin.
func makePackages(ctx context.Context, repo, dir string) error {
	bin, err := os.MkdirTemp("", "vm-bin-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(bin)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i, name := range []string{"one", "two"} {
		err := run(ctx, repo, nil, "make", "deb", "BIN="+bin, "VERSION="+name, fmt.Sprintf("DEB_VERSION=%d", i+1), "DEB="+filepath.Join(dir, name+".deb"))
		if err != nil {
			return err
		}
	}
	return nil
}

func goBuild(ctx context.Context, repo string, args ...string) error {
	args = append([]string{"go", args[0], "-trimpath", "-ldflags=-s -w"}, args[1:]...)
	return run(ctx, repo, []string{"CGO_ENABLED=0"}, args...)
}

func program(pkg string) string { return strings.ReplaceAll(pkg, "/", "-") }

// copyStack brings the tiny stack, built if need be.
func copyStack(ctx context.Context, from, to string) error {
	tiny, err := stack.Build(ctx, "tiny", from, io.Discard)
	if err != nil {
		return err
	}
	names := []string{"tiny.json"}
	for _, img := range tiny.Run {
		names = append(names, strings.TrimPrefix(img.Digest, "sha256:")+".erofs")
	}
	if err := os.Mkdir(to, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, name := range names {
		if err := os.Link(filepath.Join(from, name), filepath.Join(to, name)); err == nil {
			continue
		}
		if err := run(ctx, "", nil, "cp", filepath.Join(from, name), to); err != nil { // another filesystem
			return err
		}
	}
	return nil
}

// script runs in the guest as root, from the beginning after each boot: a
// count of boots says where it stands. Its words reach the host by a port of
// their own, so that the console keeps what kernel and systemd say.
func script() string {
	var s strings.Builder
	s.WriteString(`exec >/dev/virtio-ports/results 2>&1 </dev/null
cd /work
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root GOTRACEBACK=all
export MANIFOLD_TEST_PROBES=/work/probes MANIFOLD_TEST_STACKS=/work/stacks MANIFOLD_TEST_WORK=/work
mkswap -q /dev/disk/by-id/virtio-swap && swapon /dev/disk/by-id/virtio-swap
echo >>/boots
boot=$(wc -l </boots)
if [ $boot = 1 ]; then
`)
	boots := 1
	for _, t := range runs {
		if t.reboot != "" {
			boots++
			fmt.Fprintf(&s, "%s\nsystemctl --no-block reboot\nexit\nelif [ $boot = %d ]; then\n", t.reboot, boots)
		}
		fmt.Fprintf(&s, "echo '%s%s'\ntimeout -k 10 2400 tests/%s -test.v=test2json -test.run '%s' -test.skip '%s' && status=0 || status=$?\necho; echo \"%s$status\"\n",
			beginMark, t.pkg, program(t.pkg), cmp.Or(t.only, "."), cmp.Or(t.skip, "^$"), endMark)
	}
	s.WriteString("fi\nsystemctl --no-block poweroff --force\n")
	return s.String()
}
