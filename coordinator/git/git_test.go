package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"manifold"
)

func TestPushDeploysAndCanBeCloned(t *testing.T) {
	r := newRig(t)
	r.commit("sub/\xff\nodd", "x")
	r.commit(".gitattributes", "hello.txt export-ignore\n")
	out, err := r.push("main")
	if err != nil {
		t.Fatalf("push: %v\n%s", err, out)
	}
	wants(t, out, "remote: -----> Building demo", "main -> main")
	wants(t, r.builder.files, "hello.txt", "sub/")
	if head := strings.TrimSpace(r.must("rev-parse", "HEAD")); r.builder.builds[0] != head {
		t.Errorf("built %s, want %s", r.builder.builds[0], head)
	}
	clone := filepath.Join(t.TempDir(), "clone")
	r.must("clone", "-q", r.url(token, "demo"), clone)
	if _, err := os.Stat(filepath.Join(clone, "hello.txt")); err != nil {
		t.Error(err)
	}
	out, err = r.push("main")
	if err != nil || !strings.Contains(out, "Everything up-to-date") || r.builder.count() != 1 {
		t.Errorf("a second push of the same: %v, %d builds\n%s", err, r.builder.count(), out)
	}
}

func TestAFailedBuildRefusesThePush(t *testing.T) {
	r := newRig(t)
	r.builder.set(func(_ context.Context, out io.Writer) error {
		fmt.Fprintln(out, " !     Push rejected, failed to compile Go app.")
		return errors.New("no")
	})
	out, err := r.push("main")
	if err == nil {
		t.Fatalf("the push was accepted:\n%s", out)
	}
	wants(t, out, "remote:  !     Push rejected, failed to compile Go app.", "remote: !\tPush rejected to demo.", "pre-receive hook declined")
	if refs := r.must("ls-remote", r.url(token, "demo")); refs != "" {
		t.Errorf("a refused push left refs: %s", refs)
	}
	left, _ := filepath.Glob(filepath.Join(r.server.repo(appID), "objects", "pack", "*"))
	if len(left)+len(r.quarantines()) != 0 {
		t.Errorf("a refused push left objects: %v %v", left, r.quarantines())
	}
	r.builder.set(nil)
	if out, err := r.push("main"); err != nil {
		t.Errorf("push after a refused one: %v\n%s", err, out)
	}
}

func TestWhatIsNotDeployed(t *testing.T) {
	r := newRig(t)
	r.must("branch", "feature")
	r.must("branch", "master")
	r.must("tag", "v1")
	out, err := r.push("feature", "v1")
	if err != nil || r.builder.count() != 0 {
		t.Fatalf("push of a feature branch: %v, %d builds\n%s", err, r.builder.count(), out)
	}
	wants(t, out, "Branch feature was pushed, but nothing was deployed", "git push REMOTE feature:main")

	out, err = r.push("main", "master")
	if err == nil || r.builder.count() != 0 {
		t.Errorf("push of main and master: %v, %d builds\n%s", err, r.builder.count(), out)
	}
	wants(t, out, "Both main and master were pushed")

	if out, err := r.push("main"); err != nil || r.builder.count() != 1 {
		t.Fatalf("push main: %v\n%s", err, out)
	}
	out, err = r.push(":feature", ":main", ":v1")
	if err != nil || r.builder.count() != 1 {
		t.Errorf("deletion: %v\n%s", err, out)
	}
	wants(t, out, "Branch main is deleted. The app keeps running its last release.")
}

func TestMasterDeploysAndIsCheckedOutByClones(t *testing.T) {
	r := newRig(t)
	if out, err := r.push("main:master"); err != nil || r.builder.count() != 1 {
		t.Fatalf("push: %v\n%s", err, out)
	}
	wants(t, r.must("ls-remote", "--symref", r.url(token, "demo"), "HEAD"), "refs/heads/master")
}

func TestRewrittenHistoryNeedsForce(t *testing.T) {
	r := newRig(t)
	if out, err := r.push("main"); err != nil {
		t.Fatalf("push: %v\n%s", err, out)
	}
	r.must("commit", "-q", "--amend", "-m", "rewritten")
	if out, err := r.push("main"); err == nil || r.builder.count() != 1 {
		t.Errorf("a non-fast-forward was taken without force:\n%s", out)
	}
	if out, err := r.push("--force", "main"); err != nil || r.builder.count() != 2 {
		t.Errorf("a forced push: %v\n%s", err, out)
	}
}

// A push whose refs were read before another push moved them is refused
// before it builds, not after it has released.
func TestAStalePushIsRefusedBeforeItBuilds(t *testing.T) {
	r := newRig(t)
	second := &rig{t: t, server: r.server, builder: r.builder, http: r.http, work: filepath.Join(t.TempDir(), "second")}
	r.must("clone", "-q", r.work, second.work)
	second.commit("other.txt", "x")
	// The client asks its pre-push hook after it has read the server's refs.
	hook := fmt.Sprintf("#!/bin/sh\nunset GIT_DIR\ncd %s && git push -q %s main\n", r.work, r.url(token, "demo"))
	if err := os.WriteFile(filepath.Join(second.work, ".git/hooks/pre-push"), []byte(hook), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := second.push("main")
	if err == nil || r.builder.count() != 1 {
		t.Errorf("%d builds, push: %v\n%s", r.builder.count(), err, out)
	}
	wants(t, out, "Branch main was moved by another push meanwhile.")
}

func TestOnePushAtATime(t *testing.T) {
	r := newRig(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	r.builder.set(func(context.Context, io.Writer) error { close(entered); <-leave; return nil })
	first := make(chan error, 1)
	go func() { _, err := r.push("main"); first <- err }()
	<-entered
	out, err := r.push("main:master")
	if err == nil {
		t.Errorf("a second push was accepted:\n%s", out)
	}
	wants(t, out, "Another push to this app is being built.")
	close(leave)
	if err := <-first; err != nil {
		t.Errorf("the first push: %v", err)
	}
	r.builder.set(nil)
	if out, err := r.push("main:master"); err != nil {
		t.Errorf("a push after it: %v\n%s", err, out)
	}
}

func TestAVanishedClientCancelsItsBuild(t *testing.T) {
	r := newRig(t)
	entered, ended := make(chan struct{}), make(chan error, 1)
	r.builder.set(func(ctx context.Context, _ io.Writer) error {
		close(entered)
		select {
		case <-ctx.Done():
		case <-time.After(patience):
		}
		ended <- ctx.Err()
		return ctx.Err()
	})
	cmd := r.cmd("push", r.url(token, "demo"), "main")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-entered
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("the build went on: %v", err)
	}
	// The app's place is free again, and nothing was accepted.
	r.builder.set(nil)
	waitFor(t, "the push's end", func() bool {
		r.server.mu.Lock()
		defer r.server.mu.Unlock()
		return len(r.server.busy) == 0
	})
	if refs := r.must("ls-remote", r.url(token, "demo")); refs != "" {
		t.Errorf("refs: %s", refs)
	}
	if left := r.quarantines(); len(left) != 0 {
		t.Errorf("the push's objects are still there: %v", left)
	}
	if out, err := r.push("main"); err != nil {
		t.Errorf("push: %v\n%s", err, out)
	}
}

// Progress must reach the pusher while the build runs, not when it ends.
func TestProgressStreams(t *testing.T) {
	r := newRig(t)
	seen := make(chan struct{})
	r.builder.set(func(ctx context.Context, out io.Writer) error {
		fmt.Fprintln(out, "-----> first half")
		select {
		case <-seen:
			return nil
		case <-time.After(patience):
			return errors.New("the first half was not seen")
		}
	})
	cmd := r.cmd("push", r.url(token, "demo"), "main")
	pr, pw := io.Pipe()
	cmd.Stderr = pw
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		var all strings.Builder
		buf := make([]byte, 4096)
		for {
			n, err := pr.Read(buf)
			all.Write(buf[:n])
			if strings.Contains(all.String(), "first half") {
				close(seen)
				_, _ = io.Copy(io.Discard, pr)
				return
			}
			if err != nil {
				return
			}
		}
	}()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	pw.Close()
}

func TestALargePush(t *testing.T) {
	r := newRig(t)
	// Over http.postBuffer the client sends its pack in chunks.
	big := make([]byte, 3<<20)
	for i, x := 0, uint64(1); i < len(big); i++ {
		x = x*6364136223846793005 + 1442695040888963407
		big[i] = byte(x >> 56)
	}
	r.commit("big", string(big))
	if out, err := r.push("main"); err != nil {
		t.Fatalf("push: %v\n%s", err, out)
	}
	r.server.cfg.MaxPack = 1 << 20
	r.commit("big2", string(big[1:]))
	out, err := r.push("main")
	if err == nil {
		t.Errorf("a push over the limit was taken:\n%s", out)
	}
	if r.builder.count() != 1 {
		t.Errorf("%d builds", r.builder.count())
	}
}

func TestWhoMayPush(t *testing.T) {
	r := newRig(t)
	for _, bad := range []string{"wrong", "", strings.Repeat("x", 3000)} {
		if out, err := r.run("push", r.url(bad, "demo"), "main"); err == nil {
			t.Errorf("token %.10q was accepted:\n%s", bad, out)
		}
	}
	for _, app := range []string{"bobs", "unknown", otherID} {
		out, err := r.run("push", r.url(token, app), "main")
		if err == nil {
			t.Errorf("push to %s was accepted", app)
		}
		wants(t, out, "You have no app named "+app)
	}
	if r.builder.count() != 0 {
		t.Errorf("%d builds", r.builder.count())
	}
	if entries, _ := os.ReadDir(r.server.cfg.Dir); len(entries) != 1 {
		t.Errorf("repositories were made: %v", entries)
	}
	res, err := http.Get(r.http.URL + "/demo.git/info/refs?service=git-receive-pack")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Basic ") {
		t.Errorf("without a token: %s %q", res.Status, res.Header.Get("WWW-Authenticate"))
	}
}

func TestHostilePaths(t *testing.T) {
	r := newRig(t)
	if out, err := r.push("main"); err != nil {
		t.Fatalf("push: %v\n%s", err, out)
	}
	for _, path := range []string{
		"/", "/.git", "/demo.git", "/demo.git/", "/demo.git/HEAD", "/demo.git/config", "/demo.git/objects/info/packs",
		"/demo.git/info/refs", "/demo.git/info/refs?service=git-upload-archive", "/demo.git/info/refs?service=",
		"/demo.git/info/../config", "/../demo.git/info/refs?service=git-upload-pack", "//demo.git/info/refs?service=git-upload-pack",
		"/hooks.git/../demo.git/info/refs?service=git-upload-pack", "/x%2f..%2fdemo.git/info/refs?service=git-upload-pack",
		"/demo.git%2finfo/refs?service=git-upload-pack", "/demo.git/info%2frefs?service=git-upload-pack",
		"/de%6do.git/info/refs?service=git-upload-pack", "/demo.git/info/refs/?service=git-upload-pack",
		"/DEMO.git/info/refs?service=git-upload-pack", "/" + appID + ".git/hooks/pre-receive", "/demo.git/git-upload-pack",
		"/..git/info/refs?service=git-upload-pack", "/%00.git/info/refs?service=git-upload-pack",
	} {
		req := httptest.NewRequest(http.MethodGet, "http://localhost/", nil)
		u, err := url.Parse("http://localhost" + path)
		if err != nil {
			continue // net/http would not take it either
		}
		req.URL = u
		req.SetBasicAuth("x", token)
		rec := httptest.NewRecorder()
		r.server.ServeHTTP(rec, req)
		if rec.Code < 400 || rec.Code >= 500 {
			t.Errorf("GET %s: %d", path, rec.Code)
		}
	}
}

func TestHookNeedsItsPush(t *testing.T) {
	r := newRig(t)
	t.Setenv("MANIFOLD_PUSH_SOCKET", r.server.cfg.Socket)
	t.Setenv("MANIFOLD_PUSH", "a guess")
	var out strings.Builder
	zero := strings.Repeat("0", 40)
	if err := Hook(t.Context(), strings.NewReader(zero+" "+strings.Repeat("a", 40)+" refs/heads/main\n"), &out); err == nil {
		t.Error("a hook nobody started was accepted")
	}
	wants(t, out.String(), "403", "Nothing was deployed")
	t.Setenv("MANIFOLD_PUSH_SOCKET", filepath.Join(t.TempDir(), "none"))
	if err := Hook(t.Context(), strings.NewReader(""), &out); err == nil {
		t.Error("a hook without a coordinator accepted")
	}
	if st, err := os.Stat(r.server.cfg.Socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v", st.Mode(), err)
	}
}

func TestQuarantineMustBeGits(t *testing.T) {
	r := newRig(t)
	if err := r.server.prepare(t.Context(), appID); err != nil {
		t.Fatal(err)
	}
	objects := filepath.Join(r.server.repo(appID), "objects")
	if err := os.Symlink("/etc", filepath.Join(objects, "incoming-link")); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{"/etc", "..", objects + "/pack", objects + "/incoming-link", objects + "/incoming-none", "/tmp/incoming-x"} {
		if dir, err := r.server.quarantine(appID, q); err == nil {
			t.Errorf("quarantine %s was accepted as %s", q, dir)
		}
	}
	real := filepath.Join(objects, "tmp_objdir-incoming-x7Yz")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	if dir, err := r.server.quarantine(appID, real); err != nil || dir != real {
		t.Errorf("%s, %v", dir, err)
	}
	if err := r.server.sweep(); err != nil {
		t.Error(err)
	}
	if left := r.quarantines(); len(left) != 0 {
		t.Errorf("after sweeping: %v", left)
	}
}

func TestTheTokenReachesNoProcess(t *testing.T) {
	r := newRig(t)
	var seen string
	r.builder.set(func(context.Context, io.Writer) error {
		// Everything that runs for this push is still there.
		procs, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, p := range procs {
			env, _ := os.ReadFile(p)
			if strings.Contains(string(env), "GIT_PROJECT_ROOT="+r.server.cfg.Dir) {
				seen += string(env)
			}
		}
		return nil
	})
	if out, err := r.push("main"); err != nil {
		t.Fatalf("push: %v\n%s", err, out)
	}
	if seen == "" || strings.Contains(seen, token) || strings.Contains(seen, "AUTHORIZATION") {
		t.Errorf("environment of the git processes: %q", seen)
	}
}

func TestCollect(t *testing.T) {
	r := newRig(t)
	for _, id := range []string{appID, otherID} {
		if err := r.server.prepare(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.server.Collect(func(id string) bool { return id == appID }); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.server.repo(otherID)); err == nil {
		t.Error("a deleted app's repository is still there")
	}
	if _, err := os.Stat(r.server.repo(appID)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(r.server.hooks(), "pre-receive")); err != nil {
		t.Error(err)
	}
}

func FuzzParseUpdates(f *testing.F) {
	zero, one := strings.Repeat("0", 40), strings.Repeat("a", 40)
	f.Add(zero + " " + one + " refs/heads/main\n")
	f.Add(one + " " + zero + " refs/tags/x y\n")
	f.Add("\n \n")
	f.Fuzz(func(t *testing.T, text string) {
		updates, err := parseUpdates(text)
		for _, u := range updates {
			if err == nil && (!isHash(u.old) || !isHash(u.new) || !strings.HasPrefix(u.ref, "refs/")) {
				t.Errorf("accepted %+v", u)
			}
		}
	})
}

// No path gets further than the name of an app, whatever is escaped in it.
func FuzzParsePath(f *testing.F) {
	for _, path := range []string{
		"/demo.git/info/refs?service=git-upload-pack", "/demo.git/git-receive-pack", "/../x.git/info/refs", "/demo.git/../other.git/git-upload-pack",
		"/%2e%2e.git/git-upload-pack", "//demo.git/info/refs", "/demo.git/objects/info/packs", "/-demo.git/git-upload-pack", "/a%00b.git/git-upload-pack",
	} {
		f.Add("GET", path)
		f.Add("POST", path)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return
		}
		got, status := parse(&http.Request{Method: method, URL: u})
		if status != 0 {
			return
		}
		if manifold.CheckAppName(got.app) != nil && uuid.Validate(got.app) != nil || strings.ContainsAny(got.app, "/.%\\") || scopes[got.service] == "" {
			t.Errorf("%s %s is taken for %+v", method, path, got)
		}
		if !strings.HasPrefix(u.EscapedPath(), "/"+got.app+".git/") && !strings.HasPrefix(u.EscapedPath(), got.app+".git/") {
			t.Errorf("%s %s is not of %s", method, path, got.app)
		}
	})
}

// A token that may only read clones and does not push.
func TestScopeOfTheToken(t *testing.T) {
	for service, status := range map[string]int{uploadPack: 200, receivePack: 403} {
		r := newRig(t)
		req := httptest.NewRequest("GET", "/demo.git/info/refs?service="+service, nil)
		req.SetBasicAuth("any", readTok)
		w := httptest.NewRecorder()
		r.server.ServeHTTP(w, req)
		if w.Code != status {
			t.Errorf("%s: %d %s", service, w.Code, w.Body)
		}
	}
}
