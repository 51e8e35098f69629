package manifold

import (
	"net/mail"
	"slices"
	"strings"
	"time"
)

// MaxCollaborators bounds how many users an app may be shared with.
const MaxCollaborators = 100

// Collaborator is a user an app's owner shares it with. They may do all that
// the owner may, but for deleting and renaming the app and choosing who else
// may touch it.
type Collaborator struct {
	User    string    `json:"user"` // User.ID
	AddedAt time.Time `json:"added_at"`
}

// Lets tells whether a user (User.ID) may see and change the app. For whom it
// says no the app does not exist: every room answers as if it were not there.
func (a App) Lets(user string) bool {
	return user != "" && user == a.Owner ||
		slices.ContainsFunc(a.Collaborators, func(c Collaborator) bool { return c.User == user })
}

// CheckEmail accepts a bare address of at most 254 bytes (RFC 5321, 4.5.3.1)
// and returns it as it is kept, in lower case.
func CheckEmail(text string) (string, error) {
	addr, err := mail.ParseAddress(text)
	if err != nil || addr.Address != text || len(text) > 254 || strings.ContainsAny(text, "\"\\ /\t") {
		return "", invalid("Email address", "%q must look like name@example.com", clip(text))
	}
	return strings.ToLower(text), nil
}
