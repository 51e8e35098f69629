package platform

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"manifold/coordinator/store"
)

const maxPublicKey = 16 << 10 // bytes; RSA of 16,384 bits needs 3 KB

// keyRoutes keep a user's SSH public keys. Git is served over HTTPS, so that
// they open nothing here; tools that read them find them.
func keyRoutes(a *api) routes {
	return routes{
		"GET /account/keys":          a.keys,
		"POST /account/keys":         a.addKey,
		"GET /account/keys/{key}":    a.key,
		"DELETE /account/keys/{key}": a.removeKey,
	}
}

func (a *api) keys(c *call) (answer, error) {
	all, err := a.Store.Keys(c.Context(), c.user.ID)
	if err != nil {
		return answer{}, err
	}
	return list(c, all, func(k store.Key) any { return keyObject(c.user, k) },
		key[store.Key]{name: "id", of: func(k store.Key) string { return k.ID }})
}

func (a *api) addKey(c *call) (answer, error) {
	var in struct {
		PublicKey string `json:"public_key"`
	}
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	k, err := parseKey(in.PublicKey)
	if err != nil {
		return answer{}, err
	}
	err = a.Store.AddKey(c.Context(), c.user.ID, k)
	if errors.Is(err, store.ErrTaken) {
		err = invalidParams("Fingerprint already exists on your account.")
	}
	if err != nil {
		return answer{}, err
	}
	return created(keyObject(c.user, k))
}

// parseKey reads a line of authorized_keys without options, and writes it anew.
func parseKey(text string) (store.Key, error) {
	refuse := func(why string) (store.Key, error) {
		return store.Key{}, invalidParams("Public key " + why + ". It must look like: ssh-ed25519 AAAA… name@host")
	}
	text = strings.TrimSpace(text)
	if text == "" || len(text) > maxPublicKey || strings.ContainsAny(text, "\r\n\x00") {
		return refuse("must be one line of at most 16 KB")
	}
	public, comment, options, _, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil || len(options) > 0 {
		return refuse("is not an SSH public key")
	}
	if _, isCertificate := public.(*ssh.Certificate); isCertificate {
		return refuse("is a certificate, not a key")
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))
	return store.Key{
		ID: uuid.NewString(), Public: strings.TrimSpace(line + " " + comment), Comment: comment,
		Fingerprint: ssh.FingerprintLegacyMD5(public), CreatedAt: time.Now().UTC().Truncate(time.Second),
	}, nil
}

// findKey finds one of the caller's by id, fingerprint or comment.
func (a *api) findKey(c *call) (store.Key, error) {
	all, err := a.Store.Keys(c.Context(), c.user.ID)
	if err != nil {
		return store.Key{}, err
	}
	name := c.PathValue("key")
	for _, k := range all {
		if k.ID == name || k.Fingerprint == name || k.Comment == name {
			return k, nil
		}
	}
	return store.Key{}, notFound("key", fmt.Sprintf("You have no key %q. See which you have with: heroku keys", clip(name)))
}

func (a *api) key(c *call) (answer, error) {
	k, err := a.findKey(c)
	if err != nil {
		return answer{}, err
	}
	return ok(keyObject(c.user, k))
}

func (a *api) removeKey(c *call) (answer, error) {
	k, err := a.findKey(c)
	if err != nil {
		return answer{}, err
	}
	if err := a.Store.RemoveKey(c.Context(), c.user.ID, k); err != nil {
		return answer{}, err
	}
	return ok(keyObject(c.user, k))
}
