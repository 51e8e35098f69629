// Package pki is the coordinator's certificate authority: it names the
// coordinator to agents, routers and users' clients, and agents and routers to
// the coordinator. All keys are ECDSA P-256. It must never take anything from
// a request but its key, decide who may join, or keep a key anywhere itself.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"time"

	"manifold"
)

// How long certificates are good for. A server's is made anew at each start of
// the coordinator; some clients (Apple's) refuse more than 825 days. A
// client's is as good as its host: whether that may still connect, fleet
// decides at each request.
const (
	caLife     = 20 * year
	clientLife = 10 * year
	serverLife = 2 * year
	year       = 365 * 24 * time.Hour

	clockSkew = time.Hour // hosts whose clocks are behind by less may join
	maxCSR    = 16 << 10  // bytes
)

// CA signs for one cluster. It is safe for use by several goroutines.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// Open reads the CA that once keeps under the key "ca", or makes it.
// once must keep the value encrypted: it holds the CA's private key.
func Open(once func(key string, make func() ([]byte, error)) ([]byte, error)) (*CA, error) {
	kept, err := once("ca", create)
	if err != nil {
		return nil, fmt.Errorf("open the certificate authority: %w", err)
	}
	// The one value holds certificate and key, so that they always fit.
	pair, err := tls.X509KeyPair(kept, kept)
	if err != nil {
		return nil, fmt.Errorf("open the certificate authority: %w", err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, errors.New("open the certificate authority: the store holds another kind of certificate")
	}
	return &CA{cert: pair.Leaf, key: key}, nil
}

// create makes the PEM of a new CA's certificate and key.
func create() ([]byte, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := certificate("Manifold certificate authority", caLife)
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(toPEM("CERTIFICATE", der), toPEM("PRIVATE KEY", keyDER)...), nil
}

// Server makes a new key and certificate for a TLS server that is known by
// names: host names ("*.localhost" is a wildcard) and IP addresses. The
// chain's last element is the CA, as manifold.Join expects.
func (ca *CA) Server(names ...string) (tls.Certificate, error) {
	if len(names) == 0 {
		return tls.Certificate{}, errors.New("make a server certificate: no name given")
	}
	key, err := newKey()
	if err != nil {
		return tls.Certificate{}, err
	}
	template := certificate(names[0], serverLife)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := ca.sign(template, key.Public())
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a server certificate for %v: %w", names, err)
	}
	return tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: key}, nil
}

// Sign makes a certificate for a TLS client with CommonName id and
// OrganizationalUnit role. Of the request, which may come from anybody, it
// takes the key alone, and that only if the sender has its private half.
func (ca *CA) Sign(csrPEM []byte, id, role string) (certPEM []byte, err error) {
	if role != manifold.RoleAgent && role != manifold.RoleRouter || id == "" {
		return nil, fmt.Errorf("sign a certificate: %q is no role, or its holder's id %q is empty", role, id)
	}
	key, err := requestedKey(csrPEM)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	template := certificate(id, clientLife)
	template.Subject.OrganizationalUnit = []string{role}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	der, err := ca.sign(template, key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return toPEM("CERTIFICATE", der), nil
}

// requestedKey reads a stranger's PKCS #10 request.
func requestedKey(csrPEM []byte) (*ecdsa.PublicKey, error) {
	if len(csrPEM) > maxCSR {
		return nil, fmt.Errorf("the request is longer than %d bytes", maxCSR)
	}
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("the request is not a PEM block of type CERTIFICATE REQUEST")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the request is malformed: %w", err)
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the request's key is not ECDSA P-256")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the request is not signed with its own key: %w", err)
	}
	return key, nil
}

// PEM is the CA's certificate, for those who are to trust it.
func (ca *CA) PEM() []byte { return toPEM("CERTIFICATE", ca.cert.Raw) }

// Fingerprint is manifold.Fingerprint of the CA's certificate: the part of a
// join token behind the dot.
func (ca *CA) Fingerprint() string { return manifold.Fingerprint(ca.cert.Raw) }

// Pool holds the CA's certificate alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

func (ca *CA) sign(template *x509.Certificate, key crypto.PublicKey) ([]byte, error) {
	return x509.CreateCertificate(rand.Reader, template, ca.cert, key, ca.key)
}

// certificate is what all of ours have in common. The serial number is drawn
// by x509 itself (RFC 5280: unique, positive, at most 20 bytes).
func certificate(name string, life time.Duration) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func toPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
