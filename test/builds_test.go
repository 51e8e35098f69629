package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"manifold/test/platform"
)

type buildReply struct {
	ID, Status string
	Output     string `json:"output_stream_url"`
	Release    *struct{ ID string }
}

// tgz makes a gzipped tar of these entries.
func tgz(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range entries {
		content := h.Linkname
		if h.Typeflag == tar.TypeReg {
			h.Linkname, h.Size = "", int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			_, _ = io.WriteString(w, content)
		}
	}
	w.Close()
	z.Close()
	return b.Bytes()
}

// file is a regular file; its content travels in Linkname.
func file(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: content, Mode: 0o755}
}

// upload makes a source and puts content there, as a client does: with nothing
// but the URL.
func upload(t *testing.T, p *platform.Instance, content []byte) (get string) {
	t.Helper()
	var s struct {
		Blob struct {
			Put string `json:"put_url"`
			Get string `json:"get_url"`
		} `json:"source_blob"`
	}
	p.Call(t, "POST", "/sources", nil, &s)
	req, err := http.NewRequest("PUT", s.Blob.Put, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	res, err := platform.Loopback.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		t.Fatalf("PUT the source: %s", res.Status)
	}
	return s.Blob.Get
}

func startBuild(t *testing.T, p *platform.Instance, app string, content []byte, packs ...string) buildReply {
	t.Helper()
	body := map[string]any{"source_blob": map[string]any{"url": upload(t, p, content), "version": "v1.2"}}
	if len(packs) > 0 {
		var named []map[string]string
		for _, pack := range packs {
			named = append(named, map[string]string{"url": pack})
		}
		body["buildpacks"] = named
	}
	var b buildReply
	p.Call(t, "POST", "/apps/"+app+"/builds", body, &b)
	return b
}

// watch reads a build's output to its end, which may take as long as a push,
// and returns the build as it is then. NULs only say that it is still running.
func watch(t *testing.T, p *platform.Instance, app string, b buildReply) (buildReply, string) {
	t.Helper()
	res, err := (&http.Client{Transport: platform.Loopback.Transport, Timeout: 10 * time.Minute}).Get(b.Output)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("read the output: %s %v", res.Status, err)
	}
	p.Call(t, "GET", "/apps/"+app+"/builds/"+b.ID, nil, &b)
	return b, strings.ReplaceAll(string(text), "\x00", "")
}

const answersFile = `import os, http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(open("answer").read().encode())
http.server.HTTPServer(("", int(os.environ["PORT"])), H).serve_forever()
`

func python(answer string) []tar.Header {
	return []tar.Header{file("Procfile", "web: exec python3 app.py\n"), file("requirements.txt", ""), file("app.py", answersFile), file("answer", answer)}
}

// A source that is uploaded is built, released and served, its output is read
// as it comes and again; it can be cancelled; what strangers upload harms
// nobody.
func TestBuildsAPI(t *testing.T) {
	claims(t, "builds: create", "a tarball that was uploaded is built, released and answers",
		"builds: list", "the build, with its version and state", "builds: info", "succeeded, failed or cancelled, and its release",
		"builds: output", "read as it comes, and the same again", "builds: cancel", "the build ends, nothing is released",
		"builds: cache purge", "the app's cache is gone from the disk")
	p := running(t)
	app := p.CreateApp(t)
	b, out := watch(t, p, app, startBuild(t, p, app, tgz(t, python("from a tarball")...)))
	if b.Status != "succeeded" || b.Release == nil || !strings.Contains(out, "Python app detected") || !strings.Contains(out, "deployed to Manifold") {
		t.Errorf("%+v\n%s", b, out)
	}
	p.Answers(t, app, "/", "from a tarball")
	if _, again := watch(t, p, app, b); again != out {
		t.Errorf("read again, the output is %q", again)
	}
	if r := newest(t, p, app); r.Description != "Deploy v1.2" || r.ID != b.Release.ID {
		t.Errorf("release %+v", r)
	}
	var all []struct {
		ID, Status string
		Source     struct{ Version string } `json:"source_blob"`
	}
	if p.Call(t, "GET", "/apps/"+app+"/builds", nil, &all); len(all) != 1 || all[0].ID != b.ID || all[0].Status != "succeeded" || all[0].Source.Version != "v1.2" {
		t.Errorf("builds %+v", all)
	}

	// Buildpacks in their order, all of them: the API's, for this build.
	both := append(python("of two"), file("index.html", "hello"))
	b, out = watch(t, p, app, startBuild(t, p, app, tgz(t, both...), "heroku/static", "heroku/python"))
	first, second := strings.Index(out, "Static"), strings.Index(out, "Python app detected")
	if b.Status != "succeeded" || first < 0 || second < first {
		t.Errorf("two buildpacks: %+v\n%s", b, out)
	}
	p.Answers(t, app, "/", "of two")

	hostile := map[string][]byte{
		"leads out of it":            tgz(t, append(python("x"), file("../../tmp/evil", "x"))...),
		"is no file, directory":      tgz(t, append(python("x"), tar.Header{Typeflag: tar.TypeLink, Name: "shadow", Linkname: "/etc/shadow"})...),
		"holds \"null\"":             tgz(t, append(python("x"), tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3})...),
		"The checkout is too large":  tgz(t, append(python("x"), zeros(t, 1100<<20))...),
		"is no gzipped tar":          []byte("not a tar"),
		"The source is damaged":      tgz(t, python("x")...)[:200],
		"holds the path \"/etc/cron": tgz(t, append(python("x"), file("/etc/cron.d/evil", "x"))...),
	}
	for want, content := range hostile {
		b, out := watch(t, p, app, startBuild(t, p, app, content))
		if b.Status != "failed" || !strings.Contains(out, want) {
			t.Errorf("%s: %s\n%s", want, b.Status, out)
		}
	}
	// tar(1) in the build's own dyno refuses to write through a link.
	b, out = watch(t, p, app, startBuild(t, p, app, tgz(t, append(python("x"), tar.Header{Typeflag: tar.TypeSymlink, Name: "up", Linkname: "../../.."}, file("up/driver", "exit 7"))...)))
	if b.Status != "failed" || !strings.Contains(out, "the source could not be unpacked") {
		t.Errorf("a tar that writes through a link: %s %q", b.Status, out)
	}

	slow := append(python("late"), file("bin/pre_compile", "x"), file("package.json", `{"name":"x","version":"1.0.0","scripts":{"build":"sleep 600"}}`))
	running := startBuild(t, p, app, tgz(t, slow...), "heroku/nodejs")
	p.Refused(t, 409, "POST", "/apps/"+app+"/builds", map[string]any{"source_blob": map[string]any{"url": upload(t, p, tgz(t, python("x")...))}}, "Another build")
	p.PushRefused(t, platform.Sample(t, "hello"), app, "Another build of this app is running")
	p.Call(t, "DELETE", "/apps/"+app+"/builds/"+running.ID, nil, nil)
	b, out = watch(t, p, app, running)
	if b.Status != "failed" || !strings.Contains(out, "Build cancelled. Nothing was released.") {
		t.Errorf("cancelled: %s\n%s", b.Status, out)
	}
	p.Answers(t, app, "/", "of two")
	var it struct{ ID string }
	p.Call(t, "GET", "/apps/"+app, nil, &it)
	cache := filepath.Join(p.Home, "coordinator", "cache", it.ID+"*")
	if there, _ := filepath.Glob(cache); len(there) == 0 {
		t.Errorf("there is no %s", cache)
	}
	p.Call(t, "DELETE", "/apps/"+app+"/build-cache", nil, nil)
	if there, _ := filepath.Glob(cache); len(there) > 0 {
		t.Errorf("after the purge there is %v", there)
	}
}

// zeros is a file of n zeros, which cost next to nothing to send.
func zeros(t *testing.T, n int) tar.Header {
	t.Helper()
	return file("zeros", strings.Repeat("\x00", n))
}

// An app that is deleted half-way through its build: the pusher is told, and
// nothing is left of either.
func TestAppDeletedDuringItsBuild(t *testing.T) {
	p := running(t)
	app := p.CreateApp(t)
	dir := platform.Repository(t, map[string]string{
		"package.json": `{"name":"x","version":"1.0.0","scripts":{"build":"sleep 600"}}`, "Procfile": "web: node x\n",
	})
	var out platform.Buffer
	push := p.PushCommand(t, dir, app)
	push.Stdout, push.Stderr = &out, &out
	if err := push.Start(); err != nil {
		t.Fatal(err)
	}
	platform.Eventually(t, 2*time.Minute, func() error {
		if !strings.Contains(out.String(), "Node.js app detected") {
			return fmt.Errorf("not building yet: %s", out.String())
		}
		return nil
	})
	p.DeleteApp(app)
	if err := push.Wait(); err == nil || !strings.Contains(out.String(), "The app was deleted while this build ran.") {
		t.Errorf("%v, the pusher reads:\n%s", err, out.String())
	}
	p.Refused(t, 404, "GET", "/apps/"+app+"/builds", nil)
}

// What the CLI sets is what builds, in its order.
func TestHerokuBuildpacks(t *testing.T) {
	p := running(t)
	app := p.CreateApp(t)
	s := newSession(t, p, platform.Repository(t, map[string]string{
		"Procfile": "web: exec python3 app.py\n", "requirements.txt": "", "app.py": answersFile, "answer": "by the CLI", "index.html": "hello",
	}), "HEROKU_APP="+app)
	using := func(packs ...string) func(*session, string) {
		return func(s *session, _ string) {
			platform.Commit(s.t, s.dir)
			out := s.p.Push(s.t, s.dir, app)
			var used []string
			for _, found := range regexp.MustCompile(`Using buildpack: (\S+)`).FindAllStringSubmatch(out, -1) {
				used = append(used, found[1])
			}
			if !slices.Equal(used, packs) {
				s.t.Errorf("%v build the app, want %v:\n%s", used, packs, out)
			}
		}
	}
	s.does("buildpacks:search", "buildpacks:search python", `heroku/python[^/]*1 buildpack`, "those of that name that come with this platform", nil)
	s.does("buildpacks:set", "buildpacks:set heroku/python", "Buildpack set", "the next push is built with it", using("heroku/python"))
	s.does("buildpacks:add", "buildpacks:add --index 1 heroku/static", "Buildpack added", "the next push is built with both, in their order", using("heroku/static", "heroku/python"))
	s.does("buildpacks", "buildpacks", `(?s)1\. heroku/static.*2\. heroku/python`, "both, in their order", nil)
	s.does("buildpacks:remove", "buildpacks:remove heroku/static", "Buildpack removed", "the next push is built with the other alone", using("heroku/python"))
	s.does("buildpacks:clear", "buildpacks:clear", "Buildpack", "the next push is built with what its files ask for", using())
	p.Answers(t, app, "/", "by the CLI")
}
