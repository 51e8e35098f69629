package git

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// A push that fails leaves no trace: also not in what a clone checks out.
func TestAFailedBuildLeavesTheBranchOfClones(t *testing.T) {
	r := newRig(t)
	if out, err := r.push("main"); err != nil {
		t.Fatalf("push: %v\n%s", err, out)
	}
	r.builder.set(func(context.Context, io.Writer) error { return errors.New("no") })
	if out, err := r.push("main:master"); err == nil {
		t.Fatalf("the push was accepted:\n%s", out)
	}
	wants(t, r.must("ls-remote", "--symref", r.url(token, "demo"), "HEAD"), "refs/heads/main")
}

// What git will not let a branch be is refused before it is built and released.
func TestATagIsNoBranch(t *testing.T) {
	r := newRig(t)
	r.must("tag", "-a", "-m", "a tag", "v1")
	out, err := r.push("v1:refs/heads/main")
	if err == nil || r.builder.count() != 0 {
		t.Errorf("push of a tag as a branch: %v, %d builds\n%s", err, r.builder.count(), out)
	}
	wants(t, out, "this is a tag", "git push REMOTE TAG^{}:refs/heads/main")
	if out, err := r.push("v1^{}:refs/heads/main"); err != nil || r.builder.count() != 1 {
		t.Errorf("push of the tag's commit: %v, %d builds\n%s", err, r.builder.count(), out)
	}
}

func TestAShallowClone(t *testing.T) {
	r := newRig(t)
	r.commit("more.txt", "x")
	clone := func(name string) *rig {
		c := &rig{t: t, work: filepath.Join(t.TempDir(), name), http: r.http}
		r.must("clone", "-q", "--depth", "1", "file://"+r.work, c.work)
		return c
	}
	first := clone("first")
	out, err := first.push("main")
	if err == nil || r.builder.count() != 0 {
		t.Errorf("its push: %v, %d builds\n%s", err, r.builder.count(), out)
	}
	wants(t, out, "git fetch --unshallow", "Nothing was deployed")
	first.must("fetch", "-q", "--unshallow")
	if out, err := first.push("main"); err != nil || r.builder.count() != 1 {
		t.Errorf("push of the whole history: %v, %d builds\n%s", err, r.builder.count(), out)
	}
	// What the clone lacks does not matter where it is known already.
	second := clone("second")
	second.commit("last.txt", "x")
	if out, err := second.push("main"); err != nil || r.builder.count() != 2 {
		t.Errorf("push of a known history: %v, %d builds\n%s", err, r.builder.count(), out)
	}
}

func TestWhatGitSaysIsClipped(t *testing.T) {
	c := &clipped{}
	if n, err := io.Copy(c, strings.NewReader(strings.Repeat("x", 1<<20))); n != 1<<20 || err != nil || len(c.String()) != 4096 {
		t.Errorf("%d, %v, %d kept", n, err, len(c.String()))
	}
}
