package host

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"

	"manifold"
)

const (
	maxReply = 64 << 20 // bytes of an answer that is no stream
	maxLine  = 1 << 20  // of one that is
)

// get asks for a JSON answer.
func (t *tool) get(ctx context.Context, path string, reply any) error {
	return t.call(ctx, http.MethodGet, path, reply)
}

// post has the agent do something. reply may be nil.
func (t *tool) post(ctx context.Context, path string, reply any) error {
	return t.call(ctx, http.MethodPost, path, reply)
}

func (t *tool) call(ctx context.Context, method, path string, reply any) error {
	res, err := t.do(ctx, method, path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if reply == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxReply)).Decode(reply); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	return nil
}

// stream calls each with every line the agent sends, until it ends or ctx
// does, which is no error.
func (t *tool) stream(ctx context.Context, path string, each func(line []byte) error) error {
	res, err := t.do(ctx, http.MethodGet, path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue // a sign of life
		}
		if err := each(lines.Bytes()); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the agent's answer broke off: %w", err)
	}
	return nil
}

// do sends a request; an answer other than 2xx is an error in the agent's
// words. The caller closes the body.
func (t *tool) do(ctx context.Context, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, nil)
	if err != nil {
		return nil, err
	}
	return t.send(req)
}

// send is do for a request of any kind; one may switch protocols, too.
func (t *tool) send(req *http.Request) (*http.Response, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: t.dial}}
	res, err := client.Do(req)
	if err != nil {
		return nil, t.explain(err)
	}
	if res.StatusCode/100 == 2 || res.StatusCode == http.StatusSwitchingProtocols {
		return res, nil
	}
	defer res.Body.Close()
	failure := manifold.ErrorBody{Message: "the agent answered " + res.Status}
	text, _ := io.ReadAll(io.LimitReader(res.Body, manifold.MaxWireBody))
	_ = json.Unmarshal(text, &failure) // a body of another form leaves the status to speak
	return nil, errors.New(failure.Message)
}

func (t *tool) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", t.socket)
}

// explain says what to do where the socket itself is the trouble.
func (t *tool) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no agent answers on %s: is it running (systemctl status manifold-agent, or manifold run), and is this its socket (--socket)?", t.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s lets in root and members of the group manifold only", t.socket)
	}
	return fmt.Errorf("ask the agent on %s: %w", t.socket, err)
}
