package git

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

// What the hook says to the coordinator: one HTTP request over the unix
// socket. The answer's body is the text for the pusher, raw and as it comes;
// the trailer says the verdict.
//
//	POST /pre-receive   verdictRequest ───────▶
//	                    ◀══ progress … ═══════
//	                    ◀── Manifold-Verdict: accept | refuse
//
// A connection that ends without a verdict is a refusal, so a coordinator
// that dies never lets a push through unbuilt.
const (
	verdictTrailer = "Manifold-Verdict"
	accepted       = "accept"
	refused        = "refuse"
)

type verdictRequest struct {
	Push       string `json:"push"` // the secret given to the push's git
	Quarantine string `json:"quarantine"`
	Updates    string `json:"updates"` // as git wrote them (githooks(5), pre-receive)
}

// maxUpdates bounds the list of refs in one push, in bytes.
const maxUpdates = 1 << 20

// ErrRefused means that the coordinator refused the push and said why.
var ErrRefused = errors.New("the push was refused")

// Hook is the pre-receive hook (githooks(5)): it hands git's list of updates
// from stdin to the coordinator and shows the progress on stderr, which git
// sends to the pusher line by line. nil accepts the push. An error's text was
// shown already.
func Hook(ctx context.Context, stdin io.Reader, stderr io.Writer) error {
	err := hook(ctx, stdin, stderr)
	if err != nil && !errors.Is(err, ErrRefused) {
		fmt.Fprintf(stderr, " !     The coordinator did not finish with this push: %v.\n !     Nothing was deployed. Push again.\n", err)
	}
	return err
}

func hook(ctx context.Context, stdin io.Reader, stderr io.Writer) error {
	updates, err := io.ReadAll(io.LimitReader(stdin, maxUpdates+1))
	if err != nil {
		return fmt.Errorf("read the list of refs: %w", err)
	}
	if len(updates) > maxUpdates {
		return errors.New("too many refs in one push")
	}
	body, err := json.Marshal(verdictRequest{
		Push: os.Getenv("MANIFOLD_PUSH"), Quarantine: os.Getenv("GIT_QUARANTINE_PATH"), Updates: string(updates),
	})
	if err != nil {
		return err
	}
	socket := os.Getenv("MANIFOLD_PUSH_SOCKET")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://coordinator/pre-receive", bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(stderr, res.Body); err != nil {
		return err
	}
	switch res.Trailer.Get(verdictTrailer) {
	case accepted:
		return nil
	case refused:
		return ErrRefused
	}
	return fmt.Errorf("it answered %s without a verdict", res.Status)
}
