package pki

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"manifold"
)

// keeper is a once that keeps in memory.
type keeper map[string][]byte

func (k keeper) once(key string, make func() ([]byte, error)) ([]byte, error) {
	if v, found := k[key]; found {
		return v, nil
	}
	v, err := make()
	if err == nil {
		k[key] = v
	}
	return v, err
}

func newCA(t testing.TB, k keeper) *CA {
	t.Helper()
	ca, err := Open(k.once)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestCAIsMadeOnce(t *testing.T) {
	k := keeper{}
	a, b := newCA(t, k), newCA(t, k)
	if a.Fingerprint() != b.Fingerprint() || !bytes.Equal(a.PEM(), b.PEM()) {
		t.Error("the CA was made twice")
	}
	if a.Fingerprint() == newCA(t, keeper{}).Fingerprint() {
		t.Error("two clusters have one CA")
	}
	if bytes.Contains(a.PEM(), []byte("PRIVATE")) {
		t.Error("PEM gives the key away")
	}
	if _, err := Open(keeper{"ca": []byte("junk")}.once); err == nil {
		t.Error("junk was opened as a CA")
	}
}

// TestJoinAndLink goes the way of an agent: it joins by a token through a
// real TLS server and then calls by its certificate.
func TestJoinAndLink(t *testing.T) {
	ca := newCA(t, keeper{})
	cert, err := ca.Server("localhost", "127.0.0.1", "::1", "*.localhost")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /fleet/v1/join", func(w http.ResponseWriter, r *http.Request) {
		var req manifold.JoinRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		signed, err := ca.Sign([]byte(req.CSR), "host-1", req.Role)
		if err != nil {
			t.Error(err)
		}
		json.NewEncoder(w).Encode(manifold.JoinReply{ID: "host-1", Cert: string(signed), CA: string(ca.PEM())})
	})
	mux.HandleFunc("POST /whoami", func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.VerifiedChains) == 0 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		subject := r.TLS.VerifiedChains[0][0].Subject
		if subject.CommonName != "host-1" || len(subject.OrganizationalUnit) != 1 || subject.OrganizationalUnit[0] != manifold.RoleAgent {
			t.Errorf("the client is %v", subject)
		}
	})
	server := httptest.NewUnstartedServer(mux)
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientCAs: ca.Pool(), ClientAuth: tls.VerifyClientCertIfGiven,
	}
	server.StartTLS()
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())

	for _, name := range []string{"127.0.0.1", "localhost"} {
		addr := net.JoinHostPort(name, port)
		id, err := manifold.Join(t.Context(), addr, "secret."+ca.Fingerprint(), manifold.RoleAgent, "name of the host")
		if err != nil {
			t.Fatal(err)
		}
		link, err := manifold.NewLink(addr, id)
		if err != nil {
			t.Fatal(err)
		}
		if err := link.Post(t.Context(), "/whoami", nil); err != nil {
			t.Errorf("call to %s by certificate: %v", addr, err)
		}
	}
	other := newCA(t, keeper{}).Fingerprint()
	addr := net.JoinHostPort("127.0.0.1", port)
	if _, err := manifold.Join(context.Background(), addr, "secret."+other, manifold.RoleAgent, "h"); err == nil {
		t.Error("a join token of another cluster was sent here")
	}
}

func TestServerNames(t *testing.T) {
	ca := newCA(t, keeper{})
	made, err := ca.Server("localhost", "127.0.0.1", "::1", "*.localhost")
	if err != nil {
		t.Fatal(err)
	}
	if last := made.Certificate[len(made.Certificate)-1]; manifold.Fingerprint(last) != ca.Fingerprint() {
		t.Error("the chain does not end in the CA")
	}
	leaf, err := x509.ParseCertificate(made.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, good := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "::1": true, "app.localhost": true,
		"example.com": false, "a.b.localhost": false, "127.0.0.2": false,
	} {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), DNSName: name})
		if (err == nil) != good {
			t.Errorf("as %s: %v", name, err)
		}
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err == nil {
		t.Error("a server's certificate passes for a client's")
	}
	if _, err := ca.Server(); err == nil {
		t.Error("a certificate for no name was made")
	}
}

func csr(t *testing.T, template x509.CertificateRequest, key any) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	return toPEM("CERTIFICATE REQUEST", der)
}

func TestSignTakesTheKeyOnly(t *testing.T) {
	ca := newCA(t, keeper{})
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	greedy := csr(t, x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "host-of-another", OrganizationalUnit: []string{manifold.RoleRouter, "admin"}},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, URIs: []*url.URL{{Scheme: "x"}},
		ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}, // CA: true
	}, key)
	signed, err := ca.Sign(greedy, "host-1", manifold.RoleAgent)
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(signed)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil || len(rest) != 0 {
		t.Fatalf("%v, %d bytes left", err, len(rest))
	}
	if got := leaf.Subject.String(); got != "CN=host-1,OU=agent" {
		t.Errorf("subject %s", got)
	}
	if leaf.IsCA || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.URIs) > 0 {
		t.Errorf("taken from the request: CA %v, names %v %v %v", leaf.IsCA, leaf.DNSNames, leaf.IPAddresses, leaf.URIs)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		t.Error("another key was certified")
	}
	for usage, good := range map[x509.ExtKeyUsage]bool{x509.ExtKeyUsageClientAuth: true, x509.ExtKeyUsageServerAuth: false} {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{usage}})
		if (err == nil) != good {
			t.Errorf("usage %v: %v", usage, err)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	ca := newCA(t, keeper{})
	key, _ := newKey()
	good := csr(t, x509.CertificateRequest{}, key)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	block, _ := pem.Decode(good)
	forged := bytes.Clone(block.Bytes)
	forged[len(forged)-1] ^= 1
	for what, request := range map[string][]byte{
		"nothing":           nil,
		"a certificate":     ca.PEM(),
		"junk in PEM":       toPEM("CERTIFICATE REQUEST", []byte("junk")),
		"another curve":     csr(t, x509.CertificateRequest{}, p384),
		"another algorithm": csr(t, x509.CertificateRequest{}, ed),
		"a wrong signature": toPEM("CERTIFICATE REQUEST", forged),
		"a long one":        append([]byte(strings.Repeat("\n", maxCSR)), good...),
	} {
		if _, err := ca.Sign(request, "host-1", manifold.RoleAgent); err == nil {
			t.Errorf("%s was signed", what)
		}
	}
	for _, who := range [][2]string{{"", manifold.RoleAgent}, {"host-1", ""}, {"host-1", "admin"}} {
		if _, err := ca.Sign(good, who[0], who[1]); err == nil {
			t.Errorf("id %q, role %q was signed", who[0], who[1])
		}
	}
}
