package outputs

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func open(t *testing.T) *Room {
	t.Helper()
	r, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func write(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

// Readers that come at any moment read the whole, while it is written and
// afterwards.
func TestReadersSeeTheWhole(t *testing.T) {
	r, name := open(t), rand.Text()
	o, err := r.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	read := make([]bytes.Buffer, 20)
	for i := range read {
		write(t, o, strings.Repeat("x", i+1)+"\n")
		readers.Go(func() {
			if err := r.Copy(t.Context(), name, &read[i]); err != nil {
				t.Error(err)
			}
		})
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	readers.Wait()
	write(t, o, "after the end")
	var late bytes.Buffer
	if err := r.Copy(t.Context(), name, &late); err != nil || late.Len() != 20*21/2+20 {
		t.Errorf("%d bytes, %v", late.Len(), err)
	}
	for i := range read {
		if read[i].String() != late.String() {
			t.Errorf("reader %d read %q", i, read[i].String())
		}
	}
}

// Who asks for an output in the moment it begins gets all of it.
func TestReaderAtTheBeginning(t *testing.T) {
	r := open(t)
	for range 1000 {
		name, read := rand.Text(), make(chan string)
		go func() {
			var text strings.Builder
			for errors.Is(r.Copy(t.Context(), name, &text), fs.ErrNotExist) {
				runtime.Gosched()
			}
			read <- text.String()
		}()
		o, err := r.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, o, "all")
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		if text := <-read; text != "all" {
			t.Fatalf("read %q", text)
		}
	}
}

func TestBounds(t *testing.T) {
	r, name := open(t), rand.Text()
	o, err := r.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	for range 9 {
		write(t, o, strings.Repeat("x", 1<<20))
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	if err := r.Copy(t.Context(), name, &all); err != nil || all.Len() != maxBytes+len(cut) || !strings.HasSuffix(all.String(), cut) {
		t.Errorf("%d bytes are kept, %v", all.Len(), err)
	}
	for _, bad := range []string{"", "..", "../" + name, name + "/..", strings.ToLower(name), "x", strings.Repeat("A", 100)} {
		if _, err := r.Create(bad); err == nil {
			t.Errorf("%q was created", bad)
		}
		if err := r.Copy(t.Context(), bad, io.Discard); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("reading %q: %v", bad, err)
		}
	}
	if err := r.Collect(func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if err := r.Copy(t.Context(), name, io.Discard); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after it was collected: %v", err)
	}
}

func TestServe(t *testing.T) {
	r, name := open(t), rand.Text()
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	began := make(chan *Output)
	go func() { // its reader comes before it
		o, err := r.Create(name)
		if err != nil {
			t.Error(err)
		}
		write(t, o, "first half, ")
		began <- o
	}()
	res, err := http.Get(srv.URL + "/outputs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	o := <-began
	half := make([]byte, len("first half, "))
	if _, err := io.ReadFull(res.Body, half); err != nil || string(half) != "first half, " {
		t.Fatalf("%q, %v", half, err)
	}
	write(t, o, "second half")
	o.Close()
	if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "second half" {
		t.Errorf("%q, %v", rest, err)
	}
	for path, want := range map[string]int{"/outputs/": 404, "/outputs/..": 404, "/outputs/" + name + "X": 404} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+path, nil)
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%s: %s", path, res.Status)
			}
		}
		cancel()
	}
}

// An error may be logged; the name that is the key to an output must not.
func TestErrorsHideNames(t *testing.T) {
	r, name := open(t), rand.Text()
	if err := r.dir.Mkdir(name, 0o700); err != nil { // in the way
		t.Fatal(err)
	}
	if err := r.dir.Mkdir(name+"/x", 0o700); err != nil {
		t.Fatal(err)
	}
	_, created := r.Create(name)
	for _, err := range []error{created, r.Remove(name), r.Copy(t.Context(), rand.Text(), io.Discard)} {
		if err == nil || strings.Contains(err.Error(), name) {
			t.Errorf("error %v", err)
		}
	}
	if err := r.Copy(t.Context(), rand.Text(), io.Discard); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}
