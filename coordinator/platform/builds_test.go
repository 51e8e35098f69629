package platform

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/compiler"
	"manifold/coordinator/outputs"
	"manifold/coordinator/sources"
	"manifold/coordinator/store"
)

var (
	_ Builds  = (*compiler.Compiler)(nil)
	_ Sources = (*sources.Room)(nil)
	_ Outputs = (*outputs.Room)(nil)
)

// fakeBuilds begins builds that never end.
type fakeBuilds struct {
	store  *store.Store
	last   compiler.Request
	purged string
}

func (f *fakeBuilds) Start(r compiler.Request) (manifold.Build, error) {
	f.last = r
	if r.Commit == "busy" {
		return manifold.Build{}, compiler.ErrBusy
	}
	b := manifold.Build{ID: uuid.NewString(), App: r.App.ID, User: r.By.Email, UserID: r.By.ID, Status: manifold.BuildPending,
		Version: r.Commit, Stack: "cedar", Buildpacks: r.App.Buildpacks, Output: rand.Text()}
	_, err := f.store.PutBuild(store.By(context.Background(), r.Author), &b)
	return b, err
}

func (f *fakeBuilds) Cancel(string, string) bool { return true }
func (f *fakeBuilds) Purge(app string) error     { f.purged = app; return nil }
func (f *fakeBuilds) Tarball(open func() (io.ReadCloser, error)) func(io.Writer) error {
	return func(w io.Writer) error {
		r, err := open()
		if err == nil {
			_, err = io.Copy(w, r)
		}
		return err
	}
}

func newSources(t *testing.T) *sources.Room {
	t.Helper()
	r, err := sources.Open(t.TempDir(), []byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func newOutputs(t *testing.T) *outputs.Room {
	t.Helper()
	r, err := outputs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

type source struct {
	Blob struct {
		Put string `json:"put_url"`
		Get string `json:"get_url"`
	} `json:"source_blob"`
}

func TestBuildOfAnUploadedSource(t *testing.T) {
	r := newRig(t)
	app := r.app("builder")
	s := into[source](r.send("POST", "/sources", "").want(201))
	if !strings.HasPrefix(s.Blob.Put, r.url+"/sources/") || !strings.HasPrefix(s.Blob.Get, r.url+"/sources/") {
		t.Fatalf("%+v", s)
	}
	create := func(body string) reply {
		return r.send("POST", "/apps/builder/builds", strings.ReplaceAll(body, "GET", s.Blob.Get))
	}
	create(`{"source_blob":{"url":"GET"}}`).fails(422, "invalid_params", "nothing was uploaded")
	r.put(s.Blob.Put, "the source")
	create(`{}`).fails(422, "invalid_params", "POST /sources")
	create(`{"source_blob":{"url":"https://example.com/x.tgz"}}`).fails(422, "invalid_params", "no source of this platform")
	create(`{"source_blob":{"url":"GET","version":"a\nb"}}`).fails(422, "invalid_params", "printable")
	create(`{"source_blob":{"url":"GET","version":"`+strings.Repeat("x", 300)+`"}}`).fails(422, "invalid_params", "256")
	create(`{"source_blob":{"url":"GET","checksum":"SHA256:00"}}`).fails(422, "invalid_params", "checksum")
	create(`{"source_blob":{"url":"GET"},"buildpacks":[{"url":"--upload-pack=x"}]}`).fails(422, "invalid_params", "Buildpack")
	create(`{"source_blob":{"url":"GET","version":"busy"}}`).fails(409, "conflict", "Another build")

	b := into[object](create(`{"source_blob":{"url":"GET","version":"v1.2","checksum":null},"buildpacks":[{"url":"heroku/go"}]}`).want(201))
	if b["status"] != "pending" || b["release"] != nil || b["output_stream_url"] == "" || b["stack"] != "cedar" {
		t.Errorf("%v", b)
	}
	builds := r.config.Builds.(*fakeBuilds)
	var read bytes.Buffer
	if err := builds.last.Source(&read); err != nil || read.String() != "the source" || builds.last.App.Buildpacks[0] != "heroku/go" {
		t.Errorf("the compiler reads %q, %v of %+v", read.String(), err, builds.last.App)
	}
	path := "/apps/builder/builds/" + b["id"].(string)
	r.send("GET", path, "").want(200)
	if all := into[[]object](r.send("GET", "/apps/builder/builds", "", "Range", "created_at ..; max=15, order=desc").want(200)); len(all) != 1 || all[0]["id"] != b["id"] {
		t.Errorf("builds %v", all)
	}
	if res := into[object](r.send("GET", path+"/result", "").want(200)); res["exit_code"] != nil {
		t.Errorf("result of one that runs: %v", res)
	}
	if b = into[object](r.send("DELETE", path, "").want(200)); b["status"] != "failed" {
		t.Errorf("cancelled: %v", b)
	}
	done, err := r.store.Build(t.Context(), app.ID, b["id"].(string))
	if err != nil {
		t.Fatal(err)
	}
	done.Status = manifold.BuildSucceeded
	if _, err := r.store.PutBuild(t.Context(), &done); err != nil {
		t.Fatal(err)
	}
	out, err := r.config.Outputs.(*outputs.Room).Create(done.Output)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(out, "one\ntwo\n")
	out.Close()
	res := into[struct {
		Exit  int `json:"exit_code"`
		Lines []struct{ Line string }
	}](r.send("GET", path+"/result", "").want(200))
	if res.Exit != 0 || len(res.Lines) != 2 || res.Lines[1].Line != "two\n" {
		t.Errorf("result %+v", res)
	}
	r.send("DELETE", path, "").fails(422, "invalid_params", "has ended")
	r.send("GET", "/apps/builder/builds/"+uuid.NewString(), "").fails(404, "not_found")
	r.send("GET", "/apps/builder/builds/x", "").fails(404, "not_found")
	r.send("DELETE", "/apps/builder/build-cache", "").want(200)
	if builds.purged != app.ID {
		t.Errorf("purged %q", builds.purged)
	}
	r.strangersApp()
	r.send("GET", "/apps/not-yours/builds", "").fails(404, "not_found")
}

// put uploads as a client does, with nothing but the URL.
func (r *rig) put(url, body string) {
	r.Helper()
	req, err := http.NewRequest(http.MethodPut, url, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	res := httptest.NewRecorder()
	r.config.Sources.(*sources.Room).ServeHTTP(res, req)
	if res.Code != 200 {
		r.Fatalf("PUT: %d %s", res.Code, res.Body)
	}
}
