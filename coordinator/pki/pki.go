// Package pki is the coordinator's certificate authority: it names the
// coordinator to agents and routers, and them to it. It must never take
// anything from a request but its key.
package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
)

// CA signs for one cluster. It is safe for use by several goroutines.
type CA struct{}

var errSkeleton = errors.New("pki: not yet written")

// Open reads the CA that once keeps, or makes it.
func Open(once func(key string, make func() ([]byte, error)) ([]byte, error)) (*CA, error) {
	return nil, errSkeleton
}

// Server makes a certificate for TLS servers at the given names and IP addresses; the chain's last element is the CA.
func (ca *CA) Server(names ...string) (tls.Certificate, error) {
	return tls.Certificate{}, errSkeleton
}

// Sign makes a client certificate with CommonName id and OrganizationalUnit role.
func (ca *CA) Sign(csrPEM []byte, id, role string) (certPEM []byte, err error) {
	return nil, errSkeleton
}

// PEM is the CA's certificate.
func (ca *CA) PEM() []byte { return nil }

// Fingerprint is manifold.Fingerprint of the CA's certificate.
func (ca *CA) Fingerprint() string { return "" }

// Pool holds the CA's certificate alone.
func (ca *CA) Pool() *x509.CertPool { return nil }
