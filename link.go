package manifold

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Identity is what joining gives: who the holder is and the keys to prove it.
// The holder keeps it in a file of mode 0600.
type Identity struct {
	ID      string `json:"id"`
	Role    string `json:"role"`
	Cluster string `json:"cluster"`
	Cert    string `json:"cert"` // PEM
	Key     string `json:"key"`  // PEM, secret
	CA      string `json:"ca"`   // PEM
}

// Fingerprint names a CA certificate (DER) in a join token.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// Join trades a join token for an identity. The coordinator at addr
// (host:port) must show a chain that ends in the CA the token names; until
// then the token does not leave this process.
func Join(ctx context.Context, addr, token, role, name string) (Identity, error) {
	fail := func(err error) (Identity, error) {
		return Identity{}, fmt.Errorf("join coordinator %s: %w", addr, err)
	}
	_, fingerprint, ok := strings.Cut(token, ".")
	if !ok {
		return fail(errors.New("the join token is malformed: it must look like SECRET.FINGERPRINT; print a new one with: manifold-coordinator join-token"))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		return fail(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fail(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		// The chain is checked below against the fingerprint in the token,
		// which is all we know of the coordinator so far.
		InsecureSkipVerify:    true,
		VerifyPeerCertificate: verifyByFingerprint(fingerprint),
	}}}
	defer client.CloseIdleConnections()
	req := JoinRequest{
		Token: token, Role: role, Name: name,
		CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
	}
	var reply JoinReply
	l := &Link{base: "https://" + addr, client: client}
	if err := l.post(ctx, "/fleet/v1/join", req, &reply); err != nil {
		return fail(err)
	}
	return Identity{
		ID: reply.ID, Role: role, Cluster: reply.Cluster, Cert: reply.Cert, CA: reply.CA,
		Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})),
	}, nil
}

func verifyByFingerprint(fingerprint string) func([][]byte, [][]*x509.Certificate) error {
	return func(raw [][]byte, _ [][]*x509.Certificate) error {
		if len(raw) < 2 {
			return errors.New("the coordinator showed no certificate authority")
		}
		caDER := raw[len(raw)-1]
		if subtle.ConstantTimeCompare([]byte(Fingerprint(caDER)), []byte(fingerprint)) != 1 {
			return errors.New("the certificate authority is not the one the join token names: wrong coordinator or outdated token")
		}
		ca, err := x509.ParseCertificate(caDER)
		if err != nil {
			return err
		}
		leaf, err := x509.ParseCertificate(raw[0])
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots})
		return err
	}
}

// Link is the line from an agent or router to its coordinator. It is safe for
// use by several goroutines.
type Link struct {
	base   string
	client *http.Client
	single *http.Client // HTTP/1.1, a connection for each request
}

// NewLink makes a line to the coordinator at addr (host:port). It dials at
// the first request.
func NewLink(addr string, id Identity) (*Link, error) {
	cert, err := tls.X509KeyPair([]byte(id.Cert), []byte(id.Key))
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(id.CA)) {
		return nil, errors.New("read identity: no CA certificate in it")
	}
	trust := &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, MinVersion: tls.VersionTLS13}
	dial := (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	return &Link{
		base: "https://" + addr,
		client: &http.Client{Transport: &http.Transport{
			TLSClientConfig:       trust,
			ForceAttemptHTTP2:     true,
			DialContext:           dial,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: 60 * time.Second,
			IdleConnTimeout:       90 * time.Second,
			HTTP2:                 &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
		}},
		single: &http.Client{Transport: &http.Transport{
			TLSClientConfig:       trust.Clone(), // which without ForceAttemptHTTP2 means HTTP/1.1
			DialContext:           dial,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: 60 * time.Second,
			DisableKeepAlives:     true,
		}},
	}, nil
}

// StatusError is an answer other than 2xx.
type StatusError struct {
	Status int
	Body   ErrorBody
}

func (e *StatusError) Error() string {
	if e.Body.Message != "" {
		return e.Body.Message
	}
	return fmt.Sprintf("the coordinator answered %d %s", e.Status, http.StatusText(e.Status))
}

// Do sends one request and returns a 2xx answer, whose body the caller
// closes. Any other answer is a *StatusError.
func (l *Link) Do(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	return l.do(ctx, l.client, method, path, body, header)
}

func (l *Link) do(ctx context.Context, client *http.Client, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, l.base+path, body)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode/100 == 2 || res.StatusCode == http.StatusSwitchingProtocols {
		return res, nil
	}
	defer res.Body.Close()
	failure := &StatusError{Status: res.StatusCode}
	text, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	_ = json.Unmarshal(text, &failure.Body) // a body of another form leaves the status to speak
	return nil, failure
}

// Attach joins a session (AttachProtocol). It returns when the session's
// client is there, with what that is; from then on ctx means nothing to the
// connection, which carries frames until it is closed.
func (l *Link) Attach(ctx context.Context, session string) (io.ReadWriteCloser, Attach, error) {
	var is Attach
	res, err := l.do(ctx, l.single, http.MethodPost, "/fleet/v1/attach/"+session, nil, http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {AttachProtocol},
	})
	if err != nil {
		return nil, is, err
	}
	conn, ok := res.Body.(io.ReadWriteCloser)
	if !ok || res.StatusCode != http.StatusSwitchingProtocols {
		res.Body.Close()
		return nil, is, fmt.Errorf("join a session: the coordinator answered %s where it should have switched to %s", res.Status, AttachProtocol)
	}
	if err := json.Unmarshal([]byte(res.Header.Get(AttachHeader)), &is); err != nil {
		res.Body.Close()
		return nil, is, fmt.Errorf("join a session: read %s: %w", AttachHeader, err)
	}
	return conn, is, nil
}

// Post sends v as JSON and waits until the coordinator has accepted it.
func (l *Link) Post(ctx context.Context, path string, v any) error { return l.post(ctx, path, v, nil) }

func (l *Link) post(ctx context.Context, path string, v, reply any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	res, err := l.Do(ctx, http.MethodPost, path, bytes.NewReader(body), http.Header{"Content-Type": {"application/json"}})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if reply == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(res.Body, MaxWireBody))
		return err
	}
	return json.NewDecoder(io.LimitReader(res.Body, MaxWireBody)).Decode(reply)
}

// StreamSilence is how long a stream may stay without a byte before the
// reader gives it up: three missed heartbeats.
const StreamSilence = 15 * time.Second

// Stream reads one JSON value a line from path and calls each with it, until
// the stream breaks, falls silent for StreamSilence, each fails, or ctx ends.
// It always returns an error; the caller decides when to call again.
func (l *Link) Stream(ctx context.Context, path string, each func(line []byte) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(StreamSilence, func() { cancel(errors.New("the stream fell silent")) })
	defer silence.Stop()
	res, err := l.Do(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return cmpErr(context.Cause(ctx), err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 64<<10), MaxWireValue)
	for lines.Scan() {
		silence.Reset(StreamSilence)
		if len(lines.Bytes()) == 0 {
			continue
		}
		if err := each(lines.Bytes()); err != nil {
			return err
		}
	}
	return cmpErr(context.Cause(ctx), lines.Err(), io.ErrUnexpectedEOF)
}

// cmpErr returns the first error there is.
func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
