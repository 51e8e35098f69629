package drain

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/logs"
	"manifold/coordinator/outbound"
	"manifold/coordinator/store"
	"manifold/test/port"
)

// patience is how long a test waits for what must happen: a machine may be busy
// with others' tests, and a drain rests up to lastPause between two tries.
const patience = lastPause + time.Minute

// rig is a room on a real store and a real log hub.
type rig struct {
	*testing.T
	store *store.Store
	hub   *logs.Hub
	cfg   Config
	app   manifold.App
	next  uint64 // number of the next line
	stop  func()
}

func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	dir := t.TempDir()
	st, err := store.Open(t.Context(), filepath.Join(dir, "store"), slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { st.Close() })
	hub, err := logs.Open(filepath.Join(dir, "logs"))
	must(t, err)
	t.Cleanup(func() { hub.Close() })
	app, err := st.CreateApp(t.Context(), manifold.App{Name: "drained", Stack: "cedar"}, manifold.User{ID: "u", Email: "ada@example.com"})
	must(t, err)
	r := &rig{T: t, store: st, hub: hub, app: app, next: 1, cfg: Config{
		Store: st, Logs: hub, Dir: filepath.Join(dir, "drains"), Guard: outbound.Guard{Loopback: true}, Pause: 50 * time.Millisecond, Log: log,
	}}
	for _, f := range change {
		f(&r.cfg)
	}
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run runs the room until the test, or stop, ends it.
func (r *rig) run() {
	r.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, r.cfg) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				r.Error(err)
			}
		case <-time.After(patience):
			r.Error("the room does not end")
		}
	})
	r.Cleanup(r.stop)
}

// add adds a drain and waits until it stands at its place.
func (r *rig) add(url string) manifold.Drain {
	r.Helper()
	d, err := r.store.AddDrain(r.Context(), r.app.ID, url)
	must(r, err)
	r.eventually("the drain does not begin", func() bool {
		places, _ := filepath.Glob(filepath.Join(r.cfg.Dir, d.ID))
		return len(places) == 1
	})
	return d
}

// write adds n lines whose text is their number and padding.
func (r *rig) write(n int, padding string) {
	r.Helper()
	for n > 0 {
		s := manifold.LogStream{ID: "run/app", App: r.app.ID, Source: manifold.SourceApp, Process: "web.1"}
		for range min(n, 500) {
			s.Lines = append(s.Lines, manifold.LogLine{Seq: r.next, Time: time.Now(), Text: fmt.Sprint(r.next, " ", padding)})
			r.next++
			n--
		}
		must(r, r.hub.Append(r.Context(), []manifold.LogStream{s}))
	}
}

func (r *rig) eventually(what string, ok func() bool) {
	r.Helper()
	for deadline := time.Now().Add(patience); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatal(what)
		}
	}
}

// certificate makes one that signs itself, for 127.0.0.1, and says who trusts it.
func certificate(t testing.TB) (certPEM, keyPEM []byte, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "receiver"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	return certPEM, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), roots
}

// receiver is an HTTPS server that takes application/logplex-1.
type receiver struct {
	t      *testing.T
	addr   string
	config *tls.Config // nil: plain
	answer func(*http.Request) int
	server *http.Server

	mu     sync.Mutex
	frames map[string]string // id to body
	lines  []string          // messages, without those of frames that were seen before
	again  int               // frames seen before
}

func newReceiver(t *testing.T, config *tls.Config, answer func(*http.Request) int) *receiver {
	t.Helper()
	v := &receiver{t: t, addr: port.Closed(t), config: config, answer: answer, frames: map[string]string{}}
	v.start()
	t.Cleanup(v.stop)
	return v
}

func (v *receiver) start() {
	v.t.Helper()
	ln, err := net.Listen("tcp", v.addr)
	must(v.t, err)
	v.server = &http.Server{Handler: v, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	if v.config != nil {
		ln = tls.NewListener(ln, v.config)
	}
	go v.server.Serve(ln)
}

// stop ends it as kill -9 would: connections break where they are.
func (v *receiver) stop() { v.server.Close() }

func (v *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	status := 204
	if v.answer != nil {
		status = v.answer(r)
	}
	if status/100 == 2 {
		v.take(r, body)
	}
	if status/100 == 3 {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(status)
}

// take checks what Logplex promises of a request.
func (v *receiver) take(r *http.Request, body []byte) {
	h := r.Header
	messages, err := split(body)
	if err != nil || h.Get("Logplex-Msg-Count") != strconv.Itoa(len(messages)) {
		v.t.Errorf("%d messages (%v), Logplex-Msg-Count is %s", len(messages), err, h.Get("Logplex-Msg-Count"))
	}
	if r.Method != "POST" || h.Get("Content-Type") != "application/logplex-1" || !strings.HasPrefix(h.Get("Logplex-Drain-Token"), "d.") ||
		!strings.HasPrefix(h.Get("User-Agent"), "Logplex/") || len(h.Get("Logplex-Frame-Id")) != 32 {
		v.t.Errorf("%s %v", r.Method, h)
	}
	id := h.Get("Logplex-Frame-Id")
	if before, seen := v.frames[id]; seen {
		v.again++
		if before != string(body) {
			v.t.Error("another frame has the same id")
		}
		return
	}
	v.frames[id] = string(body)
	v.lines = append(v.lines, messages...)
}

// split reads octet-counted frames.
func split(body []byte) (messages []string, err error) {
	for from := bufio.NewReader(bytes.NewReader(body)); ; {
		length, err := from.ReadString(' ')
		if err == io.EOF && length == "" {
			return messages, nil
		}
		n, err := strconv.Atoi(strings.TrimSuffix(length, " "))
		if err != nil {
			return messages, err
		}
		one := make([]byte, n)
		if _, err := io.ReadFull(from, one); err != nil {
			return messages, err
		}
		messages = append(messages, string(one))
	}
}

func (v *receiver) got() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]string(nil), v.lines...)
}

func (v *receiver) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.lines)
}

// number is which line a message is; 0 for none of the app's.
func number(message string) (n uint64) {
	for _, between := range []string{" app web.1 - - ", " app web.1 - "} {
		if _, text, ok := strings.Cut(message, between); ok {
			fmt.Sscan(text, &n)
			return n
		}
	}
	return 0
}

// inOrder checks that lines from to to-1 came, each after the one before it;
// what comes again must be a run of what came last. It returns how many did.
func inOrder(t *testing.T, messages []string, from, to uint64) (again int) {
	t.Helper()
	want := from
	for _, m := range messages {
		switch n := number(m); {
		case n == 0:
		case n == want:
			want++
		case n < want:
			again++
		default:
			t.Fatalf("line %d came where %d should: %q", n, want, m)
		}
	}
	if want != to {
		t.Fatalf("the last line is %d, want %d", want-1, to-1)
	}
	return again
}
