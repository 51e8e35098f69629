package drain

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"manifold/coordinator/logs"
	"manifold/coordinator/outbound"
)

const (
	postTime = 10 * time.Second // for a receiver to take and answer one batch
	// A request costs both sides more than a line does: after one that was not
	// full, lines come together for restTime.
	restTime = 100 * time.Millisecond
	full     = 64 << 10
)

// poster posts batches to an HTTP server, one at a time. A 2xx says that the
// server has it.
type poster struct {
	drain  *drain
	ctx    context.Context
	client *http.Client
	frames frames
}

func (d *drain) newPoster(ctx context.Context) outlet {
	return &poster{drain: d, ctx: ctx, client: &http.Client{
		Timeout: postTime,
		// Where else it would lead nobody has checked.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  nil, // the guard sees the receiver's own address
			DialContext:            d.room.cfg.Guard.Dialer().DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: d.room.cfg.Roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    outbound.ConnectTime,
			MaxResponseHeaderBytes: 16 << 10,
			IdleConnTimeout:        time.Minute,
		},
	}}
}

// refusedError is an answer that says that this batch is not wanted, where
// other errors say not now.
type refusedError struct{ status string }

func (e *refusedError) Error() string { return "the receiver answers " + e.status }

func (p *poster) send(lines []logs.Line) error {
	body := p.frames.make(lines, "host", " - ", "\n")
	req, err := http.NewRequestWithContext(p.ctx, http.MethodPost, p.drain.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header = http.Header{
		"Content-Type":        {"application/logplex-1"},
		"User-Agent":          {"Logplex/1 (Manifold)"},
		"Logplex-Msg-Count":   {strconv.Itoa(len(lines))},
		"Logplex-Frame-Id":    {p.frameID(lines)},
		"Logplex-Drain-Token": {p.drain.Token},
	}
	res, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10) // so that the connection can serve again
	switch {
	case res.StatusCode/100 == 2:
		return nil
	case res.StatusCode/100 == 5, res.StatusCode == http.StatusTooManyRequests, res.StatusCode == http.StatusRequestTimeout:
		return fmt.Errorf("the receiver answers %d", res.StatusCode)
	}
	return &refusedError{strconv.Itoa(res.StatusCode)}
}

// frameID is the same whenever the same lines are sent: a receiver knows by it
// what it had before.
func (p *poster) frameID(lines []logs.Line) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %d", p.drain.Token, lines[0].ID, lines[len(lines)-1].ID, len(lines)))
	return hex.EncodeToString(sum[:16])
}

func (p *poster) alive() context.Context { return p.ctx }
func (p *poster) settle() time.Duration  { return 0 }
func (p *poster) rest() time.Duration {
	if len(p.frames.all) >= full {
		return 0
	}
	return restTime
}
func (p *poster) close() { p.client.CloseIdleConnections() }
