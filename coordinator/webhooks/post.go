package webhooks

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/outbound"
)

// post makes one attempt, and says whether the receiver took it: any 2xx.
func (r *room) post(ctx context.Context, hook manifold.Webhook, d manifold.WebhookDelivery) (a manifold.WebhookAttempt, took bool) {
	a = manifold.WebhookAttempt{ID: uuid.NewString(), CreatedAt: now()}
	code, err := r.send(ctx, hook, d, a.ID)
	a.UpdatedAt, a.Code = now(), code
	if err != nil {
		a.Error = class(err)
	}
	return a, code/100 == 2
}

func (r *room) send(ctx context.Context, hook manifold.Webhook, d manifold.WebhookDelivery, attempt string) (code int, err error) {
	text, err := json.Marshal(body(hook, d, attempt))
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, hook.URL, bytes.NewReader(text))
	if err != nil {
		return 0, err
	}
	req.Header = http.Header{
		"Content-Type":               {"application/json"},
		"User-Agent":                 {"Heroku-Webhooks (Manifold)"},
		"Heroku-Webhook-Id":          {hook.ID},
		"Heroku-Webhook-Hmac-Sha256": {Sign(hook.Secret, text)},
	}
	if hook.Authorization != "" {
		req.Header.Set("Authorization", hook.Authorization)
	}
	res, err := r.client.Do(req)
	if err != nil {
		return 0, err
	}
	res.Body.Close() // whatever it says: only the status counts
	return res.StatusCode, nil
}

// Sign is what the header Heroku-Webhook-Hmac-SHA256 holds: the HMAC-SHA256
// (RFC 2104) of the body's bytes, in base64.
func Sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// class says in a word why there was no answer. The error itself may hold the
// URL.
func class(err error) string {
	var forbidden *outbound.ForbiddenError
	var timeout net.Error
	var name *net.DNSError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &forbidden):
		return "forbidden_address"
	case errors.As(err, &name):
		return "dns"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.As(err, &certificate):
		return "certificate"
	}
	return "connection"
}
