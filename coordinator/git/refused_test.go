package git

import (
	"bytes"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
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

// A small pack may not have git take the host's memory for what it claims to hold.
func TestAnObjectThatClaimsToBeHuge(t *testing.T) {
	r := newRig(t)
	const tree, size = 2, 3 << 30
	pack := bytes.NewBufferString("PACK\x00\x00\x00\x02\x00\x00\x00\x01")
	pack.WriteByte(0x80 | tree<<4 | size&15) // gitformat-pack(5)
	for left := size >> 4; left > 0; left >>= 7 {
		b := byte(left & 0x7f)
		if left > 0x7f {
			b |= 0x80
		}
		pack.WriteByte(b)
	}
	z := zlib.NewWriter(pack)
	_, _ = z.Write(make([]byte, 1<<20)) // it need not be as large as it says
	z.Close()
	command := strings.Repeat("0", 40) + " " + strings.Repeat("a", 40) + " refs/heads/main\x00report-status side-band-64k"
	body := fmt.Sprintf("%04x%s0000%s", 4+len(command), command, pack.Bytes())
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.http.URL+"/demo.git/"+receivePack, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("x", token)
	req.Header.Set("Content-Type", "application/x-git-receive-pack-request")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if said, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(said), "over limit") {
		t.Errorf("%s, %v: %q", res.Status, err, said)
	}
}

// Who keeps the places of half of all requests leaves the others' to others.
func TestAUserLeavesPlacesToOthers(t *testing.T) {
	r := newRig(t)
	for range maxOfUser {
		if !r.server.admit("alice") {
			t.Fatal("no place is left")
		}
	}
	ask := func(app, token string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.http.URL+"/"+app+".git/info/refs?service=git-upload-pack", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("", token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if status := ask("demo", token); status != http.StatusServiceUnavailable {
		t.Errorf("alice's next is answered with %d", status)
	}
	if status := ask("bobs", otherTok); status != http.StatusOK {
		t.Errorf("bob's is answered with %d", status)
	}
	r.server.leave("alice")
	if status := ask("demo", token); status != http.StatusOK {
		t.Errorf("alice's is answered with %d when one of hers is through", status)
	}
}
