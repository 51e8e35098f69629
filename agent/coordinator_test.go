package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"manifold"
)

const testCluster = "test-cluster"

// patience is how long tests wait for what must happen.
const patience = 60 * time.Second

// testCoordinator is the other end of wire.go, over real mTLS, with what the
// tests want to see and to break.
type testCoordinator struct {
	t      testing.TB
	server *httptest.Server
	ca     *x509.Certificate
	caKey  *ecdsa.PrivateKey
	token  string
	images []string // directories of images

	mu       sync.Mutex
	desired  manifold.Desired
	changed  chan struct{}
	seen     manifold.Observation
	posts    int
	logs     map[string][]manifold.LogLine // by stream, each number once
	sources  map[string]manifold.LogStream // the same, without lines
	doubled  int
	lags     []time.Duration // from a line's writing to its arrival
	down     bool
	input    []byte
	outputs  map[string][]byte
	refuse   int // status for outputs
	requests []string
	clients  map[string]chan *line // by session; see attach_test.go
}

func newCoordinator(t testing.TB, imageDirs ...string) *testCoordinator {
	t.Helper()
	c := &testCoordinator{
		t: t, images: imageDirs, desired: manifold.Desired{Cluster: testCluster, Revision: 1},
		changed: make(chan struct{}), logs: map[string][]manifold.LogLine{}, sources: map[string]manifold.LogStream{}, outputs: map[string][]byte{},
	}
	var err error
	if c.caKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	c.ca = c.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, &c.caKey.PublicKey)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := c.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "coordinator"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, c.ca, &key.PublicKey)
	c.token = "secret." + manifold.Fingerprint(c.ca.Raw)

	clients := x509.NewCertPool()
	clients.AddCert(c.ca)
	c.server = httptest.NewUnstartedServer(c.handler())
	c.server.EnableHTTP2 = true
	c.server.Config.ErrorLog = log.New(io.Discard, "", 0) // what the tests break on purpose
	c.server.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw, c.ca.Raw}, PrivateKey: key}},
		ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: clients, NextProtos: []string{"h2", "http/1.1"},
	}
	c.server.StartTLS()
	t.Cleanup(c.server.CloseClientConnections)
	return c
}

func (c *testCoordinator) addr() string { return c.server.Listener.Addr().String() }

func (c *testCoordinator) sign(template, parent *x509.Certificate, key any) *x509.Certificate {
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, c.caKey)
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return cert
}

func (c *testCoordinator) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /fleet/v1/join", c.join)
	mux.HandleFunc("GET /fleet/v1/desired", c.streamDesired)
	mux.HandleFunc("POST /fleet/v1/observed", func(w http.ResponseWriter, r *http.Request) {
		var o manifold.Observation
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.seen = o
		c.posts++
	})
	mux.HandleFunc("POST /fleet/v1/logs", c.takeLogs)
	mux.HandleFunc("GET /fleet/v1/images/{digest}", func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.PathValue("digest"), "sha256:") + ".erofs"
		for _, dir := range c.images {
			if f, err := os.Open(filepath.Join(dir, name)); err == nil {
				defer f.Close()
				http.ServeContent(w, r, "", time.Time{}, f)
				return
			}
		}
		http.Error(w, "no such image", http.StatusNotFound)
	})
	mux.HandleFunc("GET /fleet/v1/jobs/{id}/input", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(c.input) })
	mux.HandleFunc("PUT /fleet/v1/jobs/{id}/outputs/{name}", c.takeOutput)
	mux.HandleFunc("POST /fleet/v1/attach/{session}", c.attach)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		down := c.down
		c.requests = append(c.requests, r.Method+" "+r.URL.Path+" "+r.Header.Get("Range"))
		c.mu.Unlock()
		if down {
			panic(http.ErrAbortHandler) // the connection breaks
		}
		if r.URL.Path != "/fleet/v1/join" && len(r.TLS.PeerCertificates) == 0 {
			http.Error(w, "no certificate", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (c *testCoordinator) join(w http.ResponseWriter, r *http.Request) {
	var req manifold.JoinRequest
	err := json.NewDecoder(r.Body).Decode(&req)
	block, _ := pem.Decode([]byte(req.CSR))
	if err != nil || block == nil || req.Token != c.token {
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(manifold.ErrorBody{ID: "unauthorized", Message: "wrong join token"})
		return
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	cert := c.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "host-1"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, c.ca, csr.PublicKey)
	encode := func(der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	_ = json.NewEncoder(w).Encode(manifold.JoinReply{ID: "host-1", Cluster: testCluster, Cert: encode(cert.Raw), CA: encode(c.ca.Raw)})
}

func (c *testCoordinator) streamDesired(w http.ResponseWriter, r *http.Request) {
	out := http.NewResponseController(w)
	for {
		c.mu.Lock()
		desired, changed, down := c.desired, c.changed, c.down
		c.mu.Unlock()
		if down {
			panic(http.ErrAbortHandler)
		}
		if json.NewEncoder(w).Encode(desired) != nil || out.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-time.After(5 * time.Second): // the same again is as good as an empty line
		case <-r.Context().Done():
			return
		}
	}
}

func (c *testCoordinator) takeLogs(w http.ResponseWriter, r *http.Request) {
	var batch manifold.LogBatch
	if err := json.NewDecoder(r.Body).Decode(&batch); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		panic(http.ErrAbortHandler)
	}
	for _, s := range batch.Streams {
		had := c.logs[s.ID]
		last := uint64(0)
		if len(had) > 0 {
			last = had[len(had)-1].Seq
		}
		for _, line := range s.Lines {
			if line.Seq <= last {
				c.doubled++
				continue
			}
			had, last = append(had, line), line.Seq
			c.lags = append(c.lags, time.Since(line.Time))
		}
		c.logs[s.ID] = had
		s.Lines = nil
		c.sources[s.ID] = s
	}
	w.WriteHeader(http.StatusNoContent)
}

func (c *testCoordinator) takeOutput(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	sum := sha256.Sum256(body)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.refuse != 0:
		w.WriteHeader(c.refuse)
		_ = json.NewEncoder(w).Encode(manifold.ErrorBody{ID: "refused", Message: "refused by the test"})
	case err != nil || r.Header.Get("X-Manifold-Digest") != "sha256:"+hex.EncodeToString(sum[:]):
		http.Error(w, "wrong digest", http.StatusUnprocessableEntity)
	default:
		c.outputs[r.PathValue("name")] = body
	}
}

// want sets what is desired.
func (c *testCoordinator) want(assignments ...manifold.Assignment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.desired.Revision++
	c.desired.Assignments = assignments
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *testCoordinator) setDown(down bool) {
	c.mu.Lock()
	c.down = down
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	if down {
		c.server.CloseClientConnections()
	}
}

// dyno is what was last observed of an assignment.
func (c *testCoordinator) dyno(assignment string) (manifold.Dyno, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.seen.Dynos {
		if d.Assignment == assignment {
			return d, true
		}
	}
	return manifold.Dyno{}, false
}

// await waits until what was observed of an assignment is right.
func (c *testCoordinator) await(assignment, what string, right func(manifold.Dyno) bool) manifold.Dyno {
	c.t.Helper()
	var last manifold.Dyno
	eventually(c.t, what, func() bool {
		d, ok := c.dyno(assignment)
		last = d
		return ok && right(d)
	}, func() string { return fmt.Sprintf("%+v", last) })
	return last
}

func (c *testCoordinator) awaitState(assignment string, s manifold.State) manifold.Dyno {
	c.t.Helper()
	return c.await(assignment, "state "+string(s), func(d manifold.Dyno) bool { return d.State == s })
}

func (c *testCoordinator) awaitGone(assignment string) {
	c.t.Helper()
	eventually(c.t, "gone", func() bool { _, ok := c.dyno(assignment); return !ok }, nil)
}

func (c *testCoordinator) lines(run, source string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var texts []string
	for _, line := range c.logs[run+"/"+source] {
		texts = append(texts, line.Text)
	}
	return texts
}

// source is how a run's lines are labelled.
func (c *testCoordinator) source(run, source string) manifold.LogStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sources[run+"/"+source]
}

func (c *testCoordinator) awaitLine(run, source, text string) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("line %q", text), func() bool {
		for _, line := range c.lines(run, source) {
			if strings.Contains(line, text) {
				return true
			}
		}
		return false
	}, func() string { return strings.Join(c.lines(run, source), "\n") })
}

// eventually polls until ok, and fails after a while.
func eventually(t testing.TB, what string, ok func() bool, state func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience) // the test's own has ended when it cleans up
	defer cancel()
	for !ok() {
		if !sleep(ctx, 10*time.Millisecond) {
			if state != nil {
				what += "; it is: " + state()
			}
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}
