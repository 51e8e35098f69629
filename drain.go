package manifold

import (
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Drain is a place outside the platform to which an app's log lines go.
type Drain struct {
	ID        string    `json:"id"`    // UUID
	App       string    `json:"app"`   // App.ID
	URL       string    `json:"url"`   // CheckDrainURL; secret: it may hold a password
	Token     string    `json:"token"` // "d." and a UUID: by it the receiver knows whose lines they are
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// MaxDrains is how many drains an app may have, MaxDrainURL how many bytes one
// may take.
const (
	MaxDrains   = 5
	MaxDrainURL = 2048
)

// CheckDrainURL accepts what lines can be delivered to: http and https with a
// host, syslog (TCP) and syslog+tls with a host and a port. Where the host is,
// and whether it may be reached, is seen at each connection only.
func CheckDrainURL(raw string) error {
	refuse := func(why string) error { return &InvalidError{What: "Url", Why: why} }
	if len(raw) > MaxDrainURL || strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return refuse("is too long, or holds blanks or characters that must be escaped")
	}
	u, err := url.Parse(raw)
	if err != nil { // whose text holds the URL
		return refuse("cannot be read")
	}
	switch u.Scheme {
	case "http", "https":
	case "syslog", "syslog+tls":
		if u.Port() == "" {
			return refuse("needs a port, as in syslog+tls://logs.example.com:6514")
		}
		if u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return refuse("of a syslog drain can have a host and a port only")
		}
	default:
		return refuse("must begin with https://, http://, syslog+tls:// or syslog://")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return refuse("must have a port from 1 to 65535")
		}
	}
	if u.Hostname() == "" || u.Opaque != "" || u.Fragment != "" {
		return refuse("needs a host and must not have a fragment")
	}
	return nil
}
