package sources

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

type rig struct {
	*testing.T
	room *Room
	url  string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	key, err := Key()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.TempDir(), key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	return &rig{t, r, srv.URL}
}

func (r *rig) do(method, path, body string) (int, string) {
	r.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

func (r *rig) open(get string) (io.ReadCloser, error) {
	open, err := r.room.Find(get)
	if err != nil {
		return nil, err
	}
	return open()
}

func TestPutAndOpen(t *testing.T) {
	r := newRig(t)
	put, get := r.room.New()
	if _, err := r.open(r.url + get); !errors.Is(err, ErrUnknown) {
		t.Errorf("before the upload: %v", err)
	}
	if status, text := r.do("PUT", put, "the source"); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	f, err := r.open("https://another.name" + get)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text, err := io.ReadAll(f); err != nil || string(text) != "the source" {
		t.Errorf("%q, %v", text, err)
	}
	if status, text := r.do("GET", get, ""); status != 200 || text != "the source" {
		t.Errorf("%d %q", status, text)
	}
}

func TestRefused(t *testing.T) {
	r := newRig(t)
	put, get := r.room.New()
	other, _ := r.room.New()
	query := func(path string) string { _, q, _ := strings.Cut(path, "?"); return "?" + q }
	for _, c := range []struct{ method, path string }{
		{"PUT", get}, {"GET", put}, {"DELETE", put}, {"PUT", strings.Split(put, "?")[0]},
		{"PUT", strings.Split(other, "?")[0] + query(put)}, {"PUT", "/sources/../x" + query(put)}, {"PUT", "/sources/" + query(put)},
		{"PUT", strings.Replace(put, "expires=", "expires=9", 1)}, {"PUT", put + "0"},
	} {
		if status, _ := r.do(c.method, c.path, "x"); status != 403 && status != 301 {
			t.Errorf("%s %s: %d", c.method, c.path, status)
		}
	}
	r.room.blob = 10
	if status, _ := r.do("PUT", put, strings.Repeat("x", 11)); status != 413 {
		t.Errorf("a blob over its limit: %d", status)
	}
	if status, _ := r.do("PUT", put, strings.Repeat("x", 10)); status != 200 {
		t.Errorf("a blob at its limit: %d", status)
	}
	r.room.all = 10
	if status, _ := r.do("PUT", other, "x"); status != 507 {
		t.Errorf("more than all may be: %d", status)
	}
	open, err := r.room.Find(get)
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(life)
	r.room.now = func() time.Time { return later }
	if status, _ := r.do("GET", get, ""); status != 403 {
		t.Errorf("an hour later: %d", status)
	}
	if f, err := open(); err != nil {
		t.Errorf("a build that waited for its turn for an hour: %v", err)
	} else {
		f.Close()
	}
	later = later.Add(life + time.Second)
	if left, err := r.room.sweep(); left != 0 || err != nil {
		t.Errorf("two hours later %d bytes are left, %v", left, err)
	}
}

// Uploads that are on their way count as much as those that are there: many at
// once cannot fill the disk, and one that lasts cannot keep the room for ever.
func TestUploadsAtOnce(t *testing.T) {
	r := newRig(t)
	r.room.blob, r.room.all = 10, 25
	var uploads []*io.PipeWriter
	answers := make(chan int, 3)
	for range 3 {
		put, _ := r.room.New()
		read, write := io.Pipe() // nobody knows how long it will be
		uploads = append(uploads, write)
		go func() {
			req, _ := http.NewRequest("PUT", r.url+put, read)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				answers <- 0
				return
			}
			res.Body.Close()
			answers <- res.StatusCode
		}()
	}
	if status := <-answers; status != 507 {
		t.Errorf("a third of 10 bytes where 25 have room: %d", status)
	}
	for _, u := range uploads {
		u.Write([]byte("x"))
		u.Close()
	}
	if a, b := <-answers, <-answers; a != 200 || b != 200 {
		t.Errorf("the others: %d, %d", a, b)
	}
	slow := &patient{strings.NewReader("x"), http.NewResponseController(httptest.NewRecorder()), time.Now()}
	if _, err := slow.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an upload past its time: %v", err)
	}
}
