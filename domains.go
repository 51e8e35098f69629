package manifold

import (
	"net/netip"
	"strings"
	"time"
)

// MaxDomains bounds an app's custom domains.
const MaxDomains = 100

// Domain is a host name beside <app>.<domain of the platform> that an app
// answers to.
type Domain struct {
	ID        string    `json:"id"`
	Hostname  string    `json:"hostname"` // as CheckHostname returns it
	CreatedAt time.Time `json:"created_at"`
}

// CheckHostname accepts a name of the public DNS (RFC 1123, 2.1, in ASCII), or
// "*." and such a name for all names directly below it, and returns it in
// lower case and without a last dot. Names of this machine and addresses are
// refused: routers would send others' requests to the app.
func CheckHostname(text string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	base, wildcard := strings.CutPrefix(name, "*.")
	labels := strings.Split(base, ".")
	for _, label := range labels {
		if !isLabel(label) {
			return "", invalid("Hostname", "%q must be a domain name such as www.example.com or *.example.com", clip(text))
		}
	}
	last := labels[len(labels)-1]
	switch {
	case len(name) > 253 || len(labels) > 32:
		return "", invalid("Hostname", "%q is too long: a domain name has at most 253 characters", clip(text))
	case last == "localhost" || last == "local" || last == "localdomain" || last == "internal" || last == "arpa":
		return "", invalid("Hostname", "%q is not a public domain name such as www.example.com", clip(text))
	case strings.Trim(last, "0123456789") == "" || isAddress(base):
		return "", invalid("Hostname", "%q is an address, not a domain name", clip(text))
	case len(labels) < 2 && wildcard:
		return "", invalid("Hostname", "%q would be every name of a top-level domain", clip(text))
	case len(labels) < 2:
		return "", invalid("Hostname", "%q has no top-level domain: it must be a domain name such as www.example.com", clip(text))
	}
	return name, nil
}

func isAddress(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}

// isLabel accepts [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !lower(c) && !digit(c) && c != '-' {
			return false
		}
	}
	return true
}
