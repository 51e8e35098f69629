// Package sources takes the sources of builds that are not pushed: a client
// asks for a blob, puts a gzipped tar to its one URL and names its other one in
// the build.
//
//	POST /sources ─▶ New ─▶ put_url, get_url      signed, good for an hour
//	PUT put_url   ─▶ ServeHTTP ─▶ file            bounded
//	POST builds {source_blob: {url: get_url}} ─▶ Find
//
// Whoever has a URL may use it, for what its signature says and until it
// expires. This room must never look into a blob: what is in it is a stranger's,
// and the compiler's business.
package sources

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	life    = time.Hour
	maxBlob = 1 << 30 // bytes of one
	maxAll  = 8 << 30 // bytes of all that are kept or on their way
	stuck   = time.Minute
	partial = ".part" // an upload that has not ended
)

// ErrUnknown means that a URL is not one of ours, has expired, or that nothing
// was put there.
var ErrUnknown = errors.New("it is no source of this platform, has expired, or nothing was uploaded to it: make one with POST /sources, and upload to its put_url")

// Room keeps blobs. It is safe for use by several goroutines.
type Room struct {
	dir  *os.Root
	key  []byte
	blob int64 // bytes of one
	all  int64
	now  func() time.Time

	mu     sync.Mutex
	coming int64 // bytes that uploads under way may have
}

// Open opens the room in dir, which it makes if need be. key signs the URLs.
func Open(dir string, key []byte) (*Room, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the sources: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the sources: %w", err)
	}
	r := &Room{dir: root, key: key, blob: maxBlob, all: maxAll, now: time.Now}
	if err := r.clear(); err != nil {
		root.Close()
		return nil, err
	}
	return r, nil
}

// Key draws a key for Open.
func Key() ([]byte, error) {
	key := make([]byte, 32)
	_, err := rand.Read(key)
	return key, err
}

// Close releases the directory.
func (r *Room) Close() error { return r.dir.Close() }

// New makes a blob and returns the paths of its two URLs.
func (r *Room) New() (put, get string) {
	id, expires := rand.Text(), r.now().Add(life).Unix()
	path := func(method string) string {
		q := url.Values{"expires": {strconv.FormatInt(expires, 10)}, "signature": {r.sign(method, id, expires)}}
		return "/sources/" + id + "?" + q.Encode()
	}
	return path(http.MethodPut), path(http.MethodGet)
}

func (r *Room) sign(method, id string, expires int64) string {
	mac := hmac.New(sha256.New, r.key)
	fmt.Fprintf(mac, "%s %s %d", method, id, expires)
	return hex.EncodeToString(mac.Sum(nil))
}

// check returns the blob's id if u is good for method.
func (r *Room) check(method string, u *url.URL) (id string, ok bool) {
	id, ok = strings.CutPrefix(u.Path, "/sources/")
	expires, err := strconv.ParseInt(u.Query().Get("expires"), 10, 64)
	if !ok || err != nil || r.now().Unix() >= expires {
		return "", false
	}
	// Only ids of our own were ever signed.
	return id, hmac.Equal([]byte(r.sign(method, id, expires)), []byte(u.Query().Get("signature")))
}

// Find returns what opens the blob that a get_url names, from now on: a build
// that waits for its turn reads it when the URL has expired. The URL's host is
// not looked at: the client may know us by another name.
func (r *Room) Find(get string) (open func() (io.ReadCloser, error), err error) {
	u, err := url.Parse(get)
	if err != nil {
		return nil, ErrUnknown
	}
	id, ok := r.check(http.MethodGet, u)
	if !ok {
		return nil, ErrUnknown
	}
	return func() (io.ReadCloser, error) {
		f, err := r.dir.Open(id)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrUnknown
		}
		return f, err
	}, nil
}

// Matches says whether r has a checksum of the form SHA256:<hex>.
func Matches(r io.Reader, checksum string) (bool, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, r); err != nil {
		return false, fmt.Errorf("read a source: %w", err)
	}
	return strings.EqualFold(checksum, "SHA256:"+hex.EncodeToString(sum.Sum(nil))), nil
}

// ServeHTTP answers PUT and GET of a blob's URLs.
func (r *Room) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	method := req.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	id, ok := r.check(method, req.URL)
	if !ok {
		http.Error(w, "This URL is not signed for "+req.Method+", or it has expired.", http.StatusForbidden)
		return
	}
	if method == http.MethodPut {
		r.put(w, req, id)
		return
	}
	f, err := r.dir.Open(id)
	if err != nil {
		http.Error(w, "Nothing was uploaded here yet.", http.StatusNotFound)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/gzip")
	http.ServeContent(w, req, "", time.Time{}, f)
}

// put takes an upload, whole or not at all.
func (r *Room) put(w http.ResponseWriter, req *http.Request, id string) {
	size := req.ContentLength
	if size > r.blob {
		tooLarge(w, r.blob)
		return
	}
	if size < 0 { // it does not say
		size = r.blob
	}
	if !r.reserve(size) {
		noRoom(w)
		return
	}
	defer r.giveBack(size)
	body := &patient{http.MaxBytesReader(w, req.Body, size), http.NewResponseController(w), r.now().Add(life)}
	var large *http.MaxBytesError
	switch err := r.take(body, id); {
	case err == nil:
		w.WriteHeader(http.StatusOK)
	case errors.As(err, &large):
		tooLarge(w, r.blob)
	case errors.Is(err, syscall.ENOSPC):
		noRoom(w)
	default:
		http.Error(w, "The upload broke off.", http.StatusBadRequest)
	}
}

// take writes an upload aside and puts it in its place once it is whole.
func (r *Room) take(body io.Reader, id string) error {
	part := id + "." + rand.Text() + partial
	f, err := r.dir.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = r.dir.Rename(part, id)
	}
	if err != nil {
		_ = r.dir.Remove(part) // or the next Open does
	}
	return err
}

// reserve keeps room for an upload, if there is any, until giveBack.
func (r *Room) reserve(size int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept, err := r.sweep()
	if err == nil && kept+r.coming+size > r.all {
		return false
	}
	r.coming += size
	return true
}

func (r *Room) giveBack(size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.coming -= size
}

func noRoom(w http.ResponseWriter) {
	w.Header().Set("Connection", "close") // else the answer waits for what is not wanted
	http.Error(w, "There is no room for more sources now. Try again in an hour, or push with git.", http.StatusInsufficientStorage)
}

func tooLarge(w http.ResponseWriter, limit int64) {
	http.Error(w, fmt.Sprintf("The source is larger than %d MB.", limit>>20), http.StatusRequestEntityTooLarge)
}

// patient gives up a client that sends nothing for a while, or goes on past
// until: its room is kept from others.
type patient struct {
	io.Reader
	control *http.ResponseController
	until   time.Time
}

func (p *patient) Read(b []byte) (int, error) {
	if now := time.Now(); now.Before(p.until) {
		_ = p.control.SetReadDeadline(now.Add(stuck)) // a ResponseWriter without deadlines is a test's
		return p.Reader.Read(b)
	}
	return 0, os.ErrDeadlineExceeded
}

// clear removes what no upload will end any more, and what has expired.
func (r *Room) clear() error {
	parts, err := fs.Glob(r.dir.FS(), "*"+partial)
	for _, part := range parts {
		err = errors.Join(err, r.dir.Remove(part))
	}
	_, failed := r.sweep()
	return errors.Join(err, failed)
}

// sweep removes what has expired and returns the bytes that are left, of whole
// blobs. A blob
// may be used as long as a URL that was made with it, and a build may take as
// long again to read it.
func (r *Room) sweep() (left int64, err error) {
	entries, err := fs.ReadDir(r.dir.FS(), ".")
	if err != nil {
		return 0, fmt.Errorf("list the sources: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		switch {
		case err != nil: // gone
		case r.now().Sub(info.ModTime()) > 2*life:
			_ = r.dir.Remove(e.Name()) // the next sweep tries again
		case !strings.HasSuffix(e.Name(), partial):
			left += info.Size()
		}
	}
	return left, nil
}
